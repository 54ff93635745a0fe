# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of /etc/pve/user.cfg and of the tokens' secrets beside it."""

from __future__ import annotations

import fcntl
import uuid
from contextlib import contextmanager
from typing import Dict, Iterator, List, Sequence

from lab.node.base import Node
from lab.node.cluster import Cluster

from .access import UserConfig

__all__ = ["SECRETS", "Users"]

FILE = "/etc/pve/user.cfg"
SECRETS = "/etc/pve/priv/token.cfg"
LOCK = "/etc/pve/priv/.lab-user-lock"


class Users:
    """The lines of user.cfg: one per user, token, role, group, pool; the ACLs are written anew."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.lines: List[str] = []

    @classmethod
    @contextmanager
    def changing(cls, node: Node) -> Iterator["Users"]:
        """Read under a lock, write at the end."""
        users = cls(node)
        lock = node.path(LOCK)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with open(lock, "ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            path = node.path(FILE)
            users.lines = path.read_text("utf-8").splitlines() if path.exists() else []
            yield users
            Cluster(node).write_file(FILE, "".join(line + "\n" for line in users.lines))

    @property
    def config(self) -> UserConfig:
        """What the lines say now."""
        return UserConfig.parse("\n".join(self.lines))

    def put(self, kind: str, *fields: str) -> None:
        """Add or replace the line of one thing."""
        head, line = f"{kind}:{fields[0]}:", ":".join([kind, *fields])
        found = [at for at, old in enumerate(self.lines) if old.startswith(head)]
        if found:
            self.lines[found[0]] = line
        else:
            self.lines.append(line)

    def drop(self, kind: str, name: str) -> None:
        """Remove the line of one thing."""
        self.lines = [line for line in self.lines if not line.startswith(f"{kind}:{name}:")]

    def grant(self, path: str, who: Sequence[str], roles: Sequence[str], propagate: bool) -> None:
        """Give roles on a path."""
        acl = self.config.acl
        entries = acl.setdefault(path, {})
        for name in who:
            entries.setdefault(name, {}).update(dict.fromkeys(roles, propagate))
        self._write(acl)

    def revoke(self, path: str, who: Sequence[str], roles: Sequence[str]) -> None:
        """Take roles on a path."""
        acl = self.config.acl
        for name in who:
            for role in roles:
                acl.get(path, {}).get(name, {}).pop(role, None)
        self._write(acl)

    def forget(self, name: str) -> None:
        """Take every role of a user, a token or a group."""
        acl = self.config.acl
        for entries in acl.values():
            entries.pop(name, None)
        self._write(acl)

    def _write(self, acl: Dict[str, Dict[str, Dict[str, bool]]]) -> None:
        self.lines = [line for line in self.lines if not line.startswith("acl:")]
        for path in sorted(acl):
            for who in sorted(acl[path]):
                for role, propagate in sorted(acl[path][who].items()):
                    self.lines.append(f"acl:{int(propagate)}:{path}:{who}:{role}:")

    def new_secret(self, token: str) -> str:
        """Make a token's secret; whoever asks now sees it the only time."""
        secret = str(uuid.uuid4())
        self._secrets(token, [f"{token} {secret}"])
        return secret

    def forget_secret(self, token: str) -> None:
        """Remove a token's secret."""
        self._secrets(token, [])

    def _secrets(self, token: str, new: List[str]) -> None:
        path = self.node.path(SECRETS)
        old = path.read_text("utf-8").splitlines() if path.exists() else []
        kept = [line for line in old if line.split(" ")[0] != token]
        Cluster(self.node).write_file(SECRETS, "".join(line + "\n" for line in [*kept, *new]))
