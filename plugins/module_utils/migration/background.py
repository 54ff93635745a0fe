# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""A process that outlives the SSH connection that started it, and its log (DESIGN 2). An edge file."""

from __future__ import annotations

import logging
import logging.handlers
import os
import subprocess
from typing import Sequence

__all__ = ["has_systemd", "log_to", "start_session", "start_unit"]


def has_systemd() -> bool:
    """Whether systemd runs here."""
    return os.path.isdir("/run/systemd/system")


def start_unit(unit: str, properties: Sequence[str], program: Sequence[str]) -> None:
    """Start ``program`` as a transient unit, hardened, with ``properties`` of its own."""
    hardened = ("NoNewPrivileges=yes", "LockPersonality=yes", "RestrictRealtime=yes")
    options = [f"--property={each}" for each in (*properties, *hardened)]
    subprocess.run(
        ["systemd-run", f"--unit={unit}", "--collect", *options, "--", *program],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=30,
    )


def start_session(program: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start ``program`` in a session of its own, with nothing of ours but a plain environment."""
    return subprocess.Popen(
        list(program),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"},
    )


def log_to(path: str, size: int) -> None:
    """Log into ``path``, for root only, in two files of at most ``size`` bytes."""
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=size, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(module)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    os.chmod(path, 0o600)
