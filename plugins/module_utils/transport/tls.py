# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Mutual TLS 1.3 between two workers: contexts, the check of the peer, and what a failure means.

Knows the files of a trust domain on a node, which side shows and which side checks what, and OpenSSL's words for a
refusal (direct-transports 6.2, 6.3). Does not know sockets: bytes in, bytes out. The source is always the client and
the target always the server.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from enum import Enum
from typing import Any, Dict, Mapping, NamedTuple, Type

from ..errors import Side
from .certificate import Certificate, certificates_of
from .errors import (
    CertificateRefused,
    CertificateUnreadable,
    CredentialsUnusable,
    HandshakeFailed,
    RefusedByPeer,
    TlsFailed,
)

__all__ = [
    "Cause",
    "Credentials",
    "Handshake",
    "check_credentials",
    "client_context",
    "is_node_name",
    "own_certificate",
    "server_context",
]

# direct-transports 4.5: Python 3.9 sets it with OpenSSL 3, and a cut connection would look like a clean end.
_IGNORE_UNEXPECTED_EOF = 1 << 7
# A name, not an address: for an address OpenSSL would compare the certificate's addresses (direct-transports 6.2).
_NAME = re.compile(r"(?=.{1,253}\Z)(?!(?:.*\.)?[0-9]+\Z)[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?", re.ASCII)


class Cause(Enum):
    """Why TLS between two workers failed, in one word for programs."""

    FOREIGN_CA = "foreign_ca"
    WRONG_NAME = "wrong_name"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    BAD_CERTIFICATE = "bad_certificate"  # not yet valid or wrong name: the peer's alert is the same for both
    MISSING = "missing"
    WRONG_PURPOSE = "wrong_purpose"
    REVOKED = "revoked"
    CRL_EXPIRED = "crl_expired"
    CRL_MISSING = "crl_missing"
    IS_CA = "is_ca"
    MALFORMED = "malformed"
    WEAK_KEY = "weak_key"
    KEY_MISMATCH = "key_mismatch"
    EXPOSED = "exposed"
    EXPIRES_SOON = "expires_soon"
    UNREADABLE = "unreadable"
    NAME_INVALID = "name_invalid"
    PROTOCOL = "protocol"
    CUT = "cut"
    SILENT = "silent"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Credentials:
    """The files of one trust domain on this node, named as QEMU wants them (direct-transports 6)."""

    directory: str

    def file(self, name: str) -> str:
        """Path of a file of the domain."""
        return f"{self.directory}/{name}"

    @property
    def ca(self) -> str:
        """The CA, or all of them while a new one takes over from an old one."""
        return self.file("ca-cert.pem")

    @property
    def crl(self) -> str:
        """The revocation lists; may be absent, then nothing is asked of one."""
        return self.file("ca-crl.pem")

    def certificate(self, side: Side) -> str:
        """What a worker on this side shows: the source is the client."""
        return self.file(f"{_role(side)}-cert.pem")

    def key(self, side: Side) -> str:
        """The key to it."""
        return self.file(f"{_role(side)}-key.pem")


def is_node_name(text: str) -> bool:
    """Whether a peer can be pinned by this name."""
    return bool(_NAME.fullmatch(text))


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """The context of a worker on the source; raises CredentialsUnusable."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, credentials, Side.SOURCE)
    context.check_hostname = True
    # Else a certificate without a SAN passes by its CN (direct-transports 6.1).
    context.hostname_checks_common_name = False
    return context


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """The context of a worker on the target; raises CredentialsUnusable."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, credentials, Side.TARGET)
    context.num_tickets = 0  # nothing arrives unasked, nothing is resumed
    return context


def own_certificate(credentials: Credentials, side: Side) -> Certificate:
    """The certificate that this node shows on this side, read from its file; raises CredentialsUnusable."""
    path = credentials.certificate(side)
    try:
        with open(path, encoding="ascii") as file:
            return certificates_of(file.read(), side, path)[0]
    except (OSError, ValueError, CertificateUnreadable) as error:
        raise _unusable(side, path, error) from error


def check_credentials(credentials: Credentials, name: str, side: Side) -> Certificate:
    """Whether the workers of other nodes and QEMU will take the certificate of this node in both roles.

    What passes the strict contexts in both roles passes QEMU's own check too, but for a leaf that is a CA
    (direct-transports 6.3). So the node shakes hands with itself, in memory.

    Args:
        credentials: The files.
        name: The name by which others know this node.
        side: The side this node is on, for the error.

    Returns:
        The certificate; both files hold the same.

    Raises:
        CredentialsUnusable: One of the files cannot be used.
    """
    shown = own_certificate(credentials, side)
    client = Handshake(Side.SOURCE, client_context(credentials), credentials, name)
    server = Handshake(Side.TARGET, server_context(credentials), credentials, name)
    try:
        _shake(client, server)
    except TlsFailed as error:
        path = credentials.certificate(side)
        raise CredentialsUnusable(
            f"{path} would be refused by others: {error.facts['reason']}",
            side=side,
            object=path,
            remedy=error.remedy,
            facts=error.facts,
        ) from None
    return shown


