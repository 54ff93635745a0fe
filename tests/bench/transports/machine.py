# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two QEMUs with the same VM: RAM and a disk full of random bytes, no operating system, a guest that beats."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, List

from pairs.qemu import Qemu

from . import heart

__all__ = ["DATA", "MIB", "cpu_of", "fill", "guestless_cpu", "source", "target"]

MIB = 1024**2
DATA = "drive-scsi1"  # the disk with data; the machine of the pairs has a small one besides


def fill(path: Path, size_mib: int) -> None:
    """Bytes that neither zero pages nor compression make fewer."""
    with path.open("wb") as stream:
        for _piece in range(size_mib):
            stream.write(os.urandom(MIB))


def source(place: Path, ram: Path, disk: Path) -> Qemu:
    """It can be migrated any number of times: afterwards it goes on."""
    backend = f"memory-backend-file,mem-path={ram},share=on"
    return Qemu(place / "source", options=_options(place, ram.stat().st_size, backend, disk))


def target(place: Path, directory: Path, incoming: str, ram: Path, disk: Path) -> Qemu:
    """Its RAM is there before anything comes, or the page faults would be counted (direct-transports 8)."""
    empty = directory / "data.raw"
    with empty.open("wb") as stream:
        stream.truncate(disk.stat().st_size)
    options = _options(place, ram.stat().st_size, "memory-backend-ram", empty)
    return Qemu(directory / "target", incoming=incoming, options=options)


def _options(place: Path, size: int, backend: str, disk: Path) -> List[str]:
    drive = {"driver": "raw", "node-name": DATA, "file": {"driver": "file", "filename": str(disk)}}
    memory = ["-object", f"{backend},id=ram,size={size},prealloc=on", "-machine", "memory-backend=ram"]
    return [*memory, "-m", str(size // MIB), "-blockdev", json.dumps(drive), *heart.options(place)]


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and of the threads that it had: the kernel's clock of it, in nanoseconds."""
    return time.clock_gettime((~pid << 3) | 2)  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)


def guestless_cpu(qemu: Qemu, session: Any) -> float:
    """CPU seconds of a QEMU without those of its guest; its monitor is asked for the guest's threads."""
    threads = [each["thread-id"] for each in session.execute("query-cpus-fast")]
    stats = [Path(f"/proc/{qemu.pid}/task/{thread}/schedstat").read_text() for thread in threads]
    return cpu_of(qemu.pid) - sum(int(text.split()[0]) for text in stats) / 1e9
