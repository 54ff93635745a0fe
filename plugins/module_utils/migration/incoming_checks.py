# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Which of the wanted transports the target node can serve, and why it cannot serve the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..errors import CrossclusterError, Side
from ..transport import tls
from ..transport.incoming_errors import FirewallMissing, IncomingInvalid
from .incoming_settings import PLANE_OF, IncomingSettings

__all__ = ["Prospect", "examine"]


@dataclass(frozen=True)
class Prospect:
    """What will work here.

    Attributes:
        planes: What may be between the two workers.
        rejected: Per transport that cannot be served the error.
        own_name: The name in this node's certificate; empty without TLS.
        warnings: What an operator should know although it works.
    """

    planes: Tuple[str, ...]
    rejected: Mapping[str, CrossclusterError]
    own_name: str
    warnings: Tuple[str, ...]

    def require(self) -> None:
        """Raise the first reason when nothing is left."""
        if not self.planes:
            raise next(iter(self.rejected.values()))

    def rejected_as_dict(self) -> Dict[str, Any]:
        """As it stands in a result."""
        return {
            name: {"code": error.code, "reason": error.message, "remedy": error.remedy}
            for name, error in self.rejected.items()
        }


def examine(settings: IncomingSettings, key: str, firewall_error: Optional[FirewallMissing]) -> Prospect:
    """What of ``settings`` can be served; reads the certificates of this node.

    Args:
        settings: What is wanted.
        key: The key of ``tcp``, empty without one.
        firewall_error: Why the rule that lets in only the peer cannot be set; None when it can.
    """
    own_name, certificate_error = "", None
    if "tls" in settings.planes:
        try:
            own_name = _certificate_name(settings)
        except CrossclusterError as error:
            certificate_error = error
    reasons: Mapping[str, Optional[CrossclusterError]] = {
        "tls": certificate_error,
        "tcp": firewall_error if key else _no_key(),
    }
    rejected = {name: error for name in settings.transports for error in [reasons[PLANE_OF[name]]] if error is not None}
    planes = tuple(plane for plane in settings.planes if reasons[plane] is None)
    warnings: List[str] = []
    if firewall_error is not None and "tls" in planes:
        warnings.append(
            f"{firewall_error.message}: the port is open to everybody, who is turned away after a connection only"
        )
    return Prospect(planes, rejected, own_name, tuple(warnings))


def _certificate_name(settings: IncomingSettings) -> str:
    """The name by which others know this node: one certificate serves it in both roles (direct-transports 6)."""
    credentials = tls.Credentials(settings.credentials)
    name = tls.own_certificate(credentials, Side.TARGET).common_name
    tls.check_credentials(credentials, name, Side.TARGET)
    return name


def _no_key() -> IncomingInvalid:
    return IncomingInvalid(
        "tcp needs a key of 64 hexadecimal digits", object="key", remedy="Give the same key to both sides"
    )
