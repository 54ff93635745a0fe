# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""No silent network freezes a guest (DESIGN 4, safety RG5 and RG6), measured by its own heartbeats and records.

Silence: packets between the two nodes are dropped both ways, without a reset; the controller still reaches both.
A bound is measured from the moment in which the last packet could pass; the machine's own slowness counts against us.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from e2e.controller import Controller
from e2e.moves import EAGER, Mover
from e2e.sides import journals_of, process_ids
from lab import faults
from lab.api import stats
from lab.instance import Lab
from lab.vms import Disk

pytestmark = [pytest.mark.e2e, pytest.mark.measuring, pytest.mark.timeout(420)]

GUEST_BOUND = 10.5  # seconds until the guest runs again at the source
WRITE_BOUND = 5.5  # seconds until its writes are answered again
HELD_BACK = 2.0  # seconds for which the reply of nbdstop is held back: time to silence the RAM stream
PATIENCE = 180.0  # seconds for what a loaded machine needs to come to the moment
SLOW = {"bandwidth": "4 MiB/s"}


class Silence:
    """Nothing passes between two hosts any more; ends with the block."""

    def __init__(self, one, other) -> None:
        self._pair = ((one, other), (other, one))
        self.since = 0.0

    def __enter__(self) -> Silence:
        self.since = time.monotonic()
        for host, towards in self._pair:
            host.mute(towards)
        return self

    def __exit__(self, *_: object) -> None:
        for host, towards in self._pair:
            host.unmute(towards)


def until(done, what: str, play=None, pause: float = 0.005):
    """Wait for an event that is seen by looking; ends at once when the play is over before it."""
    deadline = time.monotonic() + PATIENCE
    while not (found := done()):
        over = play is not None and play.process.poll() is not None
        assert not over, f"the play ended before {what}:\n{play.output()[-6000:]}"
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(pause)
    return found


def carried(host, kind: str, vmid: int) -> int:
    """Bytes that the target's proxy got on the open streams of a kind."""
    streams = [each for worker in stats.read(host.root) for each in worker["open"]]
    return sum(each["from_client"] for each in streams if each["kind"] == kind and each["vmid"] == vmid)


def phase(vm) -> str:
    phases = [record["phase"] for journal in journals_of(vm.source_host, vm.vmid) for record in journal
              if "phase" in record]  # fmt: skip
    return phases[-1] if phases else ""


def failed_because(vm, run, *words: str) -> dict:
    """The play failed, its result is a typed error that tells of the stream, and the source runs as before."""
    assert run.status != 0, run.output[-6000:]
    result = run.result()
    told = str({key: result.get(key) for key in ("code", "message", "msg", "facts", "error")})
    assert any(word in told for word in words), told
    vm.assert_stayed()
    return result


def first_beat_after(guest, moment: float) -> float:
    """When the guest was heard again after a moment at which it stood still."""

    def heard() -> float:
        beats = guest.transcript.heartbeats
        return next((beat.at for beat in reversed(beats) if beat.at > moment), 0.0) and next(
            beat.at for beat in beats if beat.at > moment
        )

    return until(heard, "a heartbeat after the silence", pause=0.02)


def test_silence_in_the_device_phase_frees_the_guest(mover, record_property):
    """RAM is silent when the last of it is handed over; then all of the network is."""
    vm = mover().create(guest_words=EAGER)
    root, name = vm.target_host.root, f"nbdstop-{vm.vmid}"
    faults.set(root, "reply_delay", name=name, command="nbdstop", seconds=HELD_BACK, count=1, vmid=vm.vmid)
    struck = Path(root + faults.DIRECTORY, name + ".json")
    play = vm.controller.start("migrate", extra=vm.extra())
    until(lambda: not struck.exists(), "nbdstop", play)
    since = time.monotonic()
    faults.set(root, "silent", name=f"ram-{vm.vmid}", direction="both", kind="ram", vmid=vm.vmid)
    until(lambda: vm.source.qmp("query-migrate")["status"] == "device", "the phase `device`", play, pause=0.1)
    in_device = time.monotonic()
    with Silence(vm.source_host, vm.target_host):
        heard = first_beat_after(vm.guest, in_device)
    faults.clear(root, f"ram-{vm.vmid}")
    record_property("guest_runs_again_s", round(heard - since, 3))
    record_property("after_device_s", round(heard - in_device, 3))
    print(f"guest runs again {heard - since:.2f} s after RAM fell silent, {heard - in_device:.2f} s after `device`")
    assert heard - since <= GUEST_BOUND
    failed_because(vm, play.wait(), "RAM", "ram", "switchover", "migration")


