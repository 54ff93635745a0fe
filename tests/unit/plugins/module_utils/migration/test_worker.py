# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker process: its operations, its files, its keeper."""

from __future__ import annotations

import io
import json
import os
import stat
import sys

import pytest
from unit.fakes.migration_run import spec_of
from unit.fakes.migration_world import UUID

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import places, worker
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import (
    SpecDiffers,
    TooLate,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Phase
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import ApiUnreachable

ID = "a" * 32
SECRET = "canary-secret"


@pytest.fixture(autouse=True)
def own_directories(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "LIBRARY", str(tmp_path / "lib"))
    monkeypatch.setattr(places, "RUN", str(tmp_path / "run"))


def order(spec):
    opened = {
        "migration_id": ID,
        "spec": spec.to_dict(),
        "spec_digest": spec.digest,
        "worker_digest": "d",
        "name": "web01",
        "uuid": UUID,
        "transport": "websocket",
        "transports_rejected": [],
    }
    return {"migration_id": ID, "secret": SECRET, "opened": opened}


@pytest.fixture
def started(monkeypatch):
    """The files of a migration as `start` lays them out, without a process."""
    os.makedirs(places.LIBRARY)
    os.makedirs(os.path.join(places.LIBRARY, "migrations"))
    detached = []
    monkeypatch.setattr(worker, "_detach", lambda *words: detached.append(words))
    monkeypatch.setattr(worker, "_answers", lambda _id: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(order(spec_of()))))
    assert worker.main(["start"]) == 0
    assert detached == [(ID, "run")]


@pytest.fixture
def running(started):
    return worker.Worker(ID)


def advance(running, **changes):
    spec = spec_of()
    request = {"digest": spec.digest, "identity": spec.identity(), "goal": "completed", "lease": "l", "limits": None}
    return running._advance({**request, **changes})


def test_start_keeps_the_secret_in_a_private_file_and_nowhere_else(started):
    path = places.secrets_path(ID)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    with open(places.journal_path(ID), "rb") as journal:
        assert SECRET.encode() not in journal.read()


def test_start_without_a_journal_leaves_no_secret_behind(monkeypatch):
    def die(*_words, **_fields):
        raise KeyboardInterrupt

    os.makedirs(os.path.join(places.LIBRARY, "migrations"))
    monkeypatch.setattr(worker.Journal, "create", die)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(order(spec_of()))))
    with pytest.raises(KeyboardInterrupt):
        worker.main(["start"])
    assert not os.path.exists(places.run_directory(ID))


def test_worker_without_its_secrets_starts_and_finds_the_target_unreachable(started):
    os.unlink(places.secrets_path(ID))  # after a reboot of the node /run is empty
    alone = worker.Worker(ID, recovering=True)
    with pytest.raises(ApiUnreachable):
        alone.context.world.target.task_status("UPID:b1:1:1:1:qmtunnel:100:mig@pve!t:")


def test_worker_s_unit_sees_a_ca_file_in_a_home(monkeypatch):
    commands = []
    monkeypatch.setattr(worker.os.path, "isdir", lambda _path: True)
    monkeypatch.setattr(worker.subprocess, "run", lambda words, **_more: commands.append(words))
    worker._detach(ID, "run")
    assert "--property=ProtectHome=read-only" in commands[0]


def test_advance_with_another_spec_is_refused_with_the_difference(running):
    other = spec_of(disks={"default": "slow"})
    with pytest.raises(SpecDiffers) as caught:
        advance(running, digest=other.digest, identity=other.identity())
    assert caught.value.facts["differences"] == [
        {"option": "disks.default.storage", "running": "fast", "wanted": "slow"}
    ]
    assert running.requests.goal is Phase.PREFLIGHT


def test_advance_tunes_the_limits_of_the_same_spec(running):
    advance(running, limits=spec_of(limits={"bandwidth": "1 MiB/s"}).limits.to_dict())
    assert running.requests.limits.bandwidth == 1 << 20
    assert running.requests.goal is Phase.COMPLETED


