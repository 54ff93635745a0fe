# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Which transport is used, and why the ones before it were not. Pure.

Only what the user listed is ever used, in the user's order: a fall-back that nobody asked for could be one
without encryption.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ..errors import Side
from .errors import NoTransportUsable

__all__ = ["NAMES", "Choice", "Rejection", "choose"]

NAMES = ("websocket", "tls", "tcp", "qemu-tls", "qemu-tcp")


@dataclass(frozen=True)
class Rejection:
    """Why one transport cannot be used."""

    code: str
    reason: str


@dataclass(frozen=True)
class Choice:
    """The transport to use and what was listed before it."""

    name: str
    rejected: Tuple[Tuple[str, Rejection], ...] = ()

    def rejected_as_list(self) -> List[Dict[str, str]]:
        """``transports_rejected`` of a result."""
        return _as_list(self.rejected)


# A name that no one answered for is one that this version cannot do.
ABSENT = Rejection("TRANSPORT_NOT_IMPLEMENTED", "this version of the collection does not carry it")


def choose(order: Sequence[str], available: Mapping[str, Optional[Rejection]]) -> Choice:
    """The first of ``order`` that can be used.

    Args:
        order: The user's list.
        available: Per transport None (usable) or why not; a missing name cannot be used.

    Raises:
        NoTransportUsable: NO_TRANSPORT_USABLE.
    """
    rejected: List[Tuple[str, Rejection]] = []
    for name in order:
        rejection = available.get(name, ABSENT)
        if rejection is None:
            return Choice(name, tuple(rejected))
        rejected.append((name, rejection))
    reasons = "; ".join(f"{name}: {rejection.reason}" for name, rejection in rejected) or "none is listed"
    raise NoTransportUsable(
        f"No transport can be used: {reasons}",
        side=Side.CONTROLLER,
        object="transports",
        remedy="Mend what is missing, or also list websocket, which needs only the API token of the target",
        facts={"rejected": _as_list(tuple(rejected))},
    )


def _as_list(rejected: Tuple[Tuple[str, Rejection], ...]) -> List[Dict[str, str]]:
    return [{"transport": name, "code": why.code, "reason": why.reason} for name, why in rejected]
