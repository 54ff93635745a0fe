# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records that the lab's guest writes to its disks: is every acknowledged one there? The layout is worker.c's."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["HEADER", "RING_START", "SECTOR", "RecordCheck", "check_image", "check_region", "make_record", "read_region"]

RING_START = 1 << 20
SECTOR = 512
HEADER = struct.Struct("<8sII")
RECORD = struct.Struct("<4sIQQ")
MAGIC, HEADER_MAGIC = b"CCLR", b"CCLDISK1"
MOST_SLOTS = 1 << 16


@dataclass
class RecordCheck:
    """What was found: records looked at, and one text per record that is not as it must be."""

    checked: int = 0
    bad: list[str] = field(default_factory=list)
    disks: dict[int, int] = field(default_factory=dict)
    """Disk number to the highest sequence number found on it."""

    def add(self, other: RecordCheck) -> None:
        """Take another check's findings in."""
        self.checked += other.checked
        self.bad += other.bad
        self.disks.update(other.disks)


def make_record(disk: int, seq: int, monotonic_ms: int = 0) -> bytes:
    """A record as the guest writes it (for tests of the checker)."""
    body = RECORD.pack(MAGIC, disk, seq, monotonic_ms).ljust(SECTOR - 4, b"\x5a")
    return body + struct.pack("<I", zlib.crc32(body))


def check_region(region: bytes, acknowledged: dict[int, int], name: str = "image") -> RecordCheck:
    """Check the bytes from RING_START on against the highest acknowledged sequence number of each disk.

    Every slot that an acknowledged record went to must hold that record or a later one of the same slot, whole. Only
    the slot of the record that may just have been under way (the one after the highest acknowledged) may be anything.
    """
    if len(region) < SECTOR or region[:8] != HEADER_MAGIC:
        return RecordCheck(bad=["%s: no header of a recorder" % name])
    _, disk, slots = HEADER.unpack_from(region)
    if not 0 < slots <= MOST_SLOTS or len(region) < SECTOR * (slots + 1):
        return RecordCheck(bad=["%s: a ring of %d slots does not fit" % (name, slots)])
    found = RecordCheck(disks={disk: 0})
    highest = acknowledged.get(disk, 0)
    for slot in range(slots):
        record = region[SECTOR * (slot + 1) : SECTOR * (slot + 2)]
        _, owner, seq, _ = RECORD.unpack_from(record)
        whole = record[:4] == MAGIC and zlib.crc32(record[:-4]) == struct.unpack("<I", record[-4:])[0]
        if whole and owner == disk:
            found.disks[disk] = max(found.disks[disk], seq)
        expected = highest - (highest - slot) % slots  # the last acknowledged record of this slot
        if expected <= 0 or slot == (highest + 1) % slots:
            continue
        found.checked += 1
        if not whole or owner != disk or seq < expected or seq % slots != slot:
            found.bad.append(
                "%s: disk %d: slot %d must hold record %d, holds %s"
                % (name, disk, slot, expected, "record %d of disk %d" % (seq, owner) if whole else "no whole record")
            )
    return found


def read_region(path: Path | str, kind: str = "") -> bytes:
    """The ring's bytes of an image, which may be in use; kind is raw or qcow2, by default from the name."""
    kind = kind or ("qcow2" if str(path).endswith(".qcow2") else "raw")
    if kind == "raw":
        return _read_raw(path)
    with tempfile.TemporaryDirectory(prefix="records-") as name:
        region = os.path.join(name, "region")
        for mib in (1, 2 + MOST_SLOTS * SECTOR // RING_START):
            # qemu-img dd cuts a count that is longer than the image
            done = subprocess.run(
                [
                    "qemu-img",
                    "dd",
                    "-U",
                    "-f",
                    kind,
                    "-O",
                    "raw",
                    "bs=%d" % RING_START,
                    "skip=1",
                    "count=%d" % (mib + 1),
                    "if=%s" % path,
                    "of=" + region,
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise OSError("qemu-img: %s" % done.stderr.strip())
            data = Path(region).read_bytes()
            if data[:8] != HEADER_MAGIC or len(data) >= SECTOR * (HEADER.unpack_from(data)[2] + 1):
                return data
        return data


def _read_raw(path: Path | str) -> bytes:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)  # the writer goes past the page cache
        head = os.pread(handle, SECTOR, RING_START)
        if head[:8] != HEADER_MAGIC:
            return head
        slots = min(HEADER.unpack_from(head)[2], MOST_SLOTS)
        wanted, data = SECTOR * (slots + 1), b""
        while len(data) < wanted:
            more = os.pread(handle, wanted - len(data), RING_START + len(data))
            if not more:
                break
            data += more
        return data
    finally:
        os.close(handle)


def check_image(path: Path | str, acknowledged: dict[int, int], kind: str = "") -> RecordCheck:
    """Check one image. Take the acknowledged numbers before calling: the guest may go on writing."""
    return check_region(read_region(path, kind), acknowledged, str(path).rsplit("/", 1)[-1])
