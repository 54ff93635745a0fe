# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Formats of option values: property strings with their members, names, addresses (mtunnel-protocol 9.3).

A refusal in a config that is read names the members alone; one of a parameter puts the option's name in front.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, Mapping, Optional, Sequence

from .texts import MISSING

__all__ = ["FormatError", "Member", "check_members"]

BOOLEANS = ("0", "1", "on", "off", "yes", "no", "true", "false")
NUMBERS = {"integer": r"[+-]?\d+", "number": r"[+-]?\d+(\.\d+)?"}


class FormatError(ValueError):
    """A value that its format refuses: one text, or one for each bad member."""

    def __init__(self, text: str, members: Optional[Mapping[str, str]] = None) -> None:
        super().__init__("\n".join([text, *(f"{key}: {value}" for key, value in (members or {}).items())]))
        self.text = text
        self.members = dict(members or {})

    def of_parameter(self, key: str) -> str:
        """The text of a bad parameter."""
        lines = [self.text, *(f"{key}.{name}: {text}" for name, text in self.members.items())]
        return "invalid format - " + "".join(line + "\n" for line in lines)


@dataclass(frozen=True)
class Member:
    """One member of a property string."""

    kind: str = "string"
    optional: bool = True
    minimum: Optional[float] = None
    maximum: Optional[float] = None
    words: Sequence[str] = ()
    pattern: str = ""

    def refusal(self, text: str) -> Optional[str]:
        """Why the member does not take the text."""
        if self.kind == "boolean" and text.lower() not in BOOLEANS:
            return f"type check ('boolean') failed - got '{text}'"
        if self.kind in NUMBERS:
            return self._number(text)
        if self.words and text not in self.words:
            return f"value '{text}' does not have a value in the enumeration '{', '.join(self.words)}'"
        if self.pattern and not re.fullmatch(self.pattern, text):
            return "value does not match the regex pattern"
        return None

    def _number(self, text: str) -> Optional[str]:
        if not re.fullmatch(NUMBERS[self.kind], text):
            return f"type check ('{self.kind}') failed - got '{text}'"
        if self.minimum is not None and float(text) < self.minimum:
            return f"value must have a minimum value of {self.minimum:g}"
        if self.maximum is not None and float(text) > self.maximum:
            return f"value must have a maximum value of {self.maximum:g}"
        return None


def check_members(
    text: str, known: Mapping[str, Member], default: Optional[str] = None, aliases: Optional[Mapping[str, str]] = None
) -> None:
    """Refuse a property string as the real parser does: first what cannot be split, then every bad member at once."""
    found = _split(text, known, default, aliases or {})
    errors: Dict[str, str] = {}
    for name, member in known.items():
        refused = member.refusal(found[name]) if name in found else None if member.optional else MISSING
        if refused:
            errors[name] = refused
    if errors:
        raise FormatError("format error", errors)


def _split(
    text: str, known: Mapping[str, Member], default: Optional[str], aliases: Mapping[str, str]
) -> Dict[str, str]:
    found: Dict[str, str] = {}
    for part in text.split(","):
        if not part.strip():
            continue
        key, sign, value = part.partition("=")
        if not sign:
            if default is None:
                raise FormatError("value without key, but schema does not define a default key")
            if default in found:
                raise FormatError(f"duplicate key in comma-separated list property: {default}")
            found[default] = part
            continue
        if not key or not value:
            raise FormatError("missing key in comma-separated list property")
        if key in found:
            raise FormatError(f"duplicate key in comma-separated list property: {key}")
        name = aliases.get(key, key)
        if name not in known:
            raise FormatError(f"invalid key in comma-separated list property: {key}")
        found[name] = value
    return found