class Handshake:
    """One side of one TLS connection: bytes in, bytes out.

    :meth:`advance` after every :meth:`receive` until it says True; whatever :meth:`to_send` gives goes to the peer,
    also after a failure, for it holds the alert that tells the peer why. The client is done before the server has
    looked at its certificate: that it was refused shows at its first read (direct-transports 5), so errors of
    :attr:`tls` later on go through :meth:`failure` as well.

    Args:
        side: The side this worker is on: the source connects, the target listens.
        context: From client_context or server_context.
        credentials: The files behind the context, for the error.
        peer_name: The name that the peer's certificate must carry, exactly.
    """

    def __init__(self, side: Side, context: ssl.SSLContext, credentials: Credentials, peer_name: str) -> None:
        self.side = side
        self.peer_name = peer_name
        self._shown = b""
        self._terms: Dict[str, Any] = {}
        self.stands = False  # TLS is there; that does not say that the peer is the right one
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self._credentials = credentials
        if not is_node_name(peer_name):
            reason = f"{peer_name!r} is not the name of a node"
            raise self._error(HandshakeFailed, side, "peer name", _Finding(Cause.NAME_INVALID, reason, _GIVE_NAME))
        self.tls = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=side is Side.TARGET,
            server_hostname=peer_name if side is Side.SOURCE else None,
        )

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer; ``b""`` is the end of its connection."""
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def to_send(self) -> bytes:
        """Bytes for the peer."""
        return self.outgoing.read()

    def advance(self) -> bool:
        """True once both have proven who they are, as far as this side can know; raises TlsFailed."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except (ssl.SSLError, OSError) as error:
            raise self.failure(error) from error
        # Kept, because OpenSSL tells nothing of it any more after a fatal alert.
        cipher = self.tls.cipher()
        self._shown = self.tls.getpeercert(binary_form=True) or b""
        self._terms = {"version": self.tls.version(), "cipher": cipher[0] if cipher else None}
        self.stands = True
        try:
            self._check_peer(self.peer())
        except CertificateUnreadable:
            self._shown = b""
            raise self._refused(_Finding(Cause.MALFORMED, "its fields cannot be read", _ISSUE)) from None
        return True

    def peer(self) -> Certificate:
        """The peer's certificate, once the handshake stands."""
        return Certificate.parse(self._shown, _other(self.side), "the peer's certificate")

    def seen(self) -> Dict[str, Any]:
        """What this side saw, for a report, once the handshake stands; only the terms of a peer that is unreadable."""
        if not self._shown:
            return {"peer_name": self.peer_name, **self._terms}
        peer = self.peer()
        return {
            "peer_name": self.peer_name,
            "names": list(peer.dns_names),
            "addresses": list(peer.addresses),
            "fingerprint": peer.fingerprint,
            "not_after": peer.not_after,
            **self._terms,
        }

    def failure(self, error: OSError) -> TlsFailed:
        """What an error of the TLS object means, in one sentence with side, file, reason and remedy."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._refused(_verdict(error))
        reason = str(getattr(error, "reason", None) or "")
        alert = re.search(r"_ALERT_(.+)\Z", reason)
        if alert:
            return self._refused_by_peer(alert[1])
        if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return self._refused(_Finding(Cause.MISSING, "the peer showed no certificate", _ISSUE))
        if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) or "EOF" in reason:
            return self._broken(Cause.CUT, "the peer closed the connection", "Look at the report of the other side.")
        return self._broken(Cause.PROTOCOL, f"OpenSSL says {reason or type(error).__name__}", _PROTOCOL)

    def refused_in_words(self, cause: str, reason: str) -> TlsFailed:
        """The error for a peer that says itself why it refuses us, as it must where no alert does."""
        known = Cause(cause) if cause in {each.value for each in Cause} else Cause.BAD_CERTIFICATE
        finding = _Finding(known, f"{self.peer_name} refuses it: {reason or 'without a reason'}", _CHECK_NAME)
        return self._error(RefusedByPeer, self.side, self._credentials.certificate(self.side), finding)

    def _check_peer(self, peer: Certificate) -> None:
        """The name, exactly (OpenSSL takes wildcards, and a server checks none), and that no CA shows itself."""
        if peer.is_ca:
            raise self._refused(_Finding(Cause.IS_CA, "it is a CA (basicConstraints CA:TRUE)", _ISSUE))
        if self.peer_name not in peer.dns_names:
            names = ", ".join(peer.dns_names) or "no node"
            reason = f"it names {names}, not {self.peer_name}"
            raise self._refused(_Finding(Cause.WRONG_NAME, reason, _CHECK_NAME), names=list(peer.dns_names))

    def _refused(self, finding: "_Finding", **facts: Any) -> TlsFailed:
        if finding.cause in (Cause.CRL_EXPIRED, Cause.CRL_MISSING):  # a file of ours
            return self._error(CredentialsUnusable, self.side, self._credentials.crl, finding, **facts)
        shown = self._credentials.certificate(_other(self.side)).rpartition("/")[2]
        return self._error(CertificateRefused, _other(self.side), f"{shown} of {self.peer_name}", finding, **facts)

    def _refused_by_peer(self, alert: str) -> TlsFailed:
        finding = _ALERTS.get(alert)
        words = alert.lower().replace("_", " ")
        if finding is None:
            return self._broken(Cause.PROTOCOL, f"{self.peer_name} answered with the alert '{words}'", _PROTOCOL)
        finding = finding._replace(reason=f"{self.peer_name} refuses it: {finding.reason}")
        return self._error(RefusedByPeer, self.side, self._credentials.certificate(self.side), finding, alert=words)

    def _broken(self, cause: Cause, reason: str, remedy: str) -> TlsFailed:
        return self._error(HandshakeFailed, _other(self.side), self.peer_name, _Finding(cause, reason, remedy))

    def _error(self, kind: Type[TlsFailed], side: Side, object: str, finding: "_Finding", **facts: Any) -> TlsFailed:
        return kind(
            f"{side.value}: {object}: {finding.reason}",
            side=side,
            object=object,
            remedy=finding.remedy,
            facts={"cause": finding.cause.value, "reason": finding.reason, "seen_by": self.side.value, **facts},
        )


# --- contexts -------------------------------------------------------------------------------------------------------


def _context(protocol: int, credentials: Credentials, side: Side) -> ssl.SSLContext:
    """What both sides share. Not create_default_context: it loads the system's CAs and differs between Pythons."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.options &= ~_IGNORE_UNEXPECTED_EOF
    path = credentials.ca
    try:
        context.load_verify_locations(path)
        path = credentials.crl
        if _exists(path):
            context.load_verify_locations(path)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        path = credentials.certificate(side)
        _load_pair(context, path, credentials.key(side))
    except (OSError, ValueError) as error:
        raise _unusable(side, path, error) from error
    return context


