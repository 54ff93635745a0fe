# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""IPsec states and policies."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.network import xfrm
from ansible_collections.crosscluster.migration.plugins.module_utils.network.errors import NetworkFactsInvalid

A, B = ipaddress.ip_address("10.5.0.1"), ipaddress.ip_address("10.5.0.2")
STATE = """src {0} dst {1}
\tproto esp spi 0x00000100 reqid 1 mode transport
\treplay-window 0
\taead rfc4106(gcm(aes)) <<Keys hidden>> 128
\tsel src 0.0.0.0/0 dst 0.0.0.0/0
"""
POLICY = """src {0}/32 dst {1}/32
\tdir {2} priority 0
\ttmpl src 0.0.0.0 dst 0.0.0.0
\t\tproto esp reqid 1 mode transport
"""
STATES = STATE.format(A, B) + STATE.format(B, A)
POLICIES = POLICY.format(A, B, "out") + POLICY.format(B, A, "in")


def protected(states=STATES, policies=POLICIES):
    return xfrm.is_protected(A, B, xfrm.parse_states(states), xfrm.parse_policies(policies))


def test_both_ways_with_state_and_policy_are_protected():
    assert protected()


@pytest.mark.parametrize(
    ("states", "policies"),
    [
        ("", POLICIES),
        (STATES, ""),
        (STATE.format(A, B), POLICIES),
        (STATES, POLICY.format(A, B, "out")),
        (STATES.replace("rfc4106(gcm(aes))", "x").replace("aead", "enc ecb(cipher_null)"), POLICIES),
        (STATES.replace("rfc4106(gcm(aes))", "rfc4543(gcm(aes))"), POLICIES),
        (STATES.replace("\treplay", "\tif_id 0x2a\n\treplay"), POLICIES),
        (
            STATES,
            POLICIES
            + POLICIES.replace("priority 0", "priority 0\n\tmark 0x1/0xffffffff").replace("proto esp", "proto ah"),
        ),
        (STATES, POLICIES.replace("\ttmpl", "\tmark 0x1/0xffffffff\n\ttmpl")),
        (STATES, POLICIES + "src 10.5.0.1/32 dst 10.5.0.2/32\n\tdir out priority 0\n\tif_id 0x2a\n"),
        (STATES, POLICIES.replace("mode transport", "mode transport\n\tif_id 0x2a")),
        (STATES.replace("proto esp", "proto ah"), POLICIES),
        (STATES, POLICIES.replace("proto esp", "proto ah")),
        (STATES, POLICIES + POLICY.format(A, B, "out").replace("mode transport", "mode transport\n\t\tlevel use")),
        (STATES, POLICIES + "src 0.0.0.0/0 dst 0.0.0.0/0\n\tdir out priority 0\n"),
        (STATES, POLICIES + "src 10.5.0.1/32 dst 10.5.0.2/32 proto tcp dport 60150\n\tdir out priority 0\n"),
        (STATES, POLICIES.replace("dst 10.5.0.2/32", "dst 10.5.0.2/32 proto tcp")),
        (STATES, POLICIES.replace("dir out", "dir out action block")),
    ],
)
def test_anything_less_is_not(states, policies):
    assert not protected(states, policies)


def test_policy_of_a_socket_does_not_count():
    assert protected(policies=POLICIES + "src 0.0.0.0/0 dst 0.0.0.0/0\n\tsocket in priority 0\n")


def test_no_key_is_kept():
    shown = STATES.replace("<<Keys hidden>>", "0x1122334455")
    assert "1122334455" not in repr(xfrm.parse_states(shown))


@pytest.mark.parametrize(
    "text", ["\tproto esp\n", "nonsense\n", "src x dst y\n\tproto esp spi 1 reqid 1 mode t\n\tenc a\n"]
)
def test_nonsense_is_refused(text):
    with pytest.raises(NetworkFactsInvalid):
        xfrm.parse_states(text)


@given(st.text(alphabet="srcdt p/.:0123456789\n\tesp", max_size=200))
def test_any_text_is_parsed_or_refused(text):
    for parse in (xfrm.parse_states, xfrm.parse_policies):
        try:
            parse(text)
        except NetworkFactsInvalid:
            pass
