# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""KVM where a guest really runs under it, software emulation otherwise.

A device file proves nothing, nor does a virtual CPU that can be made (lab.md 6): both are there on machines on which no
ordinary guest gets as far as its first character. So the lab's own guest is booted once; a heartbeat is the proof.
"""

from __future__ import annotations

import functools
import os
import subprocess
import time
from typing import TYPE_CHECKING

from lab.guest.build import build

if TYPE_CHECKING:
    from .image import Machinery

__all__ = ["PROBE_SECONDS", "arguments", "has_kvm"]

PROBE_SECONDS = 15.0  # a guest under a KVM that is one beats after one or two
TRANSLATED_MIB = 512  # of translated code: with less, what one program needs throws away what the other one needs


def arguments(shared: Machinery) -> list[str]:
    """QEMU's arguments for the accelerator and the processor."""
    if has_kvm(shared):
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi,tb-size=%d" % TRANSLATED_MIB, "-cpu", "max"]


@functools.cache
def has_kvm(shared: Machinery) -> bool:
    """Whether a guest boots under KVM here."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    from .image import program

    files = build()
    argv = [
        *program(shared.tree, "qemu-system-x86_64"), "-L", str(shared.tree / "usr/share/qemu"),
        "-L", str(shared.tree / "usr/share/seabios"), "-machine", "q35", "-accel", "kvm", "-cpu", "host",
        "-m", "128", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
        "-kernel", str(files["directory"] / files["kernel"]), "-initrd", str(files["directory"] / files["initrd"]),
        "-append", files["append"],
    ]  # fmt: skip
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/"
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    heard, deadline = b"", time.monotonic() + PROBE_SECONDS
    try:
        while b"HB " not in heard and time.monotonic() < deadline and process.poll() is None:
            heard += process.stdout.read() or b""
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return b"HB " in heard