def test_silence_while_disks_are_mirrored_ends_the_stream(mover, record_property):
    """The pump ends by itself, the guest goes on and writes, and the result says what happened to which disk."""
    vm = mover().create([Disk(fill_mib=48)], guest_words=EAGER)
    play = vm.controller.start("migrate", extra=vm.extra(move_limits=SLOW))
    until(lambda: carried(vm.target_host, "nbd", vm.vmid) > 8 << 20, "the mirror", play)
    assert process_ids(vm.source_host, "worker.pyz", " pump")
    with Silence(vm.source_host, vm.target_host) as silence:
        until(lambda: not process_ids(vm.source_host, "worker.pyz", " pump"), "the end of the pump", pause=0.05)
        pump_s = time.monotonic() - silence.since
        vm.guest.wait_acknowledged(5)
        worst_ms = vm.guest.write_gap_ms(since=silence.since)
    record_property("pump_ended_s", round(pump_s, 3))
    record_property("write_gap_ms", round(worst_ms))
    print(f"pump ended after {pump_s:.2f} s, longest time without a written record {worst_ms:.0f} ms")
    assert pump_s <= GUEST_BOUND
    assert worst_ms <= WRITE_BOUND * 1000
    result = failed_because(vm, play.wait(), "scsi0")
    assert "pong_missing" in str(result) or "answer_missing" in str(result), result


# -- QEMU 10: mirrors that make guest writes wait ------------------------------------------------------------------


@pytest.fixture(scope="module")
def modern():
    """A lab whose source QEMU can make guest writes wait for the target (>= 8.2); QEMU 7.2 never does."""
    with Lab.up({"alpha": {"alpha1": "trixie"}, "beta": {"beta1": "trixie"}}) as running:
        yield running


@pytest.fixture
def modern_mover(modern, tmp_path):
    made = []

    def make():
        made.append(Mover(modern, Controller(modern, tmp_path)))
        return made[-1]

    yield make
    for host in modern.hosts.values():
        faults.clear(host.root)
    for each in made:
        each.destroy()


@pytest.mark.mixed
def test_silence_while_writes_wait_frees_them(modern_mover, record_property):
    vm = modern_mover().create([Disk(fill_mib=8)], guest_words=EAGER)
    play = vm.controller.start("migrate", extra=vm.extra(move_limits=SLOW))
    until(lambda: phase(vm) == "precopy", "the RAM", play)
    until(lambda: carried(vm.target_host, "ram", vm.vmid) > 1 << 20, "the RAM", play)
    assert vm.source.jobs()
    vm.guest.wait_acknowledged(3)
    with Silence(vm.source_host, vm.target_host) as silence:
        vm.guest.wait_acknowledged(10)
        worst_ms = vm.guest.write_gap_ms(since=silence.since - 1.0)
        beats_ms = vm.guest.worst_gap_ms(since=silence.since - 1.0)
    record_property("write_gap_ms", round(worst_ms))
    record_property("heartbeat_gap_ms", round(beats_ms))
    print(f"longest time without a written record {worst_ms:.0f} ms, without a heartbeat {beats_ms:.0f} ms")
    assert worst_ms > 1000, "writes did not wait for the target: the test has shown nothing"
    assert worst_ms <= WRITE_BOUND * 1000
    failed_because(vm, play.wait(), "scsi0", "ram")
