# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The root of every error of the collection.

Each room has one base class below :class:`CrossclusterError` and one subclass per stable code. A code is
upper snake case, unique over all rooms, and never renamed.
"""

from __future__ import annotations

import enum
from typing import Any, Dict, Mapping, Optional

__all__ = ["CrossclusterError", "Side", "sentence"]


class Side(enum.Enum):
    """Where the thing lies that an error is about."""

    CONTROLLER = "controller"
    SOURCE = "source"
    TARGET = "target"


class CrossclusterError(Exception):
    """Something failed: what, on which side, and what to do about it.

    Args:
        message: One sentence; never contains a secret or a payload of the peer that was not cut and cleaned.
        side: The side on which the object lies.
        object: The object the sentence is about: a VM, a volume, an option, a socket.
        remedy: What the operator can do; empty when there is nothing to do.
        facts: JSON-able details without secrets.
    """

    code = "INTERNAL"

    def __init__(
        self, message: str, *, side: Side, object: str, remedy: str = "", facts: Optional[Mapping[str, Any]] = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.side = side
        self.object = object
        self.remedy = remedy
        self.facts: Dict[str, Any] = dict(facts or {})

    def to_dict(self) -> Dict[str, Any]:
        """The error as it stands in a result: ``code, side, object, message, remedy, facts``."""
        return {
            "code": self.code,
            "side": self.side.value,
            "object": self.object,
            "message": self.message,
            "remedy": self.remedy,
            "facts": dict(self.facts),
        }

    def __str__(self) -> str:
        return sentence(self.message, f"{self.code}, {self.side.value}, {self.object}", self.remedy)


def sentence(message: str, code: str, remedy: str) -> str:
    """An error or a warning for people; without a code or a remedy, without them."""
    text = f"{message} [{code}]" if code else message
    return f"{text}. {remedy}" if remedy else text
