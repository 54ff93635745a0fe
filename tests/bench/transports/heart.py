# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guest: it beats 250 times a second on a debug port of the machine, and halts in between. Who hears it knows when
it stood still.

It is an option ROM: the firmware runs it, needs no disk for it, and the guest's memory stays as it was filled.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import List

from bench.links import hear_all

__all__ = ["Heart", "options"]

PATIENCE = 60.0  # seconds for the firmware
_DIVISOR = 1193182 // 250  # of the clock of the machine's interval timer
_BLOCK = 512
_HANDLER = 40  # where it stands in the ROM


def _rom() -> bytes:
    """The program as it stands in memory; its bytes add up to zero."""
    program = bytes([
        0x55, 0xAA, 1,  # an option ROM of one block, run from here on
        0xFA,  # cli
        0x31, 0xC0, 0x8E, 0xD8,  # ds = 0: the table of interrupts
        0xC7, 0x06, 0x20, 0, _HANDLER, 0,  # interrupt 8, the timer: handler, ...
        0x8C, 0x0E, 0x22, 0,  # ... in this segment
        0xB0, 0x34, 0xE6, 0x43, 0xB0, _DIVISOR & 255, 0xE6, 0x40, 0xB0, _DIVISOR >> 8, 0xE6, 0x40,  # its rate
        0xE4, 0x21, 0x24, 0xFE, 0xE6, 0x21,  # let it through
    ])  # fmt: skip
    program = program.ljust(_HANDLER - 4, b"\x90") + bytes([0xFB, 0xF4, 0xEB, 0xFD])  # sti; hlt; again
    # push ax; one letter to the debug port; end of interrupt; pop ax; iret
    program += bytes([0x50, 0xB0, 0x2E, 0xE6, 0xE9, 0xB0, 0x20, 0xE6, 0x20, 0x58, 0xCF])
    program = program.ljust(_BLOCK - 1, b"\0")
    return program + bytes([-sum(program) & 255])


def options(directory: Path) -> List[str]:
    """Arguments of a QEMU whose guest beats into ``directory``'s :class:`Heart`."""
    chardev = f"socket,id=heart,path={directory / 'heart'}"
    return ["-option-rom", str(directory / "rom"), "-chardev", chardev, "-device", "isa-debugcon,chardev=heart"]


class Heart:
    """Hears the guest wherever it runs; a context manager."""

    def __init__(self, directory: Path) -> None:
        (directory / "rom").write_bytes(_rom())
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / "heart"))
        self._listener.listen(4)
        self._beats: List[float] = []

    def __enter__(self) -> Heart:
        hear_all(self._listener, self._hear)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._listener.close()

    def gap_ms(self, began: float, resumed: float) -> float:
        """The longest time without a beat from ``began`` to the first one after ``resumed`` (seconds since 1970)."""
        deadline = time.time() + PATIENCE
        while not self._beats or self._beats[-1] < resumed:
            if time.time() > deadline:
                raise RuntimeError("the guest does not beat")
            time.sleep(0.01)
        beats = [beat for beat in self._beats if beat >= began]
        del self._beats[:-1]
        return max((later - earlier) * 1000 for earlier, later in zip([began, *beats], beats))

    def _hear(self, link: socket.socket) -> None:
        with link:
            while link.recv(64):
                self._beats.append(time.time())
