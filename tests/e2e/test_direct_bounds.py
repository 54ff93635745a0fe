# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""With a direct transport no silence freezes a guest (DESIGN 4), measured by its own heartbeats and records.

A bound is measured from the moment in which the last packet could pass, or the target's QEMU was stopped; the
machine's own slowness counts against us. The phase `device` lasts because the RAM that is left then, up to the
downtime limit, passes no faster than the bandwidth that was asked for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from crash.blows import processes
from e2e.controller import Controller
from e2e.direct import assert_nobody_listens, assert_refused, certify, over, patched
from e2e.moves import EAGER, Mover
from e2e.test_guard import SLOW, Silence, failed_because, first_beat_after, phase, until
from lab import faults
from lab.instance import Lab
from lab.network import Segment
from lab.vms import Disk

pytestmark = [pytest.mark.e2e, pytest.mark.measuring, pytest.mark.timeout(420)]

SILENT_BOUND = {"tls": 3.0, "tcp": 3.0, "qemu-tls": 3.0, "qemu-tcp": 10.5}  # seconds until the guest runs or writes
STOPPED_BOUND = 10.5  # the same with the target's QEMU alive and silent, in `device`
STOPPED_WRITE_BOUND = 3.5  # for writes that wait for it
HANDSHAKE_BOUND = {"qemu-tls": 3.5, "tls": 1.0, "tcp": 1.0}  # 1 s: no stall, on a machine that has other things to do
INCOMING = "crosscluster.migration.incoming"
HELD_BACK = 2.0  # seconds for which a reply is held back: time to stop the target's QEMU
WATCHED = 5.0  # seconds in which a silent handshake would show
MIB = 1 << 20
LEFT = {"bandwidth": "8 MiB/s", "downtime": "3 s"}  # up to 24 MiB are left for `device`
BUSY = "set=16 rate=4"  # MiB, MiB/s: so much of them has changed since it was sent first
UNDER_WAY = 2 * MIB  # more than all buffers between the two QEMUs still held before `device`


@contextlib.contextmanager
def silent_network(vm):
    """Nothing passes between the two nodes any more; gives the moment before."""
    with Silence(vm.source_host, vm.target_host) as silence:
        yield silence.since


@contextlib.contextmanager
def stopped_qemu(vm):
    """The target's QEMU stands still; gives the moment before."""
    pid = str(vm.target.qemu)
    since = time.monotonic()
    vm.target_host.run(["kill", "-STOP", pid])
    try:
        yield since
    finally:
        vm.target_host.run(["kill", "-CONT", pid], check=False)


@contextlib.contextmanager
def stopped_incoming(vm):
    """The target's worker stands still, and the kernel goes on taking connections for it; gives the moment before."""
    (pid,) = processes(vm.target_host, "worker.pyz incoming ")
    since = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    yield since  # who ends the move ends a hanging worker too: nobody lets it go on


def sent(host) -> int:
    """Bytes that have left a host into the migration segment."""
    lines = Path(f"/proc/{host.pid}/net/dev").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[9]) for line in lines if line.strip().startswith(Segment.MIGRATION.value + ":"))


def held_back(vm, command, seconds):
    """The next reply to a command of the tunnel is held back; gives a function that says whether it has come."""
    root, name = vm.target_host.root, f"{command}-{vm.vmid}"
    faults.set(root, "reply_delay", name=name, command=command, seconds=seconds, count=1, vmid=vm.vmid)
    pending = Path(root + faults.DIRECTORY, name + ".json")
    return lambda: not pending.exists()


def into_device(vm, transport):
    """Start a move and wait until its source is in `device` with much left to hand over; gives the play.

    QEMU is not asked: its monitor may be mute there. After `nbdstop` nothing but `migrate-continue` lets RAM flow.
    """
    asked = held_back(vm, "nbdstop", 0.5)
    play = vm.controller.start("migrate", extra=over(vm, transport, move_limits=LEFT))
    until(asked, "nbdstop", play)
    before = sent(vm.source_host)
    until(lambda: sent(vm.source_host) > before + UNDER_WAY, "the phase `device`", play)
    assert vm.guest.silent_for() > 0.3, "the guest still runs"
    return play


