# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a move costs the nodes while it runs: memory of its processes, and the monitor that others poll too."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from e2e.sides import process_ids
from lab.node import poller
from lab.node.base import Node
from lab.vms import Disk

pytestmark = [pytest.mark.e2e, pytest.mark.measuring, pytest.mark.timeout(300)]

SUPERVISOR_KIB = 40 * 1024
PUMP_KIB = 24 * 1024
LOOK = 0.1  # seconds
POLLER_PATIENCE_S = 3.0  # what Proxmox's own pollers wait for an answer (pve-cli 5)
DISKS = [Disk("scsi0", "fast", 64, "raw", fill_mib=40), Disk("scsi1", "local", 64, "qcow2", fill_mib=16)]


class Peaks:
    """The most memory that each process of a role has had; KiB, by (role, pid)."""

    def __init__(self, host) -> None:
        self.kib: dict[tuple[str, int], int] = {}
        self._host = host
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.wait(LOOK):
            for role in ("run", "pump"):
                for pid in process_ids(self._host, "worker.pyz", f"worker.pyz {role}"):
                    self._note(role, pid)

    def _note(self, role: str, pid: int) -> None:
        try:
            status = Path(self._host.path(f"/proc/{pid}/status")).read_text(encoding="ascii")
        except (FileNotFoundError, ProcessLookupError):
            return
        if "VmHWM:" in status:  # a zombie has none
            self.kib[role, pid] = int(status.split("VmHWM:")[1].split()[0])

    def of(self, role: str) -> list[int]:
        return sorted(kib for (each, _pid), kib in self.kib.items() if each == role)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_memory_is_bounded_and_nobody_waits_for_the_monitor(mover, record_property):
    """A guest that dirties nearly as fast as its RAM may move: the worker stands long before the switchover."""
    vm = mover().create(DISKS, guest_words="rate=12 set=32")
    with Peaks(vm.source_host) as peaks:
        run = vm.migrate(move_limits={"bandwidth": "24 MiB/s"}).expect(0)
    vm.assert_guest_went_on()
    polled = poller.read(Node(vm.source_host.root))[str(vm.vmid)]
    print(f"KiB: supervisor {peaks.of('run')}, pumps {peaks.of('pump')}; polled {polled}; {run.seconds:.0f} s")
    record_property("supervisor_kib", max(peaks.of("run")))
    record_property("pump_kib", max(peaks.of("pump")))
    record_property("poller_longest_s", polled["longest"])
    assert len(peaks.of("pump")) == len(DISKS) + 1
    assert polled["asked"] >= 3
    assert polled["timed_out"] == 0
    assert polled["longest"] < POLLER_PATIENCE_S
    assert max(peaks.of("run")) <= SUPERVISOR_KIB
    assert max(peaks.of("pump")) <= PUMP_KIB