def test_status_renews_nothing_and_poll_with_the_lease_does(running):
    advance(running)
    left = running.requests.lease_left()
    running._status({})
    assert running.requests.lease_left() <= left
    assert running._poll({"lease": "other"})["lease_held"] is False
    assert running._poll({"lease": "l"})["lease_held"] is True
    assert running.requests.lease_left() > left - 1


@pytest.mark.parametrize("phase", ["committing", "hold", "committed", "cleanup", "completed"])
def test_abort_behind_the_intent_is_too_late(running, phase):
    running.context.remember("phase", phase=phase)
    with pytest.raises(TooLate):
        running._abort({})
    assert not running.requests.abort


def test_abort_before_the_intent_is_taken(running):
    running._abort({})
    assert running.requests.abort


def test_milestone_that_is_reached_is_finished_for_its_caller(running):
    advance(running, goal="reserved")
    running.context.remember("phase", phase="locked")
    assert running._status({})["finished"] is False
    running.context.remember("phase", phase="reserved")
    assert running._status({})["finished"] is True


def test_caller_does_not_wait_for_ever_for_a_worker_that_is_stuck(running):
    running.context.remember("phase", phase="hold")
    running.facts.error = {"code": "HELD", "message": "m"}
    running.context.stuck_since = 0.0
    result = running._status({})
    assert (result["finished"], result["error"]["code"]) == (True, "HELD")


def test_unknown_words_end_with_the_usage(capsys):
    assert worker.main(["nothing"]) == 2
    assert "usage" in capsys.readouterr().err


def test_keeper_gives_up_after_three_restarts_in_a_minute(monkeypatch):
    runs = []

    class Dying:
        pid = 1

        def __init__(self, argv, **_keywords):
            runs.append(argv)

        def wait(self):
            return -9

    ended = []
    monkeypatch.setattr(worker, "_end_group", ended.append)
    monkeypatch.setattr(worker.subprocess, "Popen", Dying)
    monkeypatch.setattr(worker.time, "sleep", lambda _seconds: None)
    assert worker._keep(ID, "recover") == 1
    assert len(runs) == len(ended) == 4
    assert {tuple(argv[-2:]) for argv in runs} == {("recover", ID)}


def test_keeper_ends_with_a_worker_that_ended_in_order(monkeypatch):
    class Ending:
        pid = 1

        def __init__(self, *_arguments, **_keywords):
            pass

        def wait(self):
            return 0

    monkeypatch.setattr(worker, "_end_group", lambda _group: None)
    monkeypatch.setattr(worker.subprocess, "Popen", Ending)
    assert worker._keep(ID, "run") == 0


def test_worker_that_recovers_never_begins_what_nobody_waits_for(started, monkeypatch):
    """The worker died right behind `opened`; its play ended. The next one wants an end, not a worker that waits."""
    ended = []
    monkeypatch.setattr(worker, "Machine", lambda context, steps: ended.append(context) or Runs(ended))

    class Runs:
        def __init__(self, seen):
            self.seen = seen

        def run(self, restarted):
            self.seen.append(restarted)

    recovering = worker.Worker(ID, recovering=True)
    monkeypatch.setattr(recovering, "_hold_migration_lock", lambda: None)
    recovering.run()
    assert ended[-1] is True


def test_forward_is_asked_of_the_machine_and_only_in_hold(running):
    running.context.remember("phase", phase="precopy")
    assert running._forward({"wait": 0})["forward"] is False
    assert not running.requests.forward
    running.context.remember("phase", phase="hold")
    assert running._forward({"wait": 0})["forward"] is False
    assert running.requests.forward
    running.context.remember("forward")
    assert running._forward({"wait": 0})["forward"] is True


@pytest.mark.parametrize("holder", ["b" * 32, ID], ids=["of another migration", "of the same migration"])
def test_worker_that_comes_too_late_leaves_no_secret_behind(started, monkeypatch, holder):
    """But one that is just not the first of its migration leaves everything as it is."""
    monkeypatch.setattr(worker, "log_to", lambda _path, _size: None)
    first = places.VmLock(spec_of().vmid)
    assert first.take(holder)
    assert worker.main(["run", ID]) == 0
    first.release()
    assert os.path.exists(places.run_directory(ID)) is (holder == ID)
    assert places.read_facts(ID).final is (holder != ID)
