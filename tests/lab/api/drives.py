# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The `drive` object of the tunnel's `disk`: what its options may be, and the drive string (mtunnel-protocol 5.1).

The string is made after the volume was allocated: a refused option leaves the volume behind, and no list knows it.
Keys that no drive has pass through, as interface and index must; null is absent (mtunnel-protocol 4.2).
"""

from __future__ import annotations

import re
from typing import Any, Dict, Mapping

from lab.node.base import Die, ParamError
from lab.node.properties import format_drive

from .perl_json import scalar
from .schema import Field, boolean, check, enum, integer, string

__all__ = ["drive_string"]

LOCATION = " at /usr/share/perl5/PVE/JSONSchema.pm line 1."
BOOLEANS = (
    "backup",
    "detect_zeroes",
    "iothread",
    "pre-enrolled-keys",
    "replicate",
    "ro",
    "scsiblock",
    "shared",
    "snapshot",
    "ssd",
)
WORDS = {
    "aio": ("native", "threads", "io_uring"),
    "cache": ("none", "writethrough", "writeback", "unsafe", "directsync"),
    "discard": ("ignore", "on"),
    "efitype": ("2m", "4m"),
    "media": ("cdrom", "disk"),
    "rerror": ("ignore", "report", "stop"),
    "version": ("v1.2", "v2.0"),
    "werror": ("enospc", "ignore", "report", "stop"),
}
SIZE = re.compile(r"\d+(\.\d+)?[KMGT]?")
THROTTLE = re.compile(r"(?:mbps|iops|bps)(?:_rd|_wr)?(?:_max(?:_length)?)?")
FIELDS: Dict[str, Field] = {
    **{key: boolean(optional=True) for key in BOOLEANS},
    **{key: enum(*words, optional=True) for key, words in WORDS.items()},
    "queues": integer(optional=True, minimum=2),
    "serial": string(optional=True),
    "wwn": string(optional=True),
}


def _fields(drive: Mapping[str, Any]) -> Dict[str, Field]:
    kind = {True: "number", False: "integer"}
    throttles = {
        key: Field(kind[key.startswith("mbps") and not key.endswith("length")], optional=True)
        for key in drive
        if THROTTLE.fullmatch(key)
    }
    return {**FIELDS, **throttles}


def _errors(drive: Mapping[str, Any]) -> Dict[str, str]:
    errors: Dict[str, str] = {}
    if drive.get("volume") is not None and drive.get("file") is not None:
        errors["volume"] = "cannot set both 'volume' and its alias target 'file'"
    size = drive.get("size")
    if size is not None and not SIZE.fullmatch(scalar(size)):
        errors["size"] = "invalid format - value does not look like a valid disk size: %s\n" % scalar(size)
    try:
        check(_fields(drive), drive, True, True)
    except ParamError as error:
        errors.update(error.errors)
    return errors


def drive_string(drive: Mapping[str, Any], size: str) -> str:
    """The property string; Die where an option is not what it may be. ``size``: what stands for the given one."""
    errors = _errors(drive)
    if errors:
        raise Die("\n".join(["format error" + LOCATION, *("%s: %s" % item for item in sorted(errors.items()))]))
    shown = {key: scalar(value) for key, value in drive.items() if value is not None}
    for key, value in shown.items():
        if "," in value:
            raise Die("illegal value with commas for %s" % key)
    if "size" in shown:
        shown["size"] = size
    return format_drive(shown)
