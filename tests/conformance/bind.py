# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placeholders and bound names: what a recording calls X is Y in this lab.

Placeholders are those of captures/README.md; ``bindings.json`` lists the literals that depend on the installation
(QEMU and machine versions, addresses). Both are applied to what is sent and to what is expected.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Any, Dict, List, Optional, Pattern, Tuple

__all__ = ["Bindings", "UPID"]

TOKEN = re.compile(r"\{\{([A-Z_]+)(?::([A-Za-z0-9_]+))?(?:\|(urlencoded))?\}\}")
UPID = re.compile(
    r"UPID:([^:\s]+):([0-9A-Fa-f]{8,9}):([0-9A-Fa-f]{8,}):([0-9A-Fa-f]{8}):([^:\s]+):([^:\s]*):([^:\s\"]+):"
)
_VOLATILE_UPID = re.compile(
    r"UPID:([^:%\s]+):\{\{PID\}\}:\{\{PSTART\}\}:\{\{STARTTIME\}\}:([^:\s]+):([^:\s]*):([^:\s]+):"
)
_QUOTED_UPID = re.compile(r"UPID%3A[^/?\s]*?\{\{STARTTIME\}\}[^/?\s]*")

# what a volatile placeholder may stand for
PATTERNS = {
    "PID": r"[0-9A-Fa-f]+",
    "PSTART": r"[0-9A-Fa-f]+",
    "STARTTIME": r"[0-9A-Fa-f]+",
    "FD": r"\d+",
    "TS": r"[A-Z0-9][-A-Za-z0-9:. ]{7,40}?",
    "HTTP_DATE": r"\w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} GMT",
    "WS_KEY": r"\S+",
    "WS_ACCEPT": r"\S+",
    "DIGEST": r"[0-9a-f]{40}",
    "TUNNEL_CLIENT_ERROR": r"[^\n]*",
    "LOGIN_TICKET": r"PVE:[^\s\"]+",
    "CSRF": r"[0-9A-F]{8}:[^\s\"]+",
    "TICKET": r"[^\s\"]+",
}


class Bindings:
    """Values of one replay. ``literals`` are (pattern, replacement) pairs, already filled in for this lab."""

    def __init__(self, literals: List[Tuple[Pattern[str], str]], values: Dict[str, str]) -> None:
        self._literals = literals
        self.values = dict(values)
        self.upids: List[str] = []

    def add_literals(self, literals: List[Tuple[Pattern[str], str]]) -> None:
        """Later ones replace earlier ones of the same pattern."""
        given = {pattern.pattern for pattern, _ in literals}
        self._literals = [pair for pair in self._literals if pair[0].pattern not in given] + literals

    def literal(self, text: str) -> str:
        for pattern, replacement in self._literals:
            text = pattern.sub(replacement, text)
        return text

    def note(self, actual: str) -> None:
        """Remembers the task ids in an answer: a later request may name them by placeholders only."""
        for match in UPID.finditer(actual):
            self.upids.append(match.group(0))

    def upid(self, node: str = "", kind: str = "", vmid: str = "") -> Optional[str]:
        for upid in reversed(self.upids):
            match = UPID.match(upid)
            if (
                match
                and (not node or match[1] == node)
                and (not kind or match[5] == kind)
                and (not vmid or match[6] == vmid)
            ):
                return upid
        return None

    def _known_upid(self, recorded: str) -> str:
        parts = _VOLATILE_UPID.search(recorded)
        if not parts:
            return recorded
        for upid in reversed(self.upids):
            match = UPID.match(upid)
            if match and (match[1], match[5], match[6], match[7]) == parts.groups():
                return upid
        raise KeyError(f"no task seen that could be {recorded}")

    def value(self, name: str, argument: Optional[str]) -> Optional[str]:
        return self.values.get(f"{name}:{argument}" if argument else name)

    def bind(self, name: str, argument: Optional[str], actual: str) -> None:
        self.values[f"{name}:{argument}" if argument else name] = actual

    def fill_text(self, text: str) -> str:
        """A text to send: every placeholder must be known."""
        text = _QUOTED_UPID.sub(
            lambda match: urllib.parse.quote(self._known_upid(_unquote_outside(match[0])), safe=""), text
        )
        text = _VOLATILE_UPID.sub(lambda match: self._known_upid(match[0]), text)

        def one(match: "re.Match[str]") -> str:
            value = self.value(match[1], match[2])
            if value is None:
                raise KeyError(f"placeholder {match[0]} has no value here")
            return urllib.parse.quote(value, safe="") if match[3] else value

        parts, end = [], 0
        for match in TOKEN.finditer(text):
            parts += [self.literal(text[end : match.start()]), one(match)]
            end = match.end()
        return "".join(parts) + self.literal(text[end:])

    def fill(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.fill_text(value)
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if isinstance(value, dict):
            return {self.fill_text(key): self.fill(item) for key, item in value.items()}
        return value

    def plain(self, value: Any) -> Any:
        """A recorded text with only the literals replaced; placeholders stay."""
        if isinstance(value, str):
            return self.literal(value)
        if isinstance(value, list):
            return [self.plain(item) for item in value]
        if isinstance(value, dict):
            return {key: self.plain(item) for key, item in value.items()}
        return value


def _unquote_outside(text: str) -> str:
    return re.sub(r"%([0-9A-Fa-f]{2})", lambda match: chr(int(match[1], 16)), text)
