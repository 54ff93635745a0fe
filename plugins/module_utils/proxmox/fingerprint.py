# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""SHA-256 fingerprints of certificates, in any spelling a person may paste."""

from __future__ import annotations

import hashlib
import re

from .errors import EndpointInvalid

__all__ = ["normalise", "of", "show"]

_PREFIX = re.compile(r"(?:sha-?256)(?:[ _]+fingerprint)?\s*[:= ]\s*", re.ASCII | re.IGNORECASE)


def normalise(text: str) -> str:
    """64 lower-case hexadecimal digits from any spelling: colons, dashes, spaces, upper case, ``SHA256:`` in front."""
    bare = _PREFIX.sub("", text.strip(), count=1) if _PREFIX.match(text.strip()) else text
    digits = re.sub(r"[\s:\-]", "", bare).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits, re.ASCII):
        raise EndpointInvalid(
            "the fingerprint is not a SHA-256 fingerprint: 64 hexadecimal digits, with or without colons",
            object="fingerprint",
            remedy="Take it from Datacenter > node > Certificates, or from 'pvenode cert info'.",
        )
    return digits


def of(der: bytes) -> str:
    """Fingerprint of a certificate (DER) in the normal form."""
    return hashlib.sha256(der).hexdigest()


def show(digits: str) -> str:
    """The spelling Proxmox VE shows: ``AA:BB:...``."""
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2)).upper()
