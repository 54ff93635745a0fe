# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process of a direct transport that is killed before COMMIT_INTENT costs the move, never the guest (safety 6).

The source's guest runs and writes within 3 s, and the play that is run again moves the VM; of the first attempt
nothing is left on either side.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
from pathlib import Path

import pytest

from crash.blows import processes, supervisors
from e2e.direct import assert_nobody_listens, incoming_logs, over
from e2e.test_direct_bounds import BUSY, UNDER_WAY, into_device, sent
from e2e.test_guard import SLOW, until
from lab.vms import Disk

pytestmark = [pytest.mark.e2e, pytest.mark.measuring, pytest.mark.timeout(420)]

BOUND = 3.0  # seconds until the guest runs and writes
PUMP, INCOMING = "worker.pyz pump", "worker.pyz incoming "


def has_reached(vm, name):
    return any(record.get("phase") == name for record in vm.records())


def in_phase(name):
    """Starts a move and waits until it has come so far, or a little farther."""

    def wait(vm):
        play = vm.controller.start("migrate", extra=over(vm, "tls", move_limits=SLOW))
        until(lambda: has_reached(vm, name), name, play)
        return play

    return wait


def under_way(name):
    """The same, and bytes flow."""

    def wait(vm):
        play = in_phase(name)(vm)
        before = sent(vm.source_host)
        until(lambda: sent(vm.source_host) > before + UNDER_WAY, f"bytes in {name}", play)
        assert vm.phase == name
        return play

    return wait


MOMENTS = {
    "locked": in_phase("locked"),
    "reserved": in_phase("reserved"),
    "allocated": in_phase("allocated"),
    "listening": in_phase("listening"),
    "mirroring": under_way("mirroring"),
    "precopy": under_way("precopy"),
    "device": lambda vm: into_device(vm, "tls"),
}


def stream_of(moment):
    """The stream that carries something at that moment, or will."""
    return "disk/scsi0" if moment == "mirroring" else "ram"


def source_pump(vm, moment):
    """The worker starts them in this order: control, disk, RAM."""
    pumps = sorted(processes(vm.source_host, PUMP))
    return pumps[1] if moment == "mirroring" else pumps[-1]


def target_pump(vm, moment):
    """As the log of the incoming worker names it, which counts processes as its host does."""
    log = max(incoming_logs(vm.target_host).values())  # each line begins with the time
    name = re.search(rf"stream {stream_of(moment)} stands, process (\d+)", log)[1]
    return next(pid for pid in incoming(vm) if pid_in_host(pid) == name)


def pid_in_host(pid):
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return re.search(r"^NSpid:.*\s(\d+)$", status, re.MULTILINE)[1]


def incoming(vm):
    """The incoming worker and then its children, as the machine counts them."""
    return sorted(processes(vm.target_host, INCOMING))


VICTIMS = {
    "source pump": source_pump,
    "target pump": target_pump,
    "worker": lambda vm, _moment: max(supervisors(vm.source_host)),
    "incoming worker": lambda vm, _moment: incoming(vm)[0],
}
QUICK = [("mirroring", "target pump"), ("device", "worker"), ("device", "incoming worker")]
CASES = [
    pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow])
    for case in itertools.product(MOMENTS, VICTIMS)
]


def longest_gap(times, since):
    """Seconds, between the moment and what came first after it too."""
    later = [since, *(at for at in times if at > since)]
    return max(after - before for before, after in zip(later, later[1:]))


@pytest.mark.parametrize(("moment", "whose"), CASES)
def test_death_leaves_the_guest_running_and_nothing_behind(mover, certificates, record_property, moment, whose):
    vm = mover().create([Disk(fill_mib=16)], guest_words=BUSY)
    play = MOMENTS[moment](vm)
    victim = VICTIMS[whose](vm, moment)
    since = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    vm.guest.wait_acknowledged(20)
    transcript = vm.guest.transcript
    beats_s = longest_gap([beat.at for beat in transcript.heartbeats], since)
    writes_s = longest_gap([entry[0] for entry in transcript.acknowledges], since)
    record_property("heartbeat_gap_s", round(beats_s, 3))
    record_property("write_gap_s", round(writes_s, 3))
    print(f"longest time without a heartbeat {beats_s:.2f} s, without a written record {writes_s:.2f} s")
    assert max(beats_s, writes_s) <= BOUND
    run = play.wait()
    assert run.status != 0, run.output[-6000:]
    assert vm.source.run_state == "running"

    vm.controller.run("migrate", extra=over(vm, "tls")).expect(0)
    vm.assert_moved()
    vm.assert_guest_went_on()
    assert len(vm.target.volumes()) == 1
    assert processes(vm.source_host, PUMP) == []
    assert incoming(vm) == []
    assert_nobody_listens(vm)
