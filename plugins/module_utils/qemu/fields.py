# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Checked reading of one field of a QMP answer; every failure names field and value."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional

from ..errors import Side
from .errors import QmpInvalid

__all__ = ["invalid", "mapping", "number", "optional_number", "optional_text", "sequence", "text"]

MAX_TEXT = 500  # characters kept of QEMU's own words


def mapping(field: str, value: Any) -> Mapping[str, Any]:
    """``value`` as an object, else QMP_INVALID."""
    if not isinstance(value, dict):
        raise invalid(field, value)
    return value


def sequence(field: str, value: Any) -> List[Any]:
    """``value`` as a list, else QMP_INVALID."""
    if not isinstance(value, list):
        raise invalid(field, value)
    return value


def text(raw: Mapping[str, Any], key: str, default: Optional[str] = None) -> str:
    """A string, else QMP_INVALID; an absent one is ``default`` when there is one."""
    value = raw.get(key, default)
    if not isinstance(value, str):
        raise invalid(key, value)
    return value


def optional_text(raw: Mapping[str, Any], key: str) -> Optional[str]:
    """QEMU's own words, cut; None when absent."""
    value = raw.get(key)
    return None if value is None else str(value)[:MAX_TEXT]


def number(raw: Mapping[str, Any], key: str) -> int:
    """An integer >= 0 (absent: 0), else QMP_INVALID."""
    value = raw.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise invalid(key, value)
    return value


def optional_number(raw: Mapping[str, Any], key: str) -> Optional[int]:
    """An integer >= 0, None when absent, else QMP_INVALID."""
    return number(raw, key) if key in raw else None


def invalid(field: str, value: Any) -> QmpInvalid:
    """The error for an answer whose ``field`` is not what QEMU documents."""
    message = f"QEMU's answer has an unexpected {field}: {value!r:.80}"
    return QmpInvalid(message, side=Side.SOURCE, object="QEMU", facts={"field": field})
