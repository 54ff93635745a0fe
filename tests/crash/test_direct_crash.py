# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker is killed while a VM moves over ``tls``: the next one comes back to the incoming worker of the target.

Proxmox's own control channel dies with the worker. What is left on the target is removed, or unlocked, over a new
``control``, by the restarted worker itself: the role finds nothing to recover.
"""

from __future__ import annotations

import time

import pytest
from e2e.direct import assert_nobody_listens, over

from .blows import JournalWatch, kill_worker, wait_for
from .catalogue import SLOW, Case, at, entering
from .run import MOMENT_TIMEOUT, PLAY_TIMEOUT, Scene

pytestmark = [pytest.mark.crash, pytest.mark.timeout(420)]


def strike(vm, moment, **settings):
    """Kill the worker at a moment of its journal; the play's end, and the records of the one move."""
    scene = Scene(vm, Case("direct", "kill_worker", "", "", moment), target_root=True)
    watch = JournalWatch(vm.source_host)
    scene.play = vm.controller.start("migrate", extra=over(vm, "tls", **settings))
    assert wait_for(scene, watch, MOMENT_TIMEOUT), scene.play.output()[-3000:]
    kill_worker(scene)
    return scene.play.wait(PLAY_TIMEOUT), watch


def records_at_end(watch):
    """The journal once it has come to its end: the play may have given up before."""
    deadline = time.monotonic() + 60.0
    while not any(record.get("phase") in ("completed", "rolled_back") for record in watch.records()):
        assert time.monotonic() < deadline, watch.records()
        time.sleep(0.2)
    return watch.records()


def test_worker_killed_in_precopy_leaves_nothing(mover, certificates):
    vm = mover().create()
    run, watch = strike(vm, entering("precopy"), **SLOW)
    assert run.status != 0
    records = records_at_end(watch)
    assert [record["number"] for record in records if record.get("kind") == "control"] == [1, 2]
    assert [record for record in records if record.get("kind") == "residue"] == []
    vm.assert_stayed()
    vm.assert_nothing_on_target()
    assert_nobody_listens(vm)
    vm.controller.run("migrate", extra=over(vm, "tls")).expect(0)
    vm.assert_moved()
    vm.assert_guest_went_on()


def test_worker_killed_behind_the_commit_takes_the_lock_off(mover, certificates):
    vm = mover().create()
    run, watch = strike(vm, at("COMMITTED"))
    records = records_at_end(watch)
    assert run.status == 0, run.output[-3000:]
    assert [record["number"] for record in records if record.get("kind") == "control"] == [1, 2]
    assert [record for record in records if record.get("kind") == "residue"] == []
    vm.assert_moved()
    vm.assert_guest_went_on()
    assert_nobody_listens(vm)
