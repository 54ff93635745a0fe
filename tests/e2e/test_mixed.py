# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes of different kinds: Debian 12 with QEMU 7.2, Debian 13 with QEMU 10.0, and Debian 13 with systemd as PID 1.

A VM goes wherever its machine type exists; where it does not, the move is refused before anything is written.
"""

from __future__ import annotations

import re
import time

import pytest

from e2e.controller import Controller
from e2e.direct import assert_nobody_listens, certify, over
from e2e.sides import difference, everything, journal_paths
from lab.instance import Lab
from lab.vms import Disk

pytestmark = [pytest.mark.e2e, pytest.mark.mixed, pytest.mark.timeout(420)]

NODES = {"alpha": {"alpha1": "self"}, "beta": {"beta1": "trixie", "beta2": "systemd"}}
NEW_MACHINE = "pc-q35-10.0"
SLOW = {"bandwidth": "3 MiB/s"}
PATIENCE = 90.0  # seconds for what the worker and systemd do by themselves


@pytest.fixture(scope="module")
def lab():
    """QEMU 7.2 in cluster alpha, QEMU 10.0 in cluster beta; beta2 runs systemd."""
    with Lab.up(NODES, target_root=True) as running:
        yield running


@pytest.fixture(scope="module")
def controller(lab, tmp_path_factory):
    return Controller(lab, tmp_path_factory.mktemp("controller"))


def qemu_version(host) -> tuple[int, int]:
    """Major and minor version of the QEMU installed on a host."""
    found = re.search(r"version (\d+)\.(\d+)", host.run(["qemu-system-x86_64", "--version"]).stdout)
    return int(found[1]), int(found[2])


def wait_for(what, condition, timeout: float = PATIENCE, pause: float = 0.1):
    """The first true value of a condition."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} has not happened"
        time.sleep(pause)
    return found


def in_phase(vm, phase: str) -> bool:
    return any(record.get("phase") == phase for record in vm.records())


def write_blocking(vm) -> bool:
    """Whether every mirror of the source QEMU is synchronous just now. A busy monitor says nothing."""
    try:
        jobs = [job for job in vm.source.qmp("query-block-jobs") if job["type"] == "mirror"]
    except OSError:
        return False
    return bool(jobs) and all(job.get("actively-synced") for job in jobs)


def test_vm_moves_to_a_newer_qemu(mover):
    """The source is too old to be switched to write-blocking; the rule for small rests does it (DESIGN 5.5)."""
    vm = mover(source="alpha1", target="beta1")
    assert qemu_version(vm.source_host) < (8, 2) < (10, 0) <= qemu_version(vm.target_host)
    vm.create([Disk("scsi0", "fast", 64, fill_mib=8), Disk("scsi1", "local", 64, "qcow2")])
    assert vm.migrate(move_node="beta1").expect(0).result()["phase"] == "completed"
    vm.assert_moved()
    vm.assert_guest_went_on()


def test_vm_moves_to_an_older_qemu_that_has_its_machine(mover):
    """QEMU 10.0 switches the mirrors to write-blocking before the RAM goes."""
    vm = mover(source="beta1", target="alpha1").create([Disk("scsi0", "fast", 64, fill_mib=8)])
    play = vm.controller.start("migrate", extra=vm.extra(move_to="alpha", move_limits=SLOW))
    try:
        wait_for("write-blocking", lambda: write_blocking(vm) or play.process.poll() is not None, pause=0.5)
        assert play.process.poll() is None, play.wait().output
    finally:
        run = play.wait()
    assert run.expect(0).result()["phase"] == "completed"
    vm.assert_moved()
    vm.assert_guest_went_on()


