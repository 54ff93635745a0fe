# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Where the listening end of a migration keeps its things, who holds it, and how all of it goes. An edge file.

``/run/crosscluster/<id>/``: ``incoming.lock`` held as long as it lives, ``incoming.order`` with the key until it has
been read, ``incoming.sock``, ``incoming.failed`` when it could not start. ``/var/lib/crosscluster/incoming/<id>.log``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from typing import Any, Dict, Mapping, Optional

from ..transport.firewall import Firewall
from ..transport.incoming_errors import IncomingFailed
from . import places

__all__ = ["Holder", "clean", "log_path", "read_once", "socket_path", "traces", "write_failure", "write_order"]

_LOG_AGE = 30 * 86400.0  # seconds
_TERM_TIMEOUT = 8.0  # seconds that one has to take everything away by itself after SIGTERM
_KILL_TIMEOUT = 5.0


def socket_path(migration_id: str) -> str:
    """The local socket."""
    return _path(migration_id, "incoming.sock")


def log_path(migration_id: str) -> str:
    """The log for people; those of long ago are removed in passing."""
    directory = os.path.join(places.LIBRARY, "incoming")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    old = time.time() - _LOG_AGE
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        with contextlib.suppress(OSError):
            if os.stat(path).st_mtime < old:
                os.unlink(path)
    return os.path.join(directory, f"{places.checked(migration_id)}.log")


def write_order(migration_id: str, order: Mapping[str, Any]) -> None:
    """What it is to do, with the key: for the one process that is about to start, which removes it."""
    os.makedirs(places.RUN, mode=0o700, exist_ok=True)
    os.makedirs(places.run_directory(migration_id), mode=0o700, exist_ok=True)
    _unlink(_path(migration_id, "incoming.failed"))
    _write(_path(migration_id, "incoming.order"), order)


def write_failure(migration_id: str, error: Mapping[str, Any]) -> None:
    """Why it did not start."""
    _write(_path(migration_id, "incoming.failed"), error)


def read_once(migration_id: str, name: str) -> Optional[Dict[str, Any]]:
    """The ``order`` or why it ``failed``, which is gone afterwards; None when there is none."""
    path = _path(migration_id, f"incoming.{name}")
    try:
        with open(path, encoding="utf-8") as stream:
            raw = json.load(stream)
    except (FileNotFoundError, ValueError):
        return None
    _unlink(path)
    return raw if isinstance(raw, dict) else None


class Holder:
    """The one process of this id: an flock that dies with it."""

    def __init__(self, migration_id: str) -> None:
        self._path = _path(migration_id, "incoming.lock")
        self._file = -1

    def take(self) -> bool:
        """Become it; False when another one lives."""
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), os.stat(self._path)):
                raise FileNotFoundError  # the one before took its file away while we waited: it locks nothing
        except OSError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"%d" % os.getpid())
        self._file = descriptor
        return True

    def end(self) -> bool:
        """End the one that lives, whatever it does; True when there was one. Afterwards we are it.

        Raises:
            IncomingFailed: it cannot be ended.
        """
        if self.take():
            return False
        for number, patience in ((signal.SIGTERM, _TERM_TIMEOUT), (signal.SIGKILL, _KILL_TIMEOUT)):
            pid = self._pid()
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            end = time.monotonic() + patience
            while time.monotonic() < end:
                if self.take():
                    return True
                time.sleep(0.05)
        raise IncomingFailed("a listening end of this migration cannot be ended", object=self._path)

    def release(self) -> None:
        """Let another one be it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _pid(self) -> int:
        """Of the one that lives: who holds the lock has written it."""
        try:
            with open(self._path, encoding="ascii") as stream:
                return int(stream.read() or 0)
        except (OSError, ValueError):
            return 0


def traces(migration_id: str, firewall: Firewall) -> bool:
    """Whether anything of one is on this node."""
    names = ("lock", "order", "sock", "failed")
    return firewall.exists(migration_id) or any(
        os.path.lexists(_path(migration_id, f"incoming.{name}")) for name in names
    )


def clean(migration_id: str, firewall: Firewall, keep_failure: bool = False) -> None:
    """Take everything away; for who holds the id.

    Args:
        migration_id: Whose.
        firewall: Has the rule.
        keep_failure: Somebody waits for the reason why it did not start.

    Raises:
        IncomingFailed: the rule stays.
    """
    for name in ("sock", "order", "lock", *(() if keep_failure else ("failed",))):
        _unlink(_path(migration_id, f"incoming.{name}"))
    with contextlib.suppress(OSError):  # what else is in it is not ours
        os.rmdir(places.run_directory(migration_id))
    if not firewall.remove(migration_id):
        raise IncomingFailed(
            f"the nft table crosscluster_{migration_id} cannot be removed",
            object=f"crosscluster_{migration_id}",
            remedy=f"nft delete table inet crosscluster_{migration_id}",
        )


def _path(migration_id: str, name: str) -> str:
    return os.path.join(places.run_directory(migration_id), name)


def _write(path: str, content: Mapping[str, Any]) -> None:
    """A whole file, only for root, or none."""
    descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(dict(content), stream)
    os.rename(path + ".new", path)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
