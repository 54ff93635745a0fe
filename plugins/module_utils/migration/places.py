# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Where the worker keeps its things on a node (DESIGN 9), and who is at work there. An edge file."""

from __future__ import annotations

import fcntl
import os
import re
from typing import List, Optional

from ..errors import Side
from . import journal
from .errors import JournalUnreadable, NotFound
from .history import Facts, fold

__all__ = [
    "LIBRARY",
    "RUN",
    "VmLock",
    "control_socket",
    "journal_path",
    "log_path",
    "migration_directory",
    "migrations",
    "newest",
    "of_vm",
    "read_facts",
    "run_directory",
    "secrets_path",
]

LIBRARY = "/var/lib/crosscluster"
RUN = "/run/crosscluster"
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


def checked(migration_id: str) -> str:
    """The id, if it is one: it becomes part of paths."""
    if not isinstance(migration_id, str) or not _ID.fullmatch(migration_id):
        raise NotFound(
            f"{str(migration_id)[:40]!r} is no migration id",
            side=Side.SOURCE,
            object="migration_id",
            remedy="32 hex digits",
        )
    return migration_id


def migration_directory(migration_id: str) -> str:
    """Durable: journal and log."""
    return os.path.join(LIBRARY, "migrations", checked(migration_id))


def journal_path(migration_id: str) -> str:
    """The journal."""
    return os.path.join(migration_directory(migration_id), "journal")


def log_path(migration_id: str) -> str:
    """The log for people."""
    return os.path.join(migration_directory(migration_id), "worker.log")


def run_directory(migration_id: str) -> str:
    """On tmpfs: control socket, secrets, stream sockets."""
    return os.path.join(RUN, checked(migration_id))


def control_socket(migration_id: str) -> str:
    """The worker's control socket."""
    return os.path.join(run_directory(migration_id), "control.sock")


def secrets_path(migration_id: str) -> str:
    """The secrets, 0600, until the end."""
    return os.path.join(run_directory(migration_id), "secrets")


def migrations() -> List[str]:
    """Ids of all migrations whose journal is on this node."""
    try:
        names = os.listdir(os.path.join(LIBRARY, "migrations"))
    except FileNotFoundError:
        return []
    return sorted(name for name in names if _ID.fullmatch(name))


def read_facts(migration_id: str) -> Facts:
    """The facts of a migration, from its journal.

    Raises:
        NotFound: there is no such journal.
        JournalUnreadable: it is damaged.
    """
    records = journal.read(journal_path(migration_id))
    if not records:
        raise NotFound(f"no migration {migration_id} on this node", side=Side.SOURCE, object=migration_id)
    return fold(records)


def newest(vmid: Optional[int] = None, uuid: Optional[str] = None) -> Optional[Facts]:
    """The latest migration of a VM on this node, by uuid or VMID; None without one."""
    found = of_vm(vmid, uuid)
    return found[-1] if found else None


def of_vm(vmid: Optional[int] = None, uuid: Optional[str] = None) -> List[Facts]:
    """The migrations of a VM on this node, by uuid or VMID, oldest first.

    A damaged journal of another VM does not stand in the way; one that cannot be told apart does.
    """
    found: List[Facts] = []
    for migration_id in migrations():
        try:
            facts = read_facts(migration_id)
        except NotFound:
            continue  # the directory was made, the first record was not: nothing was done
        except JournalUnreadable as error:
            if _is_of_another(migration_id, vmid):
                continue
            error.object = journal_path(migration_id)
            raise
        if (uuid is None or facts.uuid == uuid) and (vmid is None or facts.vmid == vmid):
            found.append(facts)
    return sorted(found, key=lambda facts: facts.opened_at)


def _is_of_another(migration_id: str, vmid: Optional[int]) -> bool:
    """Whether the first line of a damaged journal still tells that it is of another VM."""
    with open(journal_path(migration_id), "rb") as stream:
        first = stream.readline()
    try:
        facts = fold(journal.decode(first)[0])
    except JournalUnreadable:
        return False
    return vmid is not None and facts.spec is not None and facts.vmid != vmid


class VmLock:
    """One worker per VM: an flock that the supervising process holds for its whole life."""

    def __init__(self, vmid: int) -> None:
        self._path = os.path.join(RUN, f"vm-{vmid}.lock")
        self._file: Optional[int] = None

    def take(self, migration_id: str = "") -> bool:
        """Take it for a migration without waiting; False when another worker has it."""
        os.makedirs(RUN, mode=0o700, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, migration_id.encode("ascii"))
        self._file = descriptor
        return True

    def holder(self) -> str:
        """The migration whose worker has taken it last."""
        with open(self._path, encoding="ascii") as stream:
            return stream.read()

    def release(self) -> None:
        """Give it back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
