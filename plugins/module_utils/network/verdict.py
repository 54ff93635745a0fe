# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What the checks of a pair of nodes come to (safety 10), for how long, and on whose word.

The rule: a class is a conclusion from evidence that is there. What is missing counts against it, what failed ends it,
and nothing ever raises it but a check that passed. Does not know how a check was made.
"""

from __future__ import annotations

import datetime
import enum
import ipaddress
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from .errors import NetworkInvalid
from .evidence import Check, State

__all__ = ["LIFETIME", "REQUIRED", "Statement", "Trust", "Verdict", "judge"]

LIFETIME = 15 * 60  # seconds; issue 5: the verdict is at most this old when clear text is to be sent
CLOCK_SKEW = 120  # seconds by which the controller's clock may be ahead of a node's
# Number and part of what must have passed on both nodes.
REQUIRED = (
    (1, ""), (2, ""), (2, "equal"), (3, ""), (4, ""), (5, ""), (6, ""), (7, ""), (8, ""), (8, "equal"), (9, ""),
    (10, ""), (10, "neighbours"), (12, ""),
)  # fmt: skip
# Must have been looked at and must not have failed; whether it passed or was noted makes the difference of a class.
ENCRYPTION = (11, "")
_MAX_NAME = 200


class Trust(enum.Enum):
    """The classes, the best first."""

    ENCRYPTED = "encrypted"
    PRIVATE_PROVEN = "private-proven"
    PRIVATE_CLAIMED = "private-claimed"
    UNKNOWN = "unknown"

    @property
    def clear_text_allowed(self) -> bool:
        """Whether a transport without encryption may be used at all; it also wants a statement and an age."""
        return self in (Trust.ENCRYPTED, Trust.PRIVATE_PROVEN)


@dataclass(frozen=True)
class Statement:
    """Who says that the network is trusted, and the last day on which that holds (UTC)."""

    accepted_by: str
    until: datetime.date

    @classmethod
    def parse(cls, raw: Any) -> "Statement":
        """``{accepted_by, until}``; raises NETWORK_INVALID."""
        who = raw.get("accepted_by") if isinstance(raw, Mapping) else None
        until = raw.get("until") if isinstance(raw, Mapping) else None
        if not isinstance(who, str) or not who.strip() or len(who) > _MAX_NAME or set(raw) - {"accepted_by", "until"}:
            raise _no_statement()
        try:
            # YAML makes a date of 2026-12-31 by itself.
            day = datetime.date.fromisoformat(str(until))
        except ValueError:
            raise _no_statement() from None
        return cls(who.strip(), day)

    def holds_at(self, now: float) -> bool:
        """Whether the day has not passed."""
        return datetime.datetime.fromtimestamp(now, datetime.timezone.utc).date() <= self.until


@dataclass(frozen=True)
class Verdict:
    """The class of the network between two nodes, as it was at ``checked_at`` (seconds since 1970)."""

    source: str
    target: str
    network: str
    trust: Trust
    checks: Tuple[Check, ...]
    checked_at: float
    statement: Optional[Statement] = None

    def trust_at(self, now: float) -> Trust:
        """Check 14: what the verdict is worth now. Too old, or from the future, it is worth nothing."""
        age = now - self.checked_at
        return self.trust if -CLOCK_SKEW <= age <= LIFETIME else Trust.UNKNOWN

    def address_of(self, node: str) -> Optional[Union[ipaddress.IPv4Address, ipaddress.IPv6Address]]:
        """The one address that check 2 found ``node`` to have in the network; None where that did not pass."""
        for check in self.checks:
            if (check.number, check.part, check.node, check.state) == (2, "", node, State.PASSED):
                try:
                    return ipaddress.ip_interface(check.finding.partition(" ")[0]).ip
                except ValueError:
                    return None
        return None

    def to_dict(self) -> Dict[str, Any]:
        """As it stands in results, reports and the journal."""
        return {
            "source": self.source,
            "target": self.target,
            "network": self.network,
            "verdict": self.trust.value,
            "clear_text_allowed": self.trust.clear_text_allowed,
            "checked_at": self.checked_at,
            "valid_until": self.checked_at + LIFETIME,
            "statement": None
            if self.statement is None
            else {"accepted_by": self.statement.accepted_by, "until": self.statement.until.isoformat()},
            "checks": [check.to_dict() for check in self.checks],
        }

    @classmethod
    def parse(cls, raw: Any) -> "Verdict":
        """Back from a result. The class is concluded anew from the evidence and must be the one that is written.

        Raises:
            NetworkInvalid: NETWORK_INVALID.
        """
        if not isinstance(raw, Mapping) or not isinstance(raw.get("checks"), list) or len(raw["checks"]) > 1000:
            raise _no_verdict()
        at = raw.get("checked_at")
        names = [raw.get(key) for key in ("source", "target", "network")]
        if isinstance(at, bool) or not isinstance(at, (int, float)) or not 0 <= at < 1 << 40:
            raise _no_verdict()
        if not all(isinstance(name, str) and 0 < len(name) <= _MAX_NAME for name in names):
            raise _no_verdict()
        found = judge(
            str(names[0]),
            str(names[1]),
            str(names[2]),
            [Check.parse(check) for check in raw["checks"]],
            now=float(at),
            statement=Statement.parse(raw["statement"]) if raw.get("statement") else None,
        )
        if found.trust.value != raw.get("verdict"):
            raise _no_verdict()
        return found


def judge(
    source: str,
    target: str,
    network: str,
    checks: Sequence[Check],
    *,
    now: float,
    statement: Optional[Statement] = None,
) -> Verdict:
    """The class of the network between ``source`` and ``target``.

    Anything that counts and failed, on either node: ``unknown``. Anything required that is not there or could not be
    run: ``private-claimed`` on somebody's word, else ``unknown``. All required passed on both: ``private-proven``, and
    ``encrypted`` if both ends encrypt. Round trip and loss (13) are told and do not count.
    """
    of_pair = sorted((check for check in checks if check.node in (source, target)), key=_place)
    missing = [
        Check(number, node, State.NOT_RUN, "there is no evidence", part=part)
        for number, part in (*REQUIRED, ENCRYPTION)
        for node in dict.fromkeys((source, target))
        if not _states(of_pair, (number, part), node)
    ]
    complete = tuple(sorted([*of_pair, *missing], key=_place))
    return Verdict(
        source, target, network, _conclude(complete, source, target, now, statement), complete, now, statement
    )


def _conclude(checks: Sequence[Check], source: str, target: str, now: float, statement: Optional[Statement]) -> Trust:
    counted = [check for check in checks if (check.number, check.part) in (*REQUIRED, ENCRYPTION)]
    if source == target or any(check.state is State.FAILED for check in counted):
        return Trust.UNKNOWN
    ends = [set(_states(checks, ENCRYPTION, node)) for node in (source, target)]
    seen = all(end and end <= {State.PASSED, State.NOTED} for end in ends)
    passed = all(check.state is State.PASSED for check in counted if (check.number, check.part) != ENCRYPTION)
    if not seen or not passed:
        return Trust.PRIVATE_CLAIMED if statement is not None and statement.holds_at(now) else Trust.UNKNOWN
    return Trust.ENCRYPTED if all(end == {State.PASSED} for end in ends) else Trust.PRIVATE_PROVEN


def _states(checks: Sequence[Check], which: Tuple[int, str], node: str) -> List[State]:
    return [check.state for check in checks if (check.number, check.part) == which and check.node == node]


def _place(check: Check) -> Tuple[int, str, str]:
    return check.number, check.node, check.part


def _no_statement() -> NetworkInvalid:
    return NetworkInvalid(
        "the statement does not say who accepts the network and until when",
        object="statement",
        remedy="Write it as {accepted_by: a name, until: 2026-12-31}.",
    )


def _no_verdict() -> NetworkInvalid:
    return NetworkInvalid(
        "this is no verdict, or its evidence says something else", object="verdict", remedy="Run trusted_network again."
    )