def assert_taken_back(vm, play, *words):
    """The play failed and said why, the source runs, and the target has nothing of it."""
    failed_because(vm, play.wait(), *words)
    assert vm.wait_final() == "rolled_back"
    vm.assert_nothing_on_target()
    assert_nobody_listens(vm)


def cases(stopped_bound, quick):
    """Every transport and fault with its bound; the quick ones are what all others have most in common with."""
    found = [(transport, silent_network, bound) for transport, bound in SILENT_BOUND.items()]
    found += [(transport, stopped_qemu, stopped_bound) for transport in ("tls", "tcp", "qemu-tls", "qemu-tcp")]
    return [
        pytest.param(*case, marks=[] if case[:2] in quick else [pytest.mark.slow], id=f"{case[0]}-{case[1].__name__}")
        for case in found
    ]


DEVICE = cases(STOPPED_BOUND, [("tls", silent_network), ("qemu-tls", stopped_qemu)])


@pytest.mark.parametrize(("transport", "fault", "bound"), DEVICE)
def test_fault_in_the_device_phase_frees_the_guest(mover, certificates, record_property, transport, fault, bound):
    vm = mover().create([Disk()], guest_words=BUSY)
    with patched(vm.target_host, transport):
        play = into_device(vm, transport)
        with fault(vm) as since:
            heard = first_beat_after(vm.guest, since)
        record_property("guest_runs_again_s", round(heard - since, 3))
        print(f"guest runs again {heard - since:.2f} s after the fault")
        assert heard - since <= bound
        assert_taken_back(vm, play, "the RAM migration ended as")


@pytest.mark.parametrize("transport", ["qemu-tls", "tls"])
def test_target_that_is_silent_in_the_handshake_of_the_ram(mover, certificates, record_property, transport):
    """Its QEMU stands still when the source's QEMU connects. Without QEMU's TLS nothing waits for it."""
    vm = mover().create([], guest_words=EAGER)
    asked = held_back(vm, "bwlimit", HELD_BACK)
    play = vm.controller.start("migrate", extra=over(vm, transport))
    until(lambda: phase(vm) == "precopy" and asked(), "the RAM", play)
    with stopped_qemu(vm) as since:
        until(lambda: time.monotonic() > since + HELD_BACK + WATCHED, "the end of the look", pause=0.2)
        status = vm.source.qmp("query-migrate")["status"]
        worst_ms = vm.guest.worst_gap_ms(since=since)
    record_property("heartbeat_gap_ms", round(worst_ms))
    print(f"longest time without a heartbeat {worst_ms:.0f} ms, the RAM's migration is {status}")
    assert worst_ms <= HANDSHAKE_BOUND[transport] * 1000
    if transport == "qemu-tls":
        assert worst_ms > 1000, "QEMU did not wait for the handshake: the test has shown nothing"
        assert status == "failed"
        assert_taken_back(vm, play, "ram", "RAM", "TLS")
    else:
        assert status == "active"
        play.wait().expect(0)
        assert (vm.source.qemu, vm.target.run_state) == (None, "running")
        assert vm.guest.violations() == []


class Turnstile:
    """Nobody reaches the monitor of the source's QEMU but one after the other, while the next place is ours.

    QMP serves one client, and the others in the order in which they came.
    """

    def __init__(self, vm) -> None:
        self._path = vm.source_host.path(f"/run/qemu-server/{vm.vmid}.qmp")
        self._inside = self._enter()
        self._inside.recv(1)  # its greeting
        self._next = self._enter()

    def _enter(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX)
        link.connect(self._path)
        return link

    def turn(self) -> None:
        """Let in who has come before our next place."""
        self._inside.close()
        self._inside, self._next = self._next, self._enter()
        self._inside.recv(1)

    def open(self) -> None:
        """Let everybody in."""
        self._next.close()
        self._inside.close()


