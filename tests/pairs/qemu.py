# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A QEMU without a guest that runs: 16 MiB of RAM, one small disk, a monitor that answers at once."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.monitor import Monitor

__all__ = ["DISK", "DRIVE", "HERE", "TIMEOUT", "Qemu", "until"]

HERE = ("qemu-system-x86_64",)
DRIVE, DISK = "drive-scsi0", 256 << 10
TIMEOUT = 60.0  # seconds; the machine may be busy with other tests


def until(found: Callable[[], Any]) -> Any:
    """The first true answer."""
    end = time.monotonic() + TIMEOUT
    while not (answer := found()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)
    return answer


class Qemu:
    """One process, below a directory of its own; a context manager.

    Args:
        directory: For its disk, its sockets and what it says.
        incoming: Where it waits for a migration; without, it is a source.
        program: What to run: ``HERE``, or that of another Debian.
        fill: The byte that its disk is full of.
        options: Its memory and how it begins.
    """

    def __init__(
        self,
        directory: Path,
        incoming: str = "",
        program: Sequence[str] = HERE,
        fill: bytes = b"\0",
        options: Sequence[str] = ("-S", "-m", "16"),
    ) -> None:
        directory.mkdir()
        self._incoming = incoming
        self.image = directory / "disk.raw"
        self.image.write_bytes(fill * DISK)
        self.log = directory / "log"
        path = str(directory / "qmp")
        drive = {"driver": "raw", "node-name": DRIVE, "file": {"driver": "file", "filename": str(self.image)}}
        with socket.socket(socket.AF_UNIX) as listener, self.log.open("wb") as log:
            listener.bind(path)  # ours, so that nobody needs to wait until it is there
            listener.listen(4)
            self._process = subprocess.Popen(
                [
                    *program, "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none",
                    "-machine", "pc-q35-7.2,accel=tcg", "-cpu", "qemu64", *options,
                    "-blockdev", json.dumps(drive),
                    "-chardev", f"socket,id=qmp,fd={listener.fileno()},server=on,wait=off",
                    "-mon", "chardev=qmp,mode=control",
                    *(["-incoming", incoming] if incoming else []),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[listener.fileno()],
            )  # fmt: skip
        self.monitor = Monitor(path)

    def __enter__(self) -> Qemu:
        self.state()  # it answers: whatever it listens on is there too
        if not self._incoming:
            # Without it a source that was refused may say "completed": its few bytes fitted into the sockets' buffers.
            self.run("migrate-set-capabilities", capabilities=[{"capability": "return-path", "state": True}])
        return self

    def __exit__(self, *_exception: Any) -> None:
        self._process.kill()
        self._process.wait()

    def run(self, command: str, **arguments: Any) -> Any:
        """One command; the words of its arguments have hyphens."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self.monitor.run(command, named, TIMEOUT)

    def session(self) -> Any:
        return self.monitor.within(TIMEOUT)

    def ended(self) -> bool:
        """Whether the process ends in time."""
        return until(lambda: self._process.poll() is not None)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def outcome(self) -> tuple[str, str]:
        """How a migration ended, and QEMU's words about it."""

        def look() -> Any:
            found = self.run("query-migrate")
            return found.get("status") in ("completed", "failed") and found

        found = until(look)
        return found["status"], found.get("error-desc", "")

    def state(self) -> str:
        return self.run("query-status")["status"]
