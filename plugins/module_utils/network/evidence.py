# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What was seen: one :class:`Check` per look, and what probes bring home.

The numbers are those of safety 10. Everything here is plain data that crosses from node to controller as JSON and is
checked again when it arrives.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Tuple

from .errors import NetworkInvalid

__all__ = ["TITLES", "Answers", "Check", "Conversation", "Knock", "PacketSizes", "Quality", "State", "KnockOutcome"]

TITLES: Dict[int, str] = {
    1: "private network",
    2: "one own address",
    3: "direct way to the peer",
    4: "leads nowhere else",
    5: "addresses not translated",
    6: "identity of the peer",
    7: "one owner per address",
    8: "full packets pass",
    9: "filter lets only the peer in",
    10: "strangers stay out",
    11: "encryption of the link",
    12: "no guest on the wire",
    13: "round trip and loss",
    14: "age of the verdict",
}
_MAX_TEXT = 600


class State(enum.Enum):
    """How a check ended. ``NOTED`` tells something and counts for nothing."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not_run"
    NOTED = "noted"


@dataclass(frozen=True)
class Check:
    """One look at one node.

    Attributes:
        number: That of safety 10.
        node: The node that was looked at or from.
        finding: What was seen, one sentence.
        remedy: What can be done, empty when nothing is to be done.
        part: A word for the half of a check that is looked at in two ways.
    """

    number: int
    node: str
    state: State
    finding: str
    remedy: str = ""
    part: str = ""

    @property
    def title(self) -> str:
        """Words for the number."""
        return TITLES[self.number]

    def to_dict(self) -> Dict[str, Any]:
        """As it stands in results and reports."""
        return {
            "number": self.number,
            "title": self.title,
            "part": self.part,
            "node": self.node,
            "state": self.state.value,
            "finding": self.finding,
            "remedy": self.remedy,
        }

    @classmethod
    def parse(cls, raw: Any) -> "Check":
        """Back from a result; raises NETWORK_INVALID."""
        states = {state.value: state for state in State}
        good = (
            isinstance(raw, Mapping)
            and isinstance(raw.get("number"), int)
            and raw["number"] in TITLES
            and not isinstance(raw["number"], bool)
            and isinstance(raw.get("state"), str)
            and raw["state"] in states
            and all(isinstance(raw.get(key), str) for key in ("node", "part", "finding", "remedy"))
        )
        if not good:
            raise NetworkInvalid(f"no check: {raw!r:.80}", object="check")
        finding, remedy = (str(raw[key])[:_MAX_TEXT] for key in ("finding", "remedy"))
        node, part = (str(raw[key])[:_MAX_TEXT] for key in ("node", "part"))
        return cls(int(raw["number"]), node, states[str(raw["state"])], finding, remedy, part)


@dataclass(frozen=True)
class Conversation:
    """What the asking side of an exchange knows at its end; ends are (address, port) as text and number.

    Attributes:
        problem: Why there is no answer; empty when there is one.
        proven: Whether the other end has the key.
        local: Our own end, as our kernel says.
        remote: The end that we dialled.
        seen: Our end, as the peer saw it.
        answered: The end that answered, as the peer's kernel says.
    """

    problem: str
    proven: bool = False
    local: Tuple[str, int] = ("", 0)
    remote: Tuple[str, int] = ("", 0)
    seen: Tuple[str, int] = ("", 0)
    answered: Tuple[str, int] = ("", 0)


@dataclass(frozen=True)
class Answers:
    """Which hardware addresses answered for the peer's address, and which for our own (nobody should).

    ``problem`` says why it could not be asked.
    """

    problem: str
    peer: Tuple[str, ...] = ()
    own: Tuple[str, ...] = ()
    table: str = ""


@dataclass(frozen=True)
class PacketSizes:
    """The largest whole packet, in bytes with its IP header, that went to the peer and came back."""

    largest: int


@dataclass(frozen=True)
class Quality:
    """Small packets there and back."""

    sent: int
    returned: int
    median_us: int


class KnockOutcome(enum.Enum):
    """What became of a stranger's attempt to connect."""

    CONNECTED = "connected"
    REFUSED = "refused"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    NOT_SENT = "not_sent"


@dataclass(frozen=True)
class Knock:
    """An attempt by a host that is no peer."""

    stranger: str
    node: str
    outcome: KnockOutcome
