# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Property strings (drives, NICs, machine, ...) and volume ids, read and written as Proxmox does."""

from __future__ import annotations

import re
from typing import Dict, Mapping, Optional

from .base import Die

__all__ = [
    "drive_keys",
    "format_drive",
    "format_size",
    "is_drive",
    "parse_drive",
    "parse_list",
    "parse_size",
    "split_volid",
]

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
DRIVE = re.compile(r"(?:ide[0-3]|sata[0-5]|scsi(?:[0-9]|[12][0-9]|30)|virtio(?:[0-9]|1[0-5])|efidisk0|tpmstate0)")
VOLID = re.compile(r"([A-Za-z][A-Za-z0-9\-_.]*[A-Za-z0-9]):(.+)")


def is_drive(key: str) -> bool:
    """Whether a config key names a drive (unusedN is none)."""
    return DRIVE.fullmatch(key) is not None


def drive_keys(values: Mapping[str, str]) -> "list[str]":
    """The drive keys of a config, in the order Proxmox iterates them: ide, efidisk, scsi, virtio, sata, tpmstate."""
    order = ("ide", "efidisk", "scsi", "virtio", "sata", "tpmstate")

    def rank(key: str) -> "tuple[int, int]":
        kind = re.sub(r"\d+$", "", key)
        return order.index(kind), int(key[len(kind) :])

    return sorted((key for key in values if is_drive(key)), key=rank)


def parse_list(text: str, default_key: Optional[str] = None) -> Dict[str, str]:
    """A property string as an ordered mapping; the one item without "=" goes to default_key."""
    found: Dict[str, str] = {}
    for part in text.split(","):
        if not part:
            continue
        key, sign, value = part.partition("=")
        if not sign:
            if default_key is None or default_key in found:
                raise ValueError("value without key, but schema does not define a default key")
            found[default_key] = part
        elif key in found:
            raise ValueError(f"duplicate key in comma-separated list property: {key}")
        else:
            found[key] = value
    return found


def parse_drive(text: str) -> Dict[str, str]:
    """A drive string; the volume is under "file", "volume" is its alias."""
    drive = parse_list(text, "file")
    if "volume" in drive:
        if "file" in drive:
            raise ValueError("cannot set both 'volume' and its alias target 'file'")
        drive = {"file": drive.pop("volume"), **drive}
    return drive


def format_drive(drive: Mapping[str, object]) -> str:
    """The drive string with the volume first, options sorted, booleans as 0/1."""
    options = sorted((key, value) for key, value in drive.items() if key not in ("file", "interface", "index"))
    words = [str(drive["file"])] if "file" in drive else []
    for key, value in options:
        words.append(f"{key}={_plain(value)}")
    return ",".join(words)


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(value)


def parse_size(text: str) -> int:
    """A size of a property string ("4G", "528K", bytes without unit), in bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT])?", text)
    if not match:
        raise ValueError("value does not look like a valid disk size")
    return int(float(match[1]) * UNITS[match[2] or ""])


def format_size(size: int) -> str:
    """Bytes in the largest unit that divides them exactly; 1000 stays 1000."""
    for unit in ("T", "G", "M", "K"):
        if size and size % UNITS[unit] == 0:
            return f"{size // UNITS[unit]}{unit}"
    return str(size)


def split_volid(volid: str) -> "tuple[str, str]":
    """Storage id and volume name."""
    match = VOLID.fullmatch(volid)
    if not match:
        raise Die(f"unable to parse volume ID '{volid}'")
    return match[1], match[2]
