# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What POST remote_migrate is given: the target's endpoint and the two maps (mtunnel-protocol 1.4 and 2.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Dict, Optional

from lab.node.base import ParamError
from lab.node.texts import MISSING, UNDEFINED

__all__ = ["Endpoint", "IdMap"]

API_PORT = 8006
PREFIX = "PVEAPIToken="
FINGERPRINT = re.compile(r"[A-Fa-f0-9]{2}(:[A-Fa-f0-9]{2}){31}")
KEYS = ("host", "apitoken", "port", "fingerprint")


@dataclass(frozen=True)
class Endpoint:
    """Where the target answers and with which credential; fingerprint in upper case, None = check by CA."""

    host: str
    apitoken: str
    port: int = API_PORT
    fingerprint: Optional[str] = None

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """Values are split at their first "=" only, so the token's own are fine."""
        found: Dict[str, str] = {}
        for part in filter(None, text.split(",")):
            key, _, value = part.partition("=")
            found[key] = value
        errors = [f"{key}: {UNDEFINED}" for key in sorted(found) if key not in KEYS]
        errors += [f"{key}: {MISSING}" for key in ("apitoken", "host") if not found.get(key)]
        if not found.get("port", "1").isdigit():
            errors.append(f"port: type check ('integer') failed - got '{found['port']}'")
        if "fingerprint" in found and not FINGERPRINT.fullmatch(found["fingerprint"]):
            errors.append("fingerprint: value does not match the regex pattern")
        if errors:
            raise ParamError({"target-endpoint": "invalid format - format error\n" + "\n".join(errors) + "\n"})
        known = found.get("fingerprint")
        port = int(found.get("port", API_PORT))
        return cls(found["host"], found["apitoken"], port, known.upper() if known else None)

    def pinned(self, fingerprint: str) -> "Endpoint":
        """The same with the certificate its node told us."""
        return replace(self, fingerprint=fingerprint.upper())

    @property
    def header(self) -> str:
        """Authorization of the REST calls; the tunnel client process sends the bare apitoken instead."""
        return self.apitoken if self.apitoken.startswith(PREFIX) else PREFIX + self.apitoken


def _bad_map(key: str, reason: str) -> ParamError:
    return ParamError({key: f"failed to parse {key.rpartition('-')[2]} map: {reason}\n"})


@dataclass(frozen=True)
class IdMap:
    """A list of pairs: exact entry, else the default, else the id itself."""

    entries: Dict[str, str] = field(default_factory=dict)
    default: Optional[str] = None
    identity: bool = False

    @classmethod
    def parse(cls, key: str, text: str) -> "IdMap":
        """Pairs source:target, at most one bare default, or "1" for identity, alone."""
        words = [word for word in re.split(r"[,;\s]+", text) if word]
        entries: Dict[str, str] = {}
        default: Optional[str] = None
        for word in words:
            source, sign, target = word.partition(":")
            if word == "1":
                continue
            if sign and source in entries:
                raise _bad_map(key, f"duplicate mapping for source '{source}'")
            if sign:
                entries[source] = target
            elif default is not None:
                raise _bad_map(key, "default target ID can only be provided once")
            else:
                default = word
        if "1" in words and (entries or default):
            raise _bad_map(key, "identity mapping cannot be combined with other mappings")
        return cls(entries, default, "1" in words)

    def of(self, name: str) -> str:
        """The target's id for a source id."""
        return self.entries.get(name, self.default or name)

    def told(self) -> Dict[str, object]:
        """As `start` carries it (the target ignores it)."""
        shown: Dict[str, object] = {"entries": self.entries} if self.entries else {}
        return {
            **shown,
            **({"default": self.default} if self.default else {}),
            **({"identity": 1} if self.identity else {}),
        }
