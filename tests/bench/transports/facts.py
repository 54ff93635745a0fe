# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured, where and when: belongs to the figures."""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import re
import ssl
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import List

from pairs.qemu import HERE

from bench.figure import Figure

__all__ = ["figures"]


def figures(options: argparse.Namespace) -> List[Figure]:
    return [
        Figure("machine_date", datetime.now(timezone.utc).strftime("%Y-%m-%d"), ""),
        Figure("machine_cpus", os.cpu_count() or 0, "CPUs"),
        Figure("machine_cpu", _found(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()), ""),
        Figure("machine_load", round(os.getloadavg()[0], 2), "processes, when it began"),
        Figure("machine_kernel", _found(r"^([\d.]+)", platform.release()), ""),
        Figure("machine_qemu", _found(r"version (\S+)", _output([*HERE, "--version"])), ""),
        Figure("machine_python", platform.python_version(), ""),
        Figure("machine_openssl", _found(r"OpenSSL (\S+)", ssl.OPENSSL_VERSION), ""),
        Figure("machine_gnutls", _gnutls(), ""),
        Figure("machine_repetitions", options.repetitions, ""),
        Figure("machine_ram", options.size, "MiB"),
        Figure("machine_disk", options.disk, "MiB"),
    ]


def _gnutls() -> str:
    """The version of what QEMU's own TLS is done with."""
    version = ctypes.CDLL("libgnutls.so.30").gnutls_check_version
    version.restype = ctypes.c_char_p
    return str(version(None).decode())


def _output(argv: List[str]) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else "unknown"
