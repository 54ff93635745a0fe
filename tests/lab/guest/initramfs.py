# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packs the guest's initramfs: cpio "newc" without cpio, module order without kmod. Pure functions over bytes."""

from __future__ import annotations

import gzip
import lzma
import re
import stat
from collections.abc import Callable, Iterable

__all__ = ["MODULES", "device", "directory", "file", "modinfo", "module_order", "pack", "plain_module"]

MODULES = (
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "button",
    "evdev",
)
"""What a guest of the lab needs of the kernel, if it is not built in."""

CPIO_MAGIC = b"070701"


def _entry(name: str, mode: int, data: bytes = b"", rdev: tuple[int, int] = (0, 0), number: int = 0) -> bytes:
    path = name.encode("utf-8") + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(path), 0)
    head = CPIO_MAGIC + b"".join(b"%08X" % value for value in fields) + path
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def directory(name: str) -> tuple[str, int, bytes, tuple[int, int]]:
    """A directory of the archive."""
    return name, stat.S_IFDIR | 0o755, b"", (0, 0)


def file(name: str, data: bytes, mode: int = 0o644) -> tuple[str, int, bytes, tuple[int, int]]:
    """A plain file of the archive."""
    return name, stat.S_IFREG | mode, data, (0, 0)


def device(name: str, major: int, minor: int) -> tuple[str, int, bytes, tuple[int, int]]:
    """A character device; made by the kernel when it unpacks, so that nobody needs to be root here."""
    return name, stat.S_IFCHR | 0o600, b"", (major, minor)


def pack(entries: Iterable[tuple[str, int, bytes, tuple[int, int]]]) -> bytes:
    """The archive, compressed; equal entries give equal bytes."""
    body = b"".join(
        _entry(name, mode, data, rdev, number) for number, (name, mode, data, rdev) in enumerate(entries, 1)
    )
    return gzip.compress(body + _entry("TRAILER!!!", 0), compresslevel=3, mtime=0)


def plain_module(path: str, data: bytes) -> bytes:
    """A module uncompressed: newer kernels keep them as .ko.xz (the guest loads them with no help)."""
    if path.endswith(".xz"):
        return lzma.decompress(data)
    if path.endswith(".gz"):
        return gzip.decompress(data)
    if path.endswith(".ko"):
        return data
    raise ValueError("no way to uncompress %s" % path)


def modinfo(module: bytes, key: str) -> str:
    """One value of a module's .modinfo section, which is a row of key=value strings; "" if it has none."""
    found = re.search(b"(?:^|\0)" + re.escape(key.encode()) + b"=([^\0]*)\0", module)
    return found.group(1).decode("ascii") if found else ""


def module_order(wanted: Iterable[str], read: Callable[[str], bytes | None]) -> list[tuple[str, bytes]]:
    """Names and contents in the order they must be loaded. read gives a module's content, None if it is built in;
    it raises KeyError for one the kernel does not have, which drops a wanted one that nothing depends on."""
    order: dict[str, bytes] = {}

    def visit(name: str) -> None:
        if name in order:
            return
        data = read(name)
        if data is None:
            return
        for needed in filter(None, modinfo(data, "depends").split(",")):
            visit(needed.replace("-", "_"))
        order[name] = data

    for name in wanted:
        try:
            visit(name)
        except KeyError:
            continue
    return list(order.items())
