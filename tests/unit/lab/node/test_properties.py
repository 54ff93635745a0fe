# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Property strings and sizes of the lab's node library."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.node.base import Die
from lab.node.properties import (
    drive_keys,
    format_drive,
    format_size,
    is_drive,
    parse_drive,
    parse_list,
    parse_size,
    split_volid,
)

WORD = st.text("abcdefgh-:./0123456789", min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (1000, "1000"),
        (64, "64"),
        (1048577, "1048577"),
        (64 << 20, "64M"),
        (1 << 30, "1G"),
        (540672, "528K"),
        (1536 << 20, "1536M"),
    ],
)
def test_sizes_are_shown_as_proxmox_shows_them(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(min_value=0, max_value=1 << 50))
def test_a_shown_size_reads_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_options_of_a_drive_string_are_sorted_and_the_volume_comes_first() -> None:
    drive = {
        "ssd": "1",
        "file": "local:610/vm-610-disk-4.qcow2",
        "interface": "scsi",
        "index": "0",
        "iothread": True,
        "size": "64M",
    }
    assert format_drive(drive) == "local:610/vm-610-disk-4.qcow2,iothread=1,size=64M,ssd=1"


def test_volume_is_an_alias_of_file() -> None:
    assert parse_drive("volume=local:1/x.raw,size=1G") == {"file": "local:1/x.raw", "size": "1G"}
    with pytest.raises(ValueError, match="cannot set both 'volume' and its alias target 'file'"):
        parse_drive("local:1/x.raw,volume=y")


@given(
    WORD,
    st.dictionaries(st.text("abcdefgh", min_size=1, max_size=6).filter(lambda key: key != "file"), WORD, max_size=4),
)
def test_a_drive_string_reads_back(volume: str, options: "dict[str, str]") -> None:
    options = {key: value for key, value in options.items() if key not in ("index", "interface", "volume")}
    assert parse_drive(format_drive({"file": volume, **options})) == {"file": volume, **options}


def test_an_item_without_key_needs_a_default_key() -> None:
    assert parse_list("pc-q35-7.2+pve0,viommu=intel", "type") == {"type": "pc-q35-7.2+pve0", "viommu": "intel"}
    with pytest.raises(ValueError, match="value without key"):
        parse_list("a,b", "type")


def test_drive_keys_and_their_order() -> None:
    assert is_drive("scsi30")
    assert is_drive("virtio15")
    assert is_drive("efidisk0")
    assert not is_drive("scsi31")
    assert not is_drive("unused0")
    assert not is_drive("net0")
    assert drive_keys({"scsi10": "", "scsi2": "", "virtio0": "", "ide2": "", "name": ""}) == [
        "ide2",
        "scsi2",
        "scsi10",
        "virtio0",
    ]


def test_volume_ids() -> None:
    assert split_volid("local:100/vm-100-disk-0.raw") == ("local", "100/vm-100-disk-0.raw")
    with pytest.raises(Die, match=r"unable to parse volume ID 'x:snippets/y\.pl'"):
        split_volid("x:snippets/y.pl")
