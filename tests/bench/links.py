# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever connects to a socket of a benchmark is heard, each in a thread of its own."""

from __future__ import annotations

import socket
import threading
from typing import Callable

__all__ = ["hear_all"]


def hear_all(listener: socket.socket, hear: Callable[[socket.socket], None]) -> None:
    """Returns at once; ends with the listener."""
    threading.Thread(target=_accept, args=(listener, hear), daemon=True).start()


def _accept(listener: socket.socket, hear: Callable[[socket.socket], None]) -> None:
    while True:
        try:
            link = listener.accept()[0]
        except OSError:
            return
        threading.Thread(target=hear, args=(link,), daemon=True).start()
