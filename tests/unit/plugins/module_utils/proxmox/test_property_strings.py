# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, property strings and sizes of a VM config."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox import property_strings as strings
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import ConfigInvalid

WORDS = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=",="), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("key", "parts"),
    [("net0", ("net", 0)), ("scsi30", ("scsi", 30)), ("cores", ("cores", None)), ("smbios1", ("smbios1", None)),
     ("efidisk0", ("efidisk", 0)), ("numa", ("numa", None))],
)  # fmt: skip
def test_split_key(key, parts):
    assert strings.split_key(key) == parts


@given(st.dictionaries(WORDS, VALUES, min_size=1, max_size=6))
def test_properties_round_trip(properties):
    text = strings.format_properties(properties, "file")
    assert strings.parse_properties(text, "file", "scsi0") == properties


def test_properties_take_first_value_without_key():
    assert strings.parse_properties("local:1,size=1G", "file", "scsi0") == {"file": "local:1", "size": "1G"}


def test_properties_keep_equal_signs_in_values():
    assert strings.parse_properties("a=b==", "x", "scsi0") == {"a": "b=="}


@pytest.mark.parametrize("text", ["", "a,b", "a=1,a=2", "x,", ",x", "file,file=y"], ids=repr)
def test_properties_refuse(text):
    with pytest.raises(ConfigInvalid):
        strings.parse_properties(text, "file", "scsi0")


@pytest.mark.parametrize(
    ("text", "size"),
    [("1G", 1 << 30), ("528K", 540672), ("4M", 4 << 20), ("1000", 1000), ("1.5T", 3 << 39), ("0", 0),
     ("1048577", 1048577)],
)  # fmt: skip
def test_size_in_bytes(text, size):
    assert strings.parse_size(text, "scsi0") == size


@given(st.integers(min_value=0, max_value=1 << 50))
def test_size_round_trip(size):
    assert strings.parse_size(strings.format_size(size), "scsi0") == size


@pytest.mark.parametrize("text", ["", "G", "-1", "1g", "1GB", "1 G", "1e9", "١G", "1.G", "9" * 30], ids=repr)
def test_size_refuses(text):
    with pytest.raises(ConfigInvalid):
        strings.parse_size(text, "scsi0")


@pytest.mark.parametrize(
    ("volid", "storage"),
    [("local:100/vm-100-disk-0.raw", "local"), ("none", ""), ("cdrom", ""), ("/dev/sda", ""), ("/a:b", ""),
     ("local:", "")],
)  # fmt: skip
def test_volume_storage(volid, storage):
    assert strings.volume_storage(volid) == storage
