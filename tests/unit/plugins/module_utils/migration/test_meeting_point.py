# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the target listens, and which transports that makes possible."""

from __future__ import annotations

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import SpecInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.meeting_point import (
    MeetingPoint,
    available,
    is_key,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.policy import Rejection

POINT = {
    "migration_id": "ab" * 16,
    "address": "2001:db8::2",
    "port": 60100,
    "peer_name": "b1.example.com",
    "own_name": "a1.example.com",
    "planes": ["tls", "tcp"],
    "domain": "lab",
}


def codes(point, *, has_key=True, bad=None):
    found = available(MeetingPoint.parse(point), has_key, lambda _domain: bad)
    return {name: why and why.code for name, why in found.items()}


def test_nothing_listens_nothing_direct_is_possible():
    assert codes(None) == {"websocket": None, "tls": "INCOMING_ABSENT", "tcp": "INCOMING_ABSENT"}


def test_everything_is_there():
    assert codes(POINT) == {"websocket": None, "tls": None, "tcp": None}


@pytest.mark.parametrize(
    ("changes", "other", "expected"),
    [
        ({"planes": ["tls"]}, {}, {"tls": None, "tcp": "INCOMING_REFUSES"}),
        ({"planes": ["tcp"]}, {}, {"tls": "INCOMING_REFUSES", "tcp": None}),
        ({}, {"has_key": False}, {"tls": None, "tcp": "KEY_ABSENT"}),
        ({}, {"bad": Rejection("CREDENTIALS_UNUSABLE", "expired")}, {"tls": "CREDENTIALS_UNUSABLE", "tcp": None}),
        ({"rejected": {"tcp": {"code": "NO_PROOF", "reason": "x"}}}, {}, {"tls": None, "tcp": "NO_PROOF"}),
    ],
    ids=["no tcp", "no tls", "no key", "bad certificate", "controller knows"],
)  # fmt: skip
def test_what_is_missing_is_named(changes, other, expected):
    assert codes({**POINT, **changes}, **other) == {"websocket": None, **expected}


def test_the_controller_may_know_of_any_transport():
    rejected = {"qemu-tls": {"code": "X", "reason": "y"}}
    assert codes({**POINT, "rejected": rejected})["qemu-tls"] == "X"


def test_json_form_says_the_same():
    point = MeetingPoint.parse({**POINT, "limits": {"deadman": 3}, "rejected": {"tcp": {"code": "A", "reason": "b"}}})
    assert MeetingPoint.parse(point.to_dict()) == point


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("migration_id", "AB" * 16),
        ("migration_id", None),
        ("address", "b1.example.com"),
        ("address", None),
        ("port", 0),
        ("port", 65536),
        ("port", True),
        ("peer_name", "b 1"),
        ("own_name", None),
        ("domain", "../lab"),
        ("own_address", "x"),
        ("planes", ["udp"]),
        ("rejected", {"tcp": "no"}),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_by_name(option, value):
    with pytest.raises(SpecInvalid, match=rf"incoming\.{option}"):
        MeetingPoint.parse({**POINT, option: value})


def test_key_has_256_bits():
    assert is_key("0a" * 32)
    assert not any(is_key(text) for text in ("0a" * 31, "0A" * 32, None, "0a" * 32 + "\n"))