def test_machine_that_the_target_lacks_is_refused_before_the_first_write(mover):
    vm = mover(source="beta1", target="alpha1").create(machine=NEW_MACHINE)
    hosts = (vm.source_host, vm.target_host)
    before = [everything(host) for host in hosts]
    run = vm.migrate(move_to="alpha")
    assert run.status != 0
    assert [difference(old, everything(host)) for old, host in zip(before, hosts)] == [[], []]
    assert [code for code in run.codes if "MACHINE" in code], (run.codes, run.output)
    vm.assert_stayed()


class Unit:
    """A transient unit on a host with systemd."""

    def __init__(self, host, name: str) -> None:
        self.host, self.name = host, name

    def show(self, name: str) -> str:
        """A property as systemd tells it."""
        return self.host.run(["systemctl", "show", "--value", "--property", name, self.name]).stdout.strip()

    @property
    def pid(self) -> int:
        """Of its process, as the host counts; 0 while there is none."""
        return int(self.show("MainPID"))

    def assert_runs(self) -> None:
        """It is active, hardened, and its process is in its own cgroup."""
        assert self.show("ActiveState") == "active"
        assert self.show("NoNewPrivileges") == "yes"
        cgroup = self.host.run(["cat", f"/proc/{self.pid}/cgroup"]).stdout.rstrip()
        assert cgroup.endswith(f"system.slice/{self.name}")

    def wait_gone(self) -> None:
        wait_for("the end of the unit", lambda: self.show("LoadState") == "not-found")


def test_worker_is_a_unit_that_outlives_the_ssh_session_and_is_restarted(mover):
    vm = mover(source="beta2", target="alpha1").create([Disk("scsi0", "fast", 64, fill_mib=24)])
    host = vm.source_host
    known = set(journal_paths(host))
    play = vm.controller.start("migrate", extra=vm.extra(move_to="alpha", move_limits=SLOW))
    wait_for("mirroring", lambda: in_phase(vm, "mirroring") or play.process.poll() is not None)
    (journal,) = set(journal_paths(host)) - known
    unit = Unit(host, f"crosscluster-{journal.parent.name}.service")
    unit.assert_runs()
    assert unit.show("Restart") == "on-failure"
    first = unit.pid

    assert "root" in host.run(["loginctl", "list-sessions", "--no-legend"]).stdout
    host.run(["loginctl", "terminate-user", "root"])
    wait_for("the end of ssh", lambda: "root" not in host.run(["loginctl", "list-sessions", "--no-legend"]).stdout)
    assert unit.pid == first
    play.kill()

    host.run(["kill", "-KILL", str(first)])
    second = wait_for("the restart", lambda: unit.pid not in (0, first) and unit.pid)
    assert second != first
    assert vm.wait_final(PATIENCE) == "rolled_back"
    vm.assert_stayed()
    unit.wait_gone()

    # What the lost channel left on the target is removed as root there, and the move begins anew.
    vm.migrate(move_to="alpha").expect(0)
    vm.assert_moved()
    vm.assert_guest_went_on()


def test_listening_end_is_a_unit_that_is_gone_with_the_move(mover):
    vm = mover(source="alpha1", target="beta2").create([Disk("scsi0", "fast", 64, fill_mib=24)])
    certify(vm.controller)
    play = vm.controller.start("migrate", extra=over(vm, "tls", move_node="beta2", move_limits=SLOW))
    try:
        wait_for("mirroring", lambda: in_phase(vm, "mirroring") or play.process.poll() is not None)
        listed = ["systemctl", "list-units", "--plain", "--no-legend", "crosscluster-*"]
        (line,) = vm.target_host.run(listed).stdout.splitlines()
        unit = Unit(vm.target_host, line.split()[0])
        assert unit.name.startswith("crosscluster-incoming-")
        unit.assert_runs()
        assert unit.show("Restart") == "no"  # nothing of a stream survives it
    finally:
        run = play.wait()
    assert run.expect(0).result()["transport"] == "tls"
    unit.wait_gone()
    assert_nobody_listens(vm)
    vm.assert_moved()
    vm.assert_guest_went_on()
