# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Checked reading of what ip, bridge and nft print as JSON; every failure names the command and the field.

Knows shapes and bounds. Does not know what a field means.
"""

from __future__ import annotations

import json
import re
from typing import Any, List, Mapping, Optional

from .errors import NetworkFactsInvalid

__all__ = ["ADDRESS_FAMILY", "entries", "invalid", "mapping", "name", "number", "optional_name", "parse_json", "words"]

MAX_OUTPUT = 16 * 1024 * 1024  # bytes; `ip -d -j addr` takes about 1.2 KiB per interface
MAX_ENTRIES = 20_000  # a node with a full routing table is none that moves guests over a private network
MAX_WORDS = 64
ADDRESS_FAMILY = {"inet": 4, "inet6": 6}
# The kernel refuses "/" and space in the name of an interface and has 15 characters for it; we refuse more.
_NAME = re.compile(r"[A-Za-z0-9_.:@+-]{1,15}", re.ASCII)
_WORD = re.compile(r"[\x21-\x7e]{1,64}", re.ASCII)


def parse_json(what: str, text: str) -> Any:
    """The value that ``text`` holds, else NETWORK_FACTS_INVALID."""
    if len(text) > MAX_OUTPUT:
        raise invalid(what, "length", len(text))
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise invalid(what, "output", text) from None


def entries(what: str, value: Any, limit: int = MAX_ENTRIES) -> List[Mapping[str, Any]]:
    """A list of objects without the empty ones, which ip(8) prints for what it filtered out."""
    if not isinstance(value, list) or len(value) > limit:
        raise invalid(what, "list", value)
    return [mapping(what, entry) for entry in value if entry != {}]


def mapping(what: str, value: Any) -> Mapping[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise invalid(what, "entry", value)
    return value


def name(what: str, raw: Mapping[str, Any], key: str) -> str:
    """The name of an interface."""
    value = raw.get(key)
    if not isinstance(value, str) or not _NAME.fullmatch(value) or value in (".", ".."):
        raise invalid(what, key, value)
    return value


def optional_name(what: str, raw: Mapping[str, Any], key: str) -> str:
    """The name of an interface, empty when there is none."""
    return name(what, raw, key) if raw.get(key) is not None else ""


def number(what: str, raw: Mapping[str, Any], key: str, low: int, high: int, default: Optional[int] = None) -> int:
    """An integer within bounds; an absent one is ``default`` when there is one."""
    value = raw.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise invalid(what, key, value)
    return value


def words(what: str, raw: Mapping[str, Any], key: str) -> List[str]:
    """A list of words such as flags; absent is empty."""
    value = raw.get(key, [])
    if not isinstance(value, list) or len(value) > MAX_WORDS:
        raise invalid(what, key, value)
    if not all(isinstance(word, str) and _WORD.fullmatch(word) for word in value):
        raise invalid(what, key, value)
    return [str(word) for word in value]


def invalid(what: str, field: str, value: Any) -> NetworkFactsInvalid:
    """The error for an output whose ``field`` is not what the command documents."""
    return NetworkFactsInvalid(
        f"'{what}' printed an unexpected {field}: {value!r:.80}",
        object=what,
        remedy="Run the command by hand on the node and compare.",
        facts={"field": field},
    )