@pytest.mark.slow
def test_target_that_is_silent_in_the_handshake_of_a_disk(mover, certificates, record_property):
    """Its QEMU has greeted as NBD server and stands still when the source's QEMU asks it for TLS.

    The mirror is in the journal before QEMU hears of it, and after the greeting was seen: in between the target is
    stopped, while the monitor is kept from the worker.
    """
    vm = mover().create([Disk()])
    asked = held_back(vm, "start", HELD_BACK)
    play = vm.controller.start("migrate", extra=over(vm, "qemu-tls"))
    until(asked, "the start of the target", play)
    turnstile = Turnstile(vm)

    def is_noted() -> bool:
        noted = any(record["kind"] == "mirror" for record in vm.records())
        if not noted:
            turnstile.turn()
        return noted

    until(is_noted, "the mirror", play, pause=0.02)
    with stopped_qemu(vm) as since:
        turnstile.open()
        until(lambda: vm.phase in ("rollback", "rolled_back"), "the end of the mirror", play, pause=0.02)
        first_beat_after(vm.guest, time.monotonic())
        worst_ms = vm.guest.worst_gap_ms(since=since - 1.0)  # QEMU may have asked just before
    record_property("heartbeat_gap_ms", round(worst_ms))
    print(f"longest time without a heartbeat {worst_ms:.0f} ms")
    assert worst_ms > 1000, "QEMU did not wait for the handshake: the test has shown nothing"
    assert worst_ms <= HANDSHAKE_BOUND["qemu-tls"] * 1000
    assert_taken_back(vm, play, "QEMU of the target did not answer the TLS handshake in time")


@pytest.mark.parametrize("transport", ["tls", pytest.param("tcp", marks=pytest.mark.slow)])
def test_target_worker_that_is_silent_is_refused_in_time(mover, certificates, record_property, transport):
    """It listens and stands still before the source comes: the guest sees nothing of it, and nothing is written."""
    vm = mover().create([Disk()])
    play = vm.controller.start("migrate", extra=over(vm, transport))
    until(lambda: play.has_done(INCOMING), "the listener", play)
    with stopped_incoming(vm) as since:
        run = play.wait()
        worst_ms = vm.guest.worst_gap_ms(since=since)
    record_property("heartbeat_gap_ms", round(worst_ms))
    print(f"longest time without a heartbeat {worst_ms:.0f} ms")
    assert worst_ms <= HANDSHAKE_BOUND[transport] * 1000
    assert_refused(vm, run)
    rejected = {each["transport"]: each for each in run.result()["facts"]["rejected"]}
    assert rejected[transport]["code"] == "LINK_LOST"
    assert "in time" in rejected[transport]["reason"]
    assert processes(vm.target_host, "worker.pyz incoming ") == []
    assert "reserving" not in [record["kind"] for record in vm.records()]


# -- QEMU 10: mirrors that make guest writes wait ------------------------------------------------------------------


@pytest.fixture(scope="module")
def modern():
    """A lab whose source QEMU can make guest writes wait for the target (>= 8.2); QEMU 7.2 never does."""
    with Lab.up({"alpha": {"alpha1": "trixie"}, "beta": {"beta1": "trixie"}}) as running:
        yield running


@pytest.fixture(scope="module")
def modern_controller(modern, tmp_path_factory):
    """Its controller; the nodes have certificates."""
    controller = Controller(modern, tmp_path_factory.mktemp("modern"))
    certify(controller)
    return controller


@pytest.fixture
def modern_mover(modern, modern_controller):
    made = []

    def make():
        made.append(Mover(modern, modern_controller))
        return made[-1]

    yield make
    for each in made:
        each.destroy()


WRITES = cases(STOPPED_WRITE_BOUND, [("tls", silent_network)])


@pytest.mark.mixed
@pytest.mark.parametrize(("transport", "fault", "bound"), WRITES)
def test_writes_that_wait_for_the_target_are_freed(modern_mover, record_property, transport, fault, bound):
    vm = modern_mover().create([Disk()], guest_words=EAGER)
    with patched(vm.target_host, transport):
        play = vm.controller.start("migrate", extra=over(vm, transport, move_limits=SLOW))
        before = until(lambda: phase(vm) == "precopy" and sent(vm.source_host), "the RAM", play)
        until(lambda: sent(vm.source_host) > before + UNDER_WAY, "the RAM", play)
        vm.guest.wait_acknowledged(3)
        with fault(vm) as since:
            vm.guest.wait_acknowledged(10)
            writes_ms = vm.guest.write_gap_ms(since=since - 1.0)
        record_property("write_gap_ms", round(writes_ms))
        print(f"longest time without a written record {writes_ms:.0f} ms")
        assert writes_ms > 1000, "writes did not wait for the target: the test has shown nothing"
        assert writes_ms <= bound * 1000
        assert_taken_back(vm, play, "scsi0", "ram", "RAM")
