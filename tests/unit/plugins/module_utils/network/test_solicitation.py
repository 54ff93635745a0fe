# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions for the owner of an address, and their answers."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes.network_outputs import MAC, OWN, PEER, PEER_MAC

from ansible_collections.crosscluster.migration.plugins.module_utils.network import solicitation

OWN6, PEER6 = ipaddress.ip_address("fd00:5::1"), ipaddress.ip_address("fd00:5::2")


def arp_reply(address=PEER, mac=PEER_MAC):
    raw = bytes.fromhex(mac.replace(":", ""))
    body = b"\0\1\x08\0\6\4\0\2" + raw + address.packed + bytes(6) + OWN.packed
    return b"\xff" * 6 + raw + b"\x08\x06" + body


def advertisement(address=PEER6, mac=PEER_MAC, option=True, hops=255):
    raw = bytes.fromhex(mac.replace(":", ""))
    body = b"\x88\0\0\0\x60\0\0\0" + address.packed + (b"\2\1" + raw if option else b"")
    head = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes([58, hops]) + address.packed + OWN6.packed
    return b"\xff" * 6 + raw + b"\x86\xdd" + head + body


def test_arp_request_is_as_rfc_826_has_it():
    assert solicitation.question(PEER, MAC, OWN).hex() == (
        "ffffffffffff" "020000000501" "0806" "0001" "0800" "06" "04" "0001"
        "020000000501" "0a050001" "000000000000" "0a050002"
    )  # fmt: skip


def test_question_about_our_own_address_names_nobody():
    assert solicitation.question(OWN, MAC, None)[28:32] == bytes(4)
    frame = solicitation.question(OWN6, MAC, None)
    assert frame[22:38] == bytes(16)
    assert len(frame) == 14 + 40 + 24


def test_solicitation_has_the_group_and_the_checksum_of_rfc_4861():
    frame = solicitation.question(PEER6, MAC, OWN6)
    assert frame[:6].hex() == "3333ff000002"
    assert frame[38:54] == ipaddress.ip_address("ff02::1:ff00:2").packed
    body = frame[54:]
    words = frame[22:54] + len(body).to_bytes(4, "big") + (58).to_bytes(4, "big") + body
    total = sum(int.from_bytes(words[at : at + 2], "big") for at in range(0, len(words), 2))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF


def test_answers_are_read():
    assert solicitation.answer_of(arp_reply()) == (PEER, PEER_MAC)
    assert solicitation.answer_of(advertisement()) == (PEER6, PEER_MAC)
    assert solicitation.answer_of(advertisement(option=False)) == (PEER6, PEER_MAC)


@pytest.mark.parametrize(
    "frame", [b"", solicitation.question(PEER, MAC, OWN), advertisement(hops=64), arp_reply()[:30]]
)
def test_other_frames_are_none(frame):
    assert solicitation.answer_of(frame) is None


@given(st.binary(max_size=120))
def test_any_frame_is_read_or_none(frame):
    solicitation.answer_of(frame)
    solicitation.answer_of(frame[:12] + b"\x08\x06" + frame)
    solicitation.answer_of(frame[:12] + b"\x86\xdd" + frame)
