# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two QEMUs with the same VM: RAM full of random bytes, no operating system, halted after its firmware."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import List

from pairs.qemu import Qemu

__all__ = ["MIB", "cpu_of", "fill", "guestless_cpu", "source", "target"]

MIB = 1024**2


def fill(path: Path, size_mib: int) -> None:
    """RAM that neither zero pages nor compression make smaller."""
    with path.open("wb") as stream:
        for _piece in range(size_mib):
            stream.write(os.urandom(MIB))


def source(directory: Path, ram: Path) -> Qemu:
    """It can be migrated any number of times: afterwards it goes on."""
    size = ram.stat().st_size
    return Qemu(directory, options=_options(size, f"memory-backend-file,mem-path={ram},share=on"))


def target(directory: Path, incoming: str, ram: Path) -> Qemu:
    """Its RAM is there before anything comes, or the page faults would be counted (direct-transports 8)."""
    return Qemu(directory, incoming=incoming, options=_options(ram.stat().st_size, "memory-backend-ram"))


def _options(size: int, backend: str) -> List[str]:
    memory = ["-object", f"{backend},id=ram,size={size},prealloc=on", "-machine", "memory-backend=ram"]
    return [*memory, "-m", str(size // MIB)]


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and of the threads that it had: the kernel's clock of it, in nanoseconds."""
    return time.clock_gettime((~pid << 3) | 2)  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)


def guestless_cpu(qemu: Qemu) -> float:
    """CPU seconds of a QEMU without those of its guest."""
    threads = [each["thread-id"] for each in qemu.run("query-cpus-fast")]
    stats = [Path(f"/proc/{qemu.pid}/task/{thread}/schedstat").read_text() for thread in threads]
    return cpu_of(qemu.pid) - sum(int(text.split()[0]) for text in stats) / 1e9
