# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The small languages inside a VM config: keys with an index, property strings, sizes, volume ids."""

from __future__ import annotations

import re
from typing import Dict, Mapping, NoReturn, Optional, Tuple

from ..errors import Side
from .errors import ConfigInvalid, printable

__all__ = [
    "Properties",
    "config_invalid",
    "format_properties",
    "format_size",
    "parse_properties",
    "parse_size",
    "split_key",
    "volume_storage",
]

_SIZE = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?([KMGT])?", re.ASCII)
_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

Properties = Dict[str, str]


def config_invalid(message: str, object: str) -> NoReturn:
    """Raise ConfigInvalid for a key of the source's config."""
    raise ConfigInvalid(message, side=Side.SOURCE, object=object)


def split_key(key: str) -> Tuple[str, Optional[int]]:
    """``net0`` to ``("net", 0)``, ``cores`` to ``("cores", None)``, ``smbios1`` stays whole."""
    if key == "smbios1":
        return key, None
    found = re.fullmatch(r"(.*?)([0-9]+)", key, re.ASCII)
    return (found.group(1), int(found.group(2))) if found else (key, None)


def parse_properties(text: str, default_key: str, where: str) -> Properties:
    """A property string, in its order; the first member may stand without its key. A key twice is refused."""
    found: Properties = {}
    for position, part in enumerate(text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            if position or not part:
                config_invalid(f"'{where}' has a part without a key: {printable(part, 60)!r}", where)
            key, value = default_key, part
        if key in found:
            config_invalid(f"'{where}' has '{printable(key, 40)}' twice", where)
        found[key] = value
    return found


def format_properties(properties: Mapping[str, str], default_key: str) -> str:
    """A property string in the given order; ``default_key`` stands without its key when it is first."""
    parts = []
    for position, (key, value) in enumerate(properties.items()):
        parts.append(value if key == default_key and position == 0 else f"{key}={value}")
    return ",".join(parts)


def parse_size(text: str, where: str) -> int:
    """Bytes of ``32G``, ``528K``, ``1.5T`` or a bare number of bytes."""
    found = _SIZE.fullmatch(text)
    if not found:
        config_invalid(f"'{where}' has a size that is none: {printable(text, 40)!r}", where)
    whole, fraction, unit = found.group(1), found.group(2) or "", found.group(3) or ""
    # In integers: a size must not lose a byte to rounding.
    scaled = int(whole + fraction) * _FACTORS[unit]
    divisor: int = 10 ** len(fraction)
    return scaled // divisor


def format_size(size: int) -> str:
    """Shortest exact spelling of a number of bytes, as Proxmox VE writes it."""
    for unit in ("T", "G", "M", "K"):
        if size and size % _FACTORS[unit] == 0:
            return f"{size // _FACTORS[unit]}{unit}"
    return str(size)


def volume_storage(volid: str) -> str:
    """Storage of a volume id; empty when it is none (``none``, ``cdrom``, a path)."""
    storage, colon, rest = volid.partition(":")
    return storage if colon and rest and re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]", storage, re.ASCII) else ""
