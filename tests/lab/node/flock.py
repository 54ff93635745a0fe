# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two flocks of a VM (pve-cli 4.1), with the waits and the words of the real ones."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import Iterator, Optional

from .base import Die, Node, complain

__all__ = ["CONFIG_LOCK_DIRECTORY", "config_lock", "config_lock_path", "file_lock", "held_descriptor", "migration_lock"]

CONFIG_LOCK_DIRECTORY = "/var/lock/qemu-server"
GUEST_LOCK_DIRECTORY = "/var/lock/pve-manager"
POLL_SECONDS = 0.01
_HELD: "dict[tuple[int, str], int]" = {}


def config_lock_path(vmid: int) -> str:
    """The file of the config flock, never deleted."""
    return f"{CONFIG_LOCK_DIRECTORY}/lock-{vmid}.conf"


@contextlib.contextmanager
def file_lock(node: Node, path: str, timeout: float = 10.0, code: int = 255) -> Iterator[None]:
    """Hold an exclusive flock on path; waits timeout seconds of the lab's clock. An interrupt in the wait is a Die."""
    real = node.path(path)
    if (os.getpid(), str(real)) in _HELD:  # the real one counts nested use within a process as well
        yield
        return
    real.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        _wait(node, descriptor, path, timeout, code)
        _HELD[(os.getpid(), str(real))] = descriptor
        yield
    finally:
        _HELD.pop((os.getpid(), str(real)), None)
        os.close(descriptor)


def held_descriptor(node: Node, path: str) -> Optional[int]:
    """The descriptor of a lock this process holds; a process that inherits it keeps the lock."""
    return _HELD.get((os.getpid(), str(node.path(path))))


def _wait(node: Node, descriptor: int, path: str, timeout: float, code: int) -> None:
    if _try(descriptor):
        return
    complain("trying to acquire lock...")
    deadline = time.monotonic() + node.seconds(timeout)
    while not _try(descriptor):
        if time.monotonic() >= deadline:
            raise Die(f"can't lock file '{path}' - got timeout", code)
        try:
            time.sleep(POLL_SECONDS)
        except Die as interrupt:  # a signal handler of tasks.py; the command loop lives on (pve-cli 3)
            raise Die(f"can't lock file '{path}' - {interrupt.text}", code) from None
    complain(" OK")


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def config_lock(
    node: Node, vmid: int, timeout: float = 10.0, code: int = 255
) -> contextlib.AbstractContextManager[None]:
    """The config flock: every config write, start, stop, resume, every command of the tunnel."""
    return file_lock(node, config_lock_path(vmid), timeout, code)


def migration_lock(node: Node, vmid: int, timeout: float = 10.0) -> contextlib.AbstractContextManager[None]:
    """The guest migration lock: migrations, snapshot rollback and removal."""
    return file_lock(node, f"{GUEST_LOCK_DIRECTORY}/pve-migrate-{vmid}", timeout)
