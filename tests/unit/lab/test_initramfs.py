# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The packer of the guest's initramfs."""

from __future__ import annotations

import gzip
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.guest import initramfs


def unpack(archive: bytes) -> list[tuple[str, int, bytes]]:
    """Read cpio newc back."""
    data, at, found = gzip.decompress(archive), 0, []
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * number : at + 14 + 8 * number], 16) for number in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        at += 110 + name_size + -(110 + name_size) % 4
        if name == "TRAILER!!!":
            return found
        found.append((name, mode, data[at : at + size]))
        at += size + -size % 4


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9/_-]{0,30}", fullmatch=True), st.binary(max_size=300)))
def test_what_is_packed_is_unpacked(files: dict[str, bytes]) -> None:
    archive = initramfs.pack(initramfs.file(name, data, 0o755) for name, data in files.items())
    assert unpack(archive) == [(name, stat.S_IFREG | 0o755, data) for name, data in files.items()]


def test_equal_entries_give_equal_bytes() -> None:
    entries = [initramfs.directory("dev"), initramfs.device("dev/console", 5, 1)]
    assert initramfs.pack(entries) == initramfs.pack(entries)
    assert [mode for _, mode, _ in unpack(initramfs.pack(entries))] == [stat.S_IFDIR | 0o755, stat.S_IFCHR | 0o600]


def module(depends: str) -> bytes:
    return b"\x7fELF junk\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"


def test_modules_are_loaded_after_what_they_depend_on() -> None:
    files = {
        "virtio_blk": module("virtio,virtio_ring"),
        "virtio": module("virtio-ring"),
        "virtio_ring": module(""),
        "button": module(""),
    }

    def read(name: str) -> bytes | None:
        return files[name] if name != "evdev" else None

    wanted = ["virtio_blk", "evdev", "no_such", "button", "virtio"]
    assert [name for name, _ in initramfs.module_order(wanted, read)] == [
        "virtio_ring",
        "virtio",
        "virtio_blk",
        "button",
    ]


def test_a_value_of_modinfo_ends_at_its_zero() -> None:
    assert initramfs.modinfo(module("a,b"), "depends") == "a,b"
    assert initramfs.modinfo(module("a"), "alias") == ""


def test_unknown_compression_is_refused() -> None:
    with pytest.raises(ValueError, match="uncompress"):
        initramfs.plain_module("x.ko.zst", b"")
