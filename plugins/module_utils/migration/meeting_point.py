# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Where the target listens, or will (``qemu-tcp``), and which transports that makes possible. Pure.

The controller starts the incoming worker before the migration begins and hands this over (direct-transports 5); the
key for ``tcp`` travels beside it as a secret.
"""

from __future__ import annotations

import ipaddress
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from ..network.addresses import is_within, parse_network
from ..network.evidence import State
from ..network.verdict import Statement, Verdict
from ..transport.handshake import is_migration_id
from ..transport.policy import Rejection
from ..transport.tls import is_node_name
from .errors import SpecInvalid
from .incoming_settings import PKI, PLANE_OF, is_domain

__all__ = ["DIRECT", "MeetingPoint", "available"]

DIRECT = tuple(PLANE_OF)  # transports between two workers
_PLANES = tuple(dict.fromkeys(PLANE_OF.values()))  # what may be between them
_NOT_STARTED = Rejection(
    "INCOMING_ABSENT", "no incoming worker was started on the target node, which needs target_root: true"
)


@dataclass(frozen=True)
class MeetingPoint:
    """What the option ``incoming`` says; empty when nothing listens.

    Attributes:
        migration_id: For which migration the target listens.
        address, port: Where.
        peer_name, own_name: Names in the certificates of the target node and of this one.
        planes: What it accepts between the two workers, ``tls`` or ``tcp`` or both.
        own_address: Address of the source node that it expects.
        domain: Trust domain, a directory below ``incoming_settings.PKI``.
        rejected: Why transports cannot be used, as far as the controller knows.
        limits: Timers of the streams in seconds (``transport.direct_guard``).
        network: The verdict of the role ``trusted_network`` on the network between the two nodes, for clear text.
        clear_text: Who accepts that clear text is readable for whoever is on that network, and until when.
    """

    migration_id: str = ""
    address: str = ""
    port: int = 0
    peer_name: str = ""
    own_name: str = ""
    planes: Tuple[str, ...] = ()
    own_address: str = ""
    domain: str = ""
    rejected: Mapping[str, Rejection] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    clear_text: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: Any, clear_text: Any = None) -> MeetingPoint:
        """From the options ``incoming`` and ``clear_text``.

        Raises:
            SpecInvalid: names the option.
            NetworkInvalid: NETWORK_INVALID, for the statement or the verdict.
        """
        raw = {key: value for key, value in (raw or {}).items() if value not in (None, "")}
        point = cls(
            migration_id=str(raw.get("migration_id", "")),
            address=_address("incoming.address", raw.get("address")),
            port=raw.get("port", 0),
            peer_name=str(raw.get("peer_name", "")),
            own_name=str(raw.get("own_name", "")),
            planes=tuple(raw.get("planes") or ()),
            own_address=_address("incoming.own_address", raw.get("own_address")),
            domain=str(raw.get("domain", "")),
            rejected=_rejections(raw.get("rejected") or {}),
            limits=_limits(raw.get("limits") or {}),
            network=Verdict.parse(raw["network"]).to_dict() if raw.get("network") else {},
            clear_text=_statement(clear_text or raw.get("clear_text")),
        )
        point._check()
        return point

    def _check(self) -> None:
        if self.planes and not is_migration_id(self.migration_id):
            raise SpecInvalid("incoming.migration_id", self.migration_id, "32 hexadecimal digits")
        if self.planes and not self.address:
            raise SpecInvalid("incoming.address", self.address, "the address at which the target listens")
        if isinstance(self.port, bool) or not isinstance(self.port, int) or not bool(self.planes) <= self.port < 65536:
            raise SpecInvalid("incoming.port", self.port, "a port from 1 to 65535")
        if set(self.planes) - set(_PLANES):
            raise SpecInvalid("incoming.planes", list(self.planes), f"a list out of {', '.join(_PLANES)}")
        for option, name in (("peer_name", self.peer_name), ("own_name", self.own_name)):
            if "tls" in self.planes and not is_node_name(name):
                raise SpecInvalid(f"incoming.{option}", name, "the name in the certificate of a node")
        if "tls" in self.planes and not is_domain(self.domain):
            raise SpecInvalid("incoming.domain", self.domain, "the name of a trust domain")

    @property
    def credentials(self) -> str:
        """Directory of this node's certificates."""
        return f"{PKI}/{self.domain}"

    def to_dict(self) -> Dict[str, Any]:
        """JSON form; :meth:`parse` reads it again."""
        return dict(asdict(self), planes=list(self.planes), rejected={n: asdict(r) for n, r in self.rejected.items()})


def _address(option: str, raw: Any) -> str:
    if raw is None:
        return ""
    try:
        return str(ipaddress.ip_address(str(raw)))
    except ValueError:
        raise SpecInvalid(option, raw, "an IPv4 or IPv6 address") from None


def _statement(raw: Any) -> Dict[str, str]:
    if not raw or (isinstance(raw, Mapping) and not any(raw.values())):  # Ansible fills in what was not given
        return {}
    statement = Statement.parse(raw)
    return {"accepted_by": statement.accepted_by, "until": statement.until.isoformat()}


def _limits(raw: Any) -> Dict[str, float]:
    try:
        return {str(name): float(seconds) for name, seconds in raw.items()}
    except (AttributeError, TypeError, ValueError):
        raise SpecInvalid("incoming.limits", raw, "numbers of seconds by name") from None


