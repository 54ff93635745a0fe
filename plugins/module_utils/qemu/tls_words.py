# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What QEMU's and GnuTLS's words about a certificate mean: one sentence with side, certificate and remedy. Pure.

The words are those that QEMU 7.2.22 and 10.0.13 say. Only the QEMU that refuses knows the reason: what the target's
refuses, the source's hears as a connection that ends (TLS 1.3: it has finished its handshake before).
"""

from __future__ import annotations

import re
from typing import NamedTuple, Optional, Tuple

from ..errors import Side
from .errors import QemuTlsFailed

__all__ = ["clear_text", "credentials_refused", "handshake_ended", "handshake_refused", "handshake_silent"]

_MAX_WORDS = 300  # characters kept of QEMU's own words
_FILE = re.compile(r"/[^\s']+\.pem")
_ISSUE = "Issue a new certificate for that node (role certificates)"
_SAME_CA = "Give both nodes certificates of one CA, and its certificate as ca-cert.pem"
_CLOCK = "Renew it (role certificates), and compare the clocks of both nodes"


class _Meaning(NamedTuple):
    words: str  # a pattern
    cause: str
    reason: str
    remedy: str


# Refused when the credentials are read: always a file of that node.
_LOADING: Tuple[_Meaning, ...] = (
    _Meaning(r"has expired", "expired", "it has expired", _CLOCK),
    _Meaning(r"not yet active", "not_yet_valid", "it is not valid yet", _CLOCK),
    _Meaning(r"constraints show a CA", "is_ca", "it is a CA", _ISSUE),
    _Meaning(r"do not show a CA", "malformed", "it is no CA", _SAME_CA),
    _Meaning(r"does not (permit|allow)", "wrong_purpose", "its usage does not allow this role", _ISSUE),
    _Meaning(r"do not match", "key_mismatch", "it belongs to another key", _ISSUE),
    _Meaning(r"failed validation|no issuer in CA", "foreign_ca", "it is not signed by the CA in ca-cert.pem", _SAME_CA),
    _Meaning(r"Unable to access|Missing ", "missing", "the file is not there or cannot be read", _ISSUE),
    _Meaning(r"GNUTLS", "unsupported", "this QEMU was built without TLS", "Use the transport tls"),
    _Meaning(r"Unable to (import|load)|Cannot (import|load)", "unreadable", "it cannot be read", _ISSUE),
)

# Refused in the handshake by the QEMU that says so: what the other one shows.
_HANDSHAKE: Tuple[_Meaning, ...] = (
    _Meaning(r"known issuer", "foreign_ca", "it is not signed by a CA that is trusted here", _SAME_CA),
    # GnuTLS has no other words for one that has expired since QEMU read its own.
    _Meaning(r"is not trusted", "expired", "it, or its CA, has expired or is not valid yet", _CLOCK),
    _Meaning(r"has expired", "expired", "it, or its CA, has expired", _CLOCK),
    _Meaning(r"not yet activ", "not_yet_valid", "it is not valid yet", _CLOCK),
    _Meaning(r"revoked", "revoked", "it was revoked", _ISSUE),
    _Meaning(r"insecure algorithm", "weak_key", "it uses an insecure algorithm", _ISSUE),
    _Meaning(r"does not match the hostname", "wrong_name", "it names another node", "Compare certificate_name with it"),
    _Meaning(r"No certificate was found", "missing", "none was shown", _ISSUE),
)


def credentials_refused(words: str, side: Side, directory: str) -> QemuTlsFailed:
    """The error for a refused ``object-add``."""
    found = _meaning(_LOADING, words)
    named = _FILE.search(words)
    file = named.group() if named else directory
    cause, reason, remedy = found[1:] if found else ("unknown", words[:_MAX_WORDS], "See the log of that QEMU")
    return _error(f"QEMU of the {side.value} cannot use {file}: {reason}", side, file, cause, remedy, words)


def handshake_refused(words: str, peer_name: str) -> Optional[QemuTlsFailed]:
    """The error for the source's QEMU refusing what the target's shows; None if that is not what it says."""
    found = _meaning(_HANDSHAKE, words)
    if found is None:
        return None
    shown = f"server-cert.pem of {peer_name}"
    message = f"QEMU of the source refuses {shown}: {found.reason}"
    return _error(message, Side.TARGET, shown, found.cause, found.remedy, words)


def handshake_ended(words: str, own_name: str) -> QemuTlsFailed:
    """The error for a target's QEMU that ends a connection at its beginning: it refuses what the source shows."""
    shown = f"client-cert.pem of {own_name}"
    return _error(
        f"QEMU of the target ended the TLS handshake: it probably refuses {shown}",
        Side.SOURCE,
        shown,
        "refused",
        f"Its subject must be CN={own_name} alone and its CA the one in ca-cert.pem of the target; "
        "the log of the target's QEMU names the reason",
        words,
    )


def handshake_silent(words: str, peer_name: str) -> QemuTlsFailed:
    """The error for a target's QEMU that does not answer."""
    return _error(
        "QEMU of the target did not answer the TLS handshake in time",
        Side.TARGET,
        f"QEMU on {peer_name}",
        "silent",
        "Look at the load of the target node, and run the play again",
        words,
    )


def clear_text(words: str) -> QemuTlsFailed:
    """The error for a QEMU of the source that began in the clear, and whose stream was ended for that."""
    return _error(
        "QEMU of the source did not encrypt what it was told to; nothing of it was sent",
        Side.SOURCE,
        "QEMU",
        "clear_text",
        "Find out who else gives orders to that QEMU, and run the play again",
        words,
    )


def _meaning(table: Tuple[_Meaning, ...], words: str) -> Optional[_Meaning]:
    return next((meaning for meaning in table if re.search(meaning.words, words)), None)


def _error(message: str, side: Side, shown: str, cause: str, remedy: str, words: str) -> QemuTlsFailed:
    facts = {"cause": cause, "words": words[:_MAX_WORDS]}
    return QemuTlsFailed(message, side=side, object=shown, remedy=remedy, facts=facts)