def _load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Twice, if need be: a renewal (credential_store) may have come between the reading of one and of the other."""
    for last in (False, True):
        try:
            # Without a password an encrypted key would ask for one on the terminal.
            context.load_cert_chain(certificate, _existing(key), password="")
            return
        except ssl.SSLError as error:
            if last or error.reason != "KEY_VALUES_MISMATCH":
                raise


def _exists(path: str) -> bool:
    try:
        return bool(_existing(path))
    except FileNotFoundError:
        return False


def _existing(path: str) -> str:
    """The path of a file that can be opened: load_cert_chain does not say which of its two cannot."""
    with open(path, "rb"):
        return path


def _unusable(side: Side, path: str, error: Exception) -> CredentialsUnusable:
    """A file of our own that cannot be loaded."""
    name = getattr(error, "filename", None)
    path = name if isinstance(name, str) else path
    finding = _load_finding(error)
    return CredentialsUnusable(
        f"{path}: {finding.reason}",
        side=side,
        object=path,
        remedy=finding.remedy,
        facts={"cause": finding.cause.value, "reason": finding.reason, "seen_by": side.value},
    )


def _load_finding(error: Exception) -> "_Finding":
    reason = str(getattr(error, "reason", None) or "")
    if isinstance(error, FileNotFoundError):
        return _Finding(Cause.MISSING, "there is no such file", _ISSUE)
    if reason == "KEY_VALUES_MISMATCH":
        return _Finding(Cause.KEY_MISMATCH, "the certificate belongs to another key", _ISSUE)
    if reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL"):
        return _Finding(Cause.WEAK_KEY, "its key is too weak", _ISSUE)
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return _Finding(Cause.UNREADABLE, f"it cannot be read: {error.strerror}", _ISSUE)
    return _Finding(Cause.UNREADABLE, "it does not hold what it should, in PEM and without a password", _ISSUE)


# --- what OpenSSL says ----------------------------------------------------------------------------------------------


class _Finding(NamedTuple):
    """A cause, the reason as a clause, and what to do."""

    cause: Cause
    reason: str
    remedy: str


_ISSUE = "Run the role certificates for this node."
_CLOCK = "Compare the clocks of both nodes, then run the role certificates."
_SAME_CA = "Both nodes need the CA of the same trust domain: run the role certificates for both."
_LIST = "Run the role certificates: it renews the revocation list."
_REVOKED = (
    "It was revoked on purpose; to let the node in again, run the role with certificates_state absent, then present."
)
_CHECK_NAME = "Compare the inventory's certificate_name with the certificate, or see whether another node answers."
_GIVE_NAME = "Give certificate_name as it stands in the certificate: letters, digits, hyphens and dots."
_PROTOCOL = (
    "See that a worker listens there and that the files of both nodes exist: a server without any says the same."
)

# <openssl/x509_vfy.h>, the same numbers in OpenSSL 1.1.1 to 3.5. Every other number is a field that is not as it
# should be, in the words of OpenSSL.
_VERDICTS: Mapping[int, "_Finding"] = {
    **{
        number: _Finding(Cause.FOREIGN_CA, "it is not signed by a CA that is trusted here", _SAME_CA)
        for number in (2, 7, 18, 19, 20, 21)
    },
    3: _Finding(Cause.CRL_MISSING, "it holds no revocation list of the CA of the peer's certificate", _LIST),
    8: _Finding(Cause.CRL_MISSING, "the revocation list is not signed by the CA", _LIST),
    9: _Finding(Cause.NOT_YET_VALID, "it is not yet valid", _CLOCK),
    10: _Finding(Cause.EXPIRED, "it, or the CA that signed it, has expired", _CLOCK),
    11: _Finding(Cause.CRL_EXPIRED, "the revocation list is not yet valid", _CLOCK),
    12: _Finding(Cause.CRL_EXPIRED, "the revocation list has expired, so nobody is trusted", _LIST),
    23: _Finding(Cause.REVOKED, "it was revoked", _REVOKED),
    26: _Finding(Cause.WRONG_PURPOSE, "it is not made for this role (extendedKeyUsage or keyUsage)", _ISSUE),
    62: _Finding(Cause.WRONG_NAME, "it names another node", _CHECK_NAME),
    66: _Finding(Cause.WEAK_KEY, "its key is too weak", _ISSUE),
    67: _Finding(Cause.WEAK_KEY, "the key of its CA is too weak", _ISSUE),
}

# The last part of OpenSSL's name of an alert: what stands before it changed between versions.
_ALERTS: Mapping[str, "_Finding"] = {
    "UNKNOWN_CA": _Finding(Cause.FOREIGN_CA, "it is not signed by a CA that is trusted there", _SAME_CA),
    "CERTIFICATE_EXPIRED": _Finding(Cause.EXPIRED, "it, its CA or the revocation list there has expired", _CLOCK),
    "BAD_CERTIFICATE": _Finding(Cause.BAD_CERTIFICATE, "it names another node or is not yet valid", _CHECK_NAME),
    "UNSUPPORTED_CERTIFICATE": _Finding(Cause.WRONG_PURPOSE, "it is not made for this role", _ISSUE),
    "CERTIFICATE_REVOKED": _Finding(Cause.REVOKED, "it was revoked", _REVOKED),
    "CERTIFICATE_UNKNOWN": _Finding(Cause.MALFORMED, "it, or its CA, lacks a field", _ISSUE),
    "CERTIFICATE_REQUIRED": _Finding(Cause.MISSING, "none was shown", _ISSUE),
}


def _verdict(error: ssl.SSLCertVerificationError) -> "_Finding":
    found = _VERDICTS.get(error.verify_code)
    return found or _Finding(Cause.MALFORMED, f"OpenSSL says: {error.verify_message}", _ISSUE)


def _role(side: Side) -> str:
    return "client" if side is Side.SOURCE else "server"


def _other(side: Side) -> Side:
    return Side.TARGET if side is Side.SOURCE else Side.SOURCE


def _shake(client: Handshake, server: Handshake) -> None:
    """Two ends in one process; a TLS 1.3 handshake takes one round trip and a half, so whoever waits then is stuck."""
    for _round in range(4):
        done = client.advance()
        _carry(client, server)
        done = server.advance() and done
        _carry(server, client)
        if done:
            return
    raise client.failure(ssl.SSLEOFError("the handshake does not end"))


def _carry(sender: Handshake, receiver: Handshake) -> None:
    data = sender.to_send()
    if data:
        receiver.receive(data)
