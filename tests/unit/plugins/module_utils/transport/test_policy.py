# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The choice of a transport: never one that was not listed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.transport import policy
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import NoTransportUsable
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.policy import Rejection

NAMES = st.sampled_from([*policy.NAMES, "carrier-pigeon"])
NO = Rejection("NETWORK_NOT_PROVEN", "the route leaves through eth0")


def test_first_usable_is_chosen_and_the_ones_before_are_told():
    choice = policy.choose(["tls", "websocket", "tcp"], {"tls": NO, "websocket": None, "tcp": None})
    assert choice.name == "websocket"
    assert choice.rejected_as_list() == [{"transport": "tls", "code": NO.code, "reason": NO.reason}]


def test_unknown_name_is_not_implemented():
    choice = policy.choose(["qemu-tls", "websocket"], {"websocket": None})
    assert choice.rejected[0][1].code == "TRANSPORT_NOT_IMPLEMENTED"


def test_nothing_usable_names_every_reason():
    with pytest.raises(NoTransportUsable, match="eth0") as caught:
        policy.choose(["tls", "tcp"], {"tls": NO, "websocket": None})
    assert [entry["transport"] for entry in caught.value.facts["rejected"]] == ["tls", "tcp"]


@given(st.lists(NAMES, max_size=6), st.dictionaries(NAMES, st.none() | st.just(NO)))
def test_choice_is_always_listed_and_usable(order, available):
    try:
        choice = policy.choose(order, available)
    except NoTransportUsable:
        assert not [name for name in order if available.get(name, NO) is None]
        return
    assert choice.name in order
    assert available[choice.name] is None
    assert [name for name, _why in choice.rejected] == order[: order.index(choice.name)]
