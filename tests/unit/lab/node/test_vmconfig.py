# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's reader and writer of VM configs, against the texts of the recordings."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.node.base import Die
from lab.node.vmconfig import VmConfig, check_lock, decode_text, encode_text

FULL = """#%C3%BCbung
#second line
boot: order=scsi0
lock: migrate
memory: 192
parent: s1

[PENDING]
delete: onboot
memory: 256

[special:cloudinit]
name: x

[s1]
memory: 128
snaptime: 1
"""


def test_a_file_is_written_as_it_was_read() -> None:
    assert VmConfig.parse(100, FULL).format() == FULL


def test_sections_are_told_apart() -> None:
    config = VmConfig.parse(100, FULL)
    assert config.values["description"] == "übung\nsecond line"
    assert config.lock == "migrate"
    assert (config.pending, config.pending_delete) == ({"memory": "256"}, ["onboot"])
    assert config.snapshots == {"s1": {"memory": "128", "snaptime": "1"}}
    assert config.special == {"cloudinit": {"name": "x"}}
    assert config.digest == hashlib.sha1(FULL.encode()).hexdigest()


def test_description_line_and_option_mean_the_same() -> None:
    assert VmConfig.parse(1, "description: x\n").values == VmConfig.parse(1, "#x\n").values


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("garbage line\n", "vm 610 - unable to parse config: garbage line"),
        ("unknownkey: 1\n", "vm 610 - unable to parse value of 'unknownkey' - unknown setting 'unknownkey'"),
        (
            "memory: abc\n",
            "vm 610 - unable to parse value of 'memory' - format error\n"
            "current: type check ('integer') failed - got 'abc'",
        ),
        (
            "hookscript: x:snippets/y.pl\n",
            "vm 610 - unable to parse value of 'hookscript' - unable to parse volume ID 'x:snippets/y.pl'",
        ),
    ],
)
def test_strict_reading_refuses_with_the_recorded_texts(text: str, refusal: str) -> None:
    with pytest.raises(Die) as caught:
        VmConfig.parse(610, text, strict=True)
    assert caught.value.text == refusal


def test_numbers_and_texts_of_the_api() -> None:
    typed = VmConfig.parse(1, "cores: 1\nkvm: 0\nmemory: 192\ncpulimit: 1.5\nname: 100\n").typed()
    assert typed == {"cores": 1, "kvm": 0, "memory": "192", "cpulimit": 1.5, "name": "100"}


def test_booleans_are_normalised() -> None:
    assert VmConfig.parse(1, "onboot: yes\nkvm: off\n").values == {"onboot": "1", "kvm": "0"}


def test_a_lock_refuses_with_its_word() -> None:
    with pytest.raises(Die, match=r"VM is locked \(migrate\)"):
        check_lock(VmConfig.parse(1, "lock: migrate\n"))


@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=60))
def test_any_text_survives_a_description_line(text: str) -> None:
    encoded = encode_text(text)
    assert encoded.isascii()
    assert "\n" not in encoded
    assert ":" not in encoded
    assert decode_text(encoded) == text
