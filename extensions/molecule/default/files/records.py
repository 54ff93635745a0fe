# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends well when every write that the lab's guest was told to be safe is on its disks here: records.py VMID [SECONDS].

The guest numbers its records and writes them into a ring on each disk, wherever it runs just then. So the disk of a
guest that moved must hold all of the last numbers, those from before the move too, up to what it acknowledges now. The
layout: one sector with a header at 1 MiB, then the ring (tests/lab/guest/worker.c).
"""

import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib

START, SECTOR = 1 << 20, 512
LISTEN = 5.0  # seconds after the first acknowledgement, so that every disk is heard of


def acknowledged(vmid: int, timeout: float) -> dict:
    """Disk number to the highest record that the guest says is safe."""
    link = socket.socket(socket.AF_UNIX)
    link.connect("/run/qemu-server/%d.serial0" % vmid)
    link.settimeout(timeout)
    end, heard, found = time.monotonic() + timeout, b"", {}
    while time.monotonic() < end:
        heard += link.recv(4096) or sys.exit("the serial port closed")
        whole, _, heard = heard.rpartition(b"\n")
        for disk, number in re.findall(rb"^ACK (\d+) (\d+)\r?$", whole, re.MULTILINE):
            if not found:
                end = min(end, time.monotonic() + LISTEN)
            found[int(disk)] = max(found.get(int(disk), 0), int(number))
    return found


def images(vmid: int) -> list:
    """Path of every disk in the VM's configuration."""
    with open("/etc/pve/qemu-server/%d.conf" % vmid) as file:
        volumes = re.findall(r"^(?:scsi|virtio|sata|ide)\d+: ([^,\s]+)(?!.*media=cdrom)", file.read(), re.MULTILINE)
    return [subprocess.check_output(["pvesm", "path", volume], text=True).strip() for volume in volumes]


def ring(path: str) -> bytes:
    """Header and ring of an image that is in use."""
    with tempfile.TemporaryDirectory() as directory:
        raw = os.path.join(directory, "raw")
        if path.endswith(".qcow2"):
            subprocess.check_call(["qemu-img", "convert", "-U", "-O", "raw", path, raw])
        with open(raw if path.endswith(".qcow2") else path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # the writer goes past the page cache
            file.seek(START)
            head = file.read(SECTOR)
            return head + file.read(struct.unpack_from("<I", head, 12)[0] * SECTOR) if head[:8] == b"CCLDISK1" else b""


def check(data: bytes, highest: dict) -> tuple:
    """The disk's number, and of its last records how many are there and which are not."""
    disk, slots = struct.unpack_from("<II", data, 8)
    there = set()
    for slot in range(1, slots + 1):
        record = data[slot * SECTOR : (slot + 1) * SECTOR]
        if record[:4] == b"CCLR" and zlib.crc32(record[:-4]) == struct.unpack("<I", record[-4:])[0]:
            owner, number = struct.unpack_from("<IQ", record, 4)
            there.add(number if owner == disk else -1)
    last = max([highest.get(disk, 0), *there])
    # The one slot that the next record goes to may be anything.
    wanted = set(range(max(1, last - slots + 2), highest.get(disk, 0) + 1))
    return disk, len(wanted), sorted(wanted - there)


def main(vmid: int, timeout: float = 60.0) -> None:
    """Check every disk of the VM."""
    highest = acknowledged(vmid, timeout)
    if not highest:
        sys.exit("no acknowledged write was heard of in %.0f s" % timeout)
    seen = set()
    for path in images(vmid):
        data = ring(path)
        if not data:
            sys.exit("%s holds no records" % path)
        disk, count, missing = check(data, highest)
        print("%s: disk %d, %d records up to %d, missing %r" % (path, disk, count, highest.get(disk, 0), missing))
        if missing or not count or disk in seen:
            sys.exit("%s is not what the guest wrote" % path)
        seen.add(disk)
    if seen != set(highest):
        sys.exit("disks found: %r, acknowledged: %r" % (sorted(seen), highest))


if __name__ == "__main__":
    main(int(sys.argv[1]), *map(float, sys.argv[2:]))