def _rejections(raw: Any) -> Dict[str, Rejection]:
    try:
        return {str(name): Rejection(str(why["code"]), _why(why)) for name, why in raw.items()}
    except (AttributeError, KeyError, TypeError):
        raise SpecInvalid("incoming.rejected", raw, "code and reason by transport") from None


def _why(rejection: Mapping[str, Any]) -> str:
    """The reason, and behind it what can be done about it where that is known."""
    reason, remedy = str(rejection["reason"])[:300], str(rejection.get("remedy") or "")[:200]
    return f"{reason}. {remedy}".rstrip(".") if remedy else reason


def available(
    point: MeetingPoint,
    has_key: bool,
    bad_credentials: Callable[[str, str], Optional[Rejection]],
    now: float,
    proof_follows: bool = False,
) -> Dict[str, Optional[Rejection]]:
    """Per transport None (usable as far as can be seen before anything is opened) or why not.

    Args:
        point: Where the target listens.
        has_key: Whether the key for ``tcp`` was given.
        bad_credentials: What is wrong with this node's certificate of a trust domain for a transport.
        now: Seconds since 1970.
        proof_follows: Check mode, in which nothing is sent: of the proof of the network only what has failed counts.
    """
    return {
        "websocket": None,
        "tls": point.rejected.get("tls") or _refused(point, "tls") or bad_credentials(point.credentials, "tls"),
        "tcp": point.rejected.get("tcp")
        or _refused(point, "tcp")
        or _no_key(has_key)
        or _no_proof(point, now, proof_follows),
        "qemu-tls": point.rejected.get("qemu-tls")
        or _refused(point, "tls")
        or bad_credentials(point.credentials, "qemu-tls"),
        "qemu-tcp": _no_proof(point, now, proof_follows),
        **{name: why for name, why in point.rejected.items() if name not in DIRECT},
    }


def _refused(point: MeetingPoint, plane: str) -> Optional[Rejection]:
    if not point.planes:
        return _NOT_STARTED
    if plane not in point.planes:
        return Rejection("INCOMING_REFUSES", f"the incoming worker of the target does not accept {plane}")
    return None


def _no_key(has_key: bool) -> Optional[Rejection]:
    return None if has_key else Rejection("KEY_ABSENT", "the key of the two workers was not given (incoming_key)")


def _no_proof(point: MeetingPoint, now: float, proof_follows: bool) -> Optional[Rejection]:
    """Clear text needs a network proven within 15 minutes and a person who answers for it (safety 10)."""
    if not point.clear_text:
        return Rejection(
            "CLEAR_TEXT_NOT_ACCEPTED",
            "nobody accepts clear text. Say who does and until when: clear_text {accepted_by, until}",
        )
    statement = Statement.parse(point.clear_text)
    if not statement.holds_at(now):
        reason = f"clear text was accepted until {statement.until} by {statement.accepted_by}, which is over"
        return Rejection("CLEAR_TEXT_NOT_ACCEPTED", f"{reason}. Have clear_text accepted anew")
    if not point.network:
        return Rejection(
            "NETWORK_NOT_PROVEN",
            "there is no verdict of the role trusted_network. Name the network (migrate_vm_incoming.network)",
        )
    verdict = Verdict.parse(point.network)
    trust = verdict.trust_at(now)
    failed = any(check.state is State.FAILED for check in verdict.checks)
    if trust.clear_text_allowed or (proof_follows and not failed):
        return _not_of_these(point, verdict, proof_follows)
    if trust is not verdict.trust:
        age = int(now - verdict.checked_at)
        reason = f"the network {verdict.network} was found {verdict.trust.value} {age} s ago. Prove it anew"
    else:
        reason = f"the network {verdict.network} was found {trust.value}: {_first_trouble(verdict)}"
    return Rejection("NETWORK_NOT_PROVEN", reason)


def _first_trouble(verdict: Verdict) -> str:
    """What failed on which node, else what could not be checked, and what can be done about it."""
    for state in (State.FAILED, State.NOT_RUN):
        for check in verdict.checks:
            if check.state is state:
                return f"check {check.number} on {check.node}: {check.finding}. {check.remedy}".rstrip(". ")
    return "nobody vouches for it"


def _not_of_these(point: MeetingPoint, verdict: Verdict, proof_follows: bool) -> Optional[Rejection]:
    """A verdict may have been given by hand: it must be about the two addresses that the streams will use, either way.

    Names of nodes are not compared: they are those of the inventory in which the verdict was made. In check mode an
    address may not have been seen; a proven network has exactly one of each node (check 2).
    """
    network = parse_network(verdict.network)
    for address in (point.own_address, point.address):
        if not address or not is_within(ipaddress.ip_address(address), network):
            what = address or "an address that is not told"
            return Rejection("NETWORK_NOT_PROVEN", f"{what} is not in the network to be proven, {network}")
    proven = {verdict.address_of(verdict.source), verdict.address_of(verdict.target)}
    if proof_follows and None in proven:
        return None
    if proven == {ipaddress.ip_address(point.own_address), ipaddress.ip_address(point.address)}:
        return None
    between = " and ".join(sorted(str(address) for address in proven if address))
    reason = f"the proof is about {between or 'no address'}, not about {point.own_address} and {point.address}"
    return Rejection("NETWORK_NOT_PROVEN", reason)
