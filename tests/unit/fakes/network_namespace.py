# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network namespace with the addresses of two nodes and a stranger on its loopback, for the calling thread."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess

__all__ = ["OWN", "PEER", "STRANGER", "network"]

OWN, PEER, STRANGER = "10.77.0.21", "10.77.0.11", "10.77.0.66"
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def network():
    """What is started meanwhile is in it; OSError where none can be made."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if _LIBC.unshare(_CLONE_NEWNET):
        os.close(before)
        raise OSError(ctypes.get_errno(), "no network namespace")
    try:
        commands = ["link set lo up", *(f"address add {address}/32 dev lo" for address in (OWN, PEER, STRANGER))]
        for words in [
            *commands,
            "address add fd00:77::21/128 dev lo nodad",
            "address add fd00:77::11/128 dev lo nodad",
        ]:
            subprocess.run(["ip", *words.split()], check=True)
        yield
    finally:
        _LIBC.setns(before, 0)
        os.close(before)
