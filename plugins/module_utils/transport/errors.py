# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Errors of the room transport.

TransportError
├── NoTransportUsable  NO_TRANSPORT_USABLE  nothing of what the user listed can be used
├── SettingsInvalid    PUMP_SETTINGS        a pump was given settings it cannot work by (our bug)
├── PumpFailed         PUMP_FAILED          a pump ended before it was ready; ``facts.reason`` says why
├── WireError          WIRE_INVALID         what came over the connection is not our protocol
├── GreetingRefused    GREETING_REFUSED     one worker refused the other; ``facts.refusal`` is its code
├── LinkLost           LINK_LOST            the connection between the workers broke
├── NetworkChanged     NETWORK_CHANGED      a connection in clear text is not over the network that was proven
├── RehearsalFailed        REHEARSAL_FAILED             there is no report of the listening side
├── StoreFailed            CREDENTIAL_STORE_FAILED      keys and certificates cannot be made or kept on this node
├── CertificateUnreadable  CERTIFICATE_UNREADABLE       bytes that should be a certificate are none
└── TlsFailed                                           ``facts.cause`` says why in one word
    ├── CredentialsUnusable    CREDENTIALS_UNUSABLE         a file of our own cannot be used
    ├── CertificateRefused     PEER_CERTIFICATE_REFUSED     we refuse the peer's certificate
    ├── RefusedByPeer          CERTIFICATE_REFUSED_BY_PEER  the peer refuses ours
    └── HandshakeFailed        TLS_HANDSHAKE_FAILED         the handshake broke for another reason
"""

from __future__ import annotations

from ..errors import CrossclusterError

__all__ = [
    "CertificateRefused",
    "CertificateUnreadable",
    "CredentialsUnusable",
    "GreetingRefused",
    "HandshakeFailed",
    "LinkLost",
    "NetworkChanged",
    "NoTransportUsable",
    "PumpFailed",
    "RefusedByPeer",
    "RehearsalFailed",
    "SettingsInvalid",
    "StoreFailed",
    "TlsFailed",
    "TransportError",
    "WireError",
]


class TransportError(CrossclusterError):
    """Base of every error about carrying a byte stream to the target."""

    code = "TRANSPORT_FAILED"


class NoTransportUsable(TransportError):
    """No listed transport can be used; ``facts.rejected`` tells why, one by one."""

    code = "NO_TRANSPORT_USABLE"


class SettingsInvalid(TransportError):
    """The settings of a pump are incomplete or contradict each other."""

    code = "PUMP_SETTINGS"


class PumpFailed(TransportError):
    """A pump ended before its stream stood."""

    code = "PUMP_FAILED"


class WireError(TransportError):
    """The connection between the workers carries what is not the protocol."""

    code = "WIRE_INVALID"


class GreetingRefused(TransportError):
    """One of the workers refused the other before the stream stood."""

    code = "GREETING_REFUSED"


class LinkLost(TransportError):
    """The connection between the workers could not be made or broke."""

    code = "LINK_LOST"


class NetworkChanged(TransportError):
    """A connection of ``tcp`` does not go over the network as it was proven: one of the checks 3, 5 and 9 fails."""

    code = "NETWORK_CHANGED"


class RehearsalFailed(TransportError):
    """There is no report of the listening side of a rehearsal."""

    code = "REHEARSAL_FAILED"


class StoreFailed(TransportError):
    """The files of a trust domain cannot be made or kept on this node."""

    code = "CREDENTIAL_STORE_FAILED"


class CertificateUnreadable(TransportError):
    """Bytes that should be a certificate cannot be read as one."""

    code = "CERTIFICATE_UNREADABLE"


class TlsFailed(TransportError):
    """Base of what ends a TLS connection between two workers; ``facts.cause`` says why in one word."""


class CredentialsUnusable(TlsFailed):
    """A key, certificate, CA or revocation list of this node cannot be used."""

    code = "CREDENTIALS_UNUSABLE"


class CertificateRefused(TlsFailed):
    """The certificate that the other side shows is refused by this side."""

    code = "PEER_CERTIFICATE_REFUSED"


class RefusedByPeer(TlsFailed):
    """The certificate that this side shows is refused by the other side."""

    code = "CERTIFICATE_REFUSED_BY_PEER"


class HandshakeFailed(TlsFailed):
    """The TLS handshake between two workers broke."""

    code = "TLS_HANDSHAKE_FAILED"
