# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Where a target node is and how we prove that it is this one."""

from __future__ import annotations

import ipaddress
import re
import ssl
from dataclasses import dataclass
from typing import Optional
from urllib.parse import quote

from . import fingerprint as fingerprints
from .errors import EndpointInvalid, FingerprintMismatch

__all__ = ["Endpoint", "is_token_id", "is_user", "plain_host"]

_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", re.ASCII)
_NODE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
# pve-access-control, Auth/Plugin.pm: a user may hold an "@" (the last one ends it); "!" and "=" would end it in the
# header of a token (mtunnel-protocol 1.1).
_USER = re.compile(r"(?:(?![:/!=])[\x21-\x7e])+@[A-Za-z][A-Za-z0-9._-]+", re.ASCII)
_TOKEN_ID = re.compile(r"[A-Za-z][A-Za-z0-9._-]+", re.ASCII)
_SECRET = re.compile(r"[\x21-\x7e]{1,512}")
# ssl.OP_IGNORE_UNEXPECTED_EOF has a name only since Python 3.10; OpenSSL 3 defines the bit.
_IGNORE_UNEXPECTED_EOF = 1 << 7


def plain_host(text: str) -> str:
    """A host name or an address without brackets; empty when it is none."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" not in bare:
        return text if _HOST_NAME.fullmatch(text) else ""
    try:
        ipaddress.IPv6Address(bare)
    except ValueError:
        return ""
    return bare


def is_user(text: str) -> bool:
    """Whether it is ``name@realm``."""
    return len(text) <= 64 and bool(_USER.fullmatch(text))


def is_token_id(text: str) -> bool:
    """Whether it is the name of a token, without its user."""
    return bool(_TOKEN_ID.fullmatch(text))


@dataclass(frozen=True)
class Endpoint:
    """One node of the target cluster.

    Attributes:
        host: Name or address of the node's API.
        port: TCP port of the API.
        node: Name of the node. mtunnel is not proxied: this node answers at ``host`` (mtunnel-protocol 3.1).
        user: ``name@realm``.
        token_id: Name of the token, without the user.
        fingerprint: SHA-256 of the certificate in any spelling; None checks against CAs.
        ca_path: File with CA certificates; None takes those of the system.
        validate_certs: False accepts any certificate when no fingerprint is given.
    """

    host: str
    port: int
    node: str
    user: str
    token_id: str
    fingerprint: Optional[str] = None
    ca_path: Optional[str] = None
    validate_certs: bool = True

    def __post_init__(self) -> None:
        host = plain_host(self.host)
        _check(bool(host), "api_host", "a host name or an address")
        object.__setattr__(self, "host", host)
        _check(isinstance(self.port, int) and 0 < self.port < 65536, "api_port", "a TCP port, 1 to 65535")
        _check(bool(_NODE.fullmatch(self.node)), "node", "the name of a Proxmox VE node")
        _check(is_user(self.user), "api_user", "name@realm")
        _check(is_token_id(self.token_id), "api_token_id", "the name of the token without the user")
        if self.fingerprint is not None:
            object.__setattr__(self, "fingerprint", fingerprints.normalise(self.fingerprint))

    @property
    def name(self) -> str:
        """``host:port`` for messages."""
        return f"{self.host}:{self.port}"

    @property
    def server_hostname(self) -> str:
        """Name for SNI and the host name check."""
        return self.host

    def authorization(self, secret: str) -> str:
        """Value of the Authorization header; the server percent-decodes it (mtunnel-protocol 1.1)."""
        if not _SECRET.fullmatch(secret):
            raise EndpointInvalid("the token secret is empty or has characters no secret has", object=self.token_name)
        return f"PVEAPIToken={self.token_name}={quote(secret, safe='-._~')}"

    @property
    def token_name(self) -> str:
        """``user@realm!token``."""
        return f"{self.user}!{self.token_id}"

    def tls_context(self) -> ssl.SSLContext:
        """Client context for this endpoint; the pinned fingerprint replaces CAs (mtunnel-protocol 1.5)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # pve-cli 6: pveproxy ends TLS without a notify; without this OpenSSL 3 sends it an alert.
        context.options |= _IGNORE_UNEXPECTED_EOF
        if self.fingerprint is not None or not self.validate_certs:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca_path is not None:
            self._load(context, self.ca_path)
        else:
            context.load_default_certs()
        return context

    def _load(self, context: ssl.SSLContext, path: str) -> None:
        try:
            context.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError) as error:
            raise EndpointInvalid(
                f"the CA file {path} cannot be used: {error}",
                object="ca_path",
                remedy="Give a file of PEM certificates.",
            ) from error

    def check_certificate(self, der: bytes) -> None:
        """Raise unless the certificate (DER) is the pinned one; without a pin the context has checked it."""
        if self.fingerprint is None:
            return
        presented = fingerprints.of(der)
        if presented != self.fingerprint:
            raise FingerprintMismatch(
                f"{self.name} presents the certificate {fingerprints.show(presented)}, "
                f"expected is {fingerprints.show(self.fingerprint)}",
                object=self.name,
                remedy="If the certificate was renewed, update the fingerprint; else somebody stands in between.",
                facts={
                    "presented": fingerprints.show(presented),
                    "expected": fingerprints.show(self.fingerprint),
                },
            )


def _check(holds: bool, option: str, right: str) -> None:
    if not holds:
        raise EndpointInvalid(f"{option} of the target is not {right}", object=option, remedy=f"Give {right}.")
