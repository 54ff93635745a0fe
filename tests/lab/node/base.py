# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node as its own processes see it: paths, name, clock scale, and the errors that end an action."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Callable, Mapping, Optional, Sequence

__all__ = ["Denied", "Die", "May", "Node", "ParamError", "ROOT_USER", "complain", "may_all"]

ROOT_USER = "root@pam"

May = Callable[[str, Sequence[str], bool], bool]
"""Answers "does the caller hold these privileges on that path" (all of them, or any when the flag is set)."""


class Die(Exception):
    """A refused or failed action.

    text is what Proxmox prints, without the trailing newline; code is the exit status of the command line, which is
    whatever errno was set when the real one died (pve-cli 1.5): 255 unless a capture says otherwise.
    """

    def __init__(self, text: str, code: int = 255) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class ParamError(Die):
    """Parameters refused by a schema: HTTP 400 with one text per key."""

    def __init__(self, errors: Mapping[str, str], code: int = 255) -> None:
        self.errors = dict(errors)
        lines = "".join(f"{key}: {text}\n" for key, text in self.errors.items())
        super().__init__("400 Parameter verification failed.\n" + lines[:-1], code)

    @property
    def message(self) -> str:
        """The message beside errors in an HTTP answer."""
        return "Parameter verification failed."


class Denied(Die):
    """A missing privilege: HTTP 403."""

    def __init__(self, path: str, privileges: Sequence[str], any_of: bool = False) -> None:
        wanted = ("|" if any_of else ", ").join(privileges)
        self.reason = f"Permission check failed ({path}, {wanted})"
        super().__init__("403 " + self.reason)


def may_all(may: Optional[May], path: str, privileges: Sequence[str], any_of: bool = False) -> None:
    """Raise Denied unless the caller may; None is root@pam on the node itself.

    Of several privileges that all are needed the first missing one is named.
    """
    if may is None:
        return
    for wanted in [list(privileges)] if any_of else [[privilege] for privilege in privileges]:
        if not may(path, wanted, any_of):
            raise Denied(path, wanted, any_of)


def complain(text: str) -> None:
    """One line on stderr, unbuffered (a task's stderr is its log)."""
    os.write(2, (text + "\n").encode("utf-8", "surrogateescape"))


class Node:
    """One node of a cluster, below an optional root prefix (LAB_ROOT) for work outside a lab host."""

    def __init__(self, root: Optional[str] = None, name: Optional[str] = None) -> None:
        self.root = (os.environ.get("LAB_ROOT", "") if root is None else root).rstrip("/")
        self.name = name or self._own_name()
        self.time_scale = float(os.environ.get("LAB_TIME_SCALE", "1") or "1")

    def path(self, absolute: str) -> Path:
        """The real place of a path as the node knows it."""
        return Path(self.root + absolute)

    def seconds(self, real: float) -> float:
        """A wait of the real thing on the lab's clock."""
        return real * self.time_scale

    def _own_name(self) -> str:
        try:
            return os.path.basename(os.readlink(self.root + "/etc/pve/local").rstrip("/"))
        except OSError:
            return os.environ.get("LAB_NODE") or socket.gethostname().split(".")[0]
