# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes: the table and the way to one address."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes.network_outputs import OWN, PEER, output

from ansible_collections.crosscluster.migration.plugins.module_utils.network import routes
from ansible_collections.crosscluster.migration.plugins.module_utils.network.errors import NetworkFactsInvalid

DIRECT = {"dst": "10.5.0.2", "dev": "mig", "prefsrc": "10.5.0.1", "flags": [], "uid": 0, "cache": []}


def test_table_has_what_leads_to_others():
    found = routes.parse_routes(
        output(
            {"dst": "default", "gateway": "192.0.2.1", "dev": "api"},
            {"dst": "10.5.0.0/24", "dev": "mig", "scope": "link"},
            {"type": "local", "dst": "10.5.0.1", "dev": "mig", "table": "local"},
            {"type": "unreachable", "dst": "10.9.0.0/16", "dev": "lo"},
            {"dst": "10.7.0.0/24", "nexthops": [{"gateway": "10.5.0.9", "dev": "mig"}, {"dev": "mig2"}]},
            {"dst": "10.8.0.1", "via": {"family": "inet6", "host": "fe80::1"}, "dev": "mig"},
        ),
        4,
    )
    assert [(str(one.destination), one.interfaces) for one in found] == [
        ("0.0.0.0/0", ("api",)),
        ("10.5.0.0/24", ("mig",)),
        ("10.7.0.0/24", ("mig", "mig2")),
        ("10.8.0.1/32", ("mig",)),
    ]


def test_default_of_ipv6_is_that_of_ipv6():
    assert str(routes.parse_routes(output({"dst": "default", "dev": "api"}), 6)[0].destination) == "::/0"


@pytest.mark.parametrize("dst", ["fd00::/64", "10.5.0.1/24", "x", None, 5])
def test_route_to_nowhere_is_refused(dst):
    with pytest.raises(NetworkFactsInvalid):
        routes.parse_routes(output({"dst": dst, "dev": "mig"}), 4)


def test_way_on_the_link_is_direct():
    assert routes.parse_way(output(DIRECT)) == routes.Way(PEER, "mig", "", OWN, True)


@pytest.mark.parametrize(
    "extra",
    [
        {"gateway": "10.5.0.254"}, {"via": {"family": "inet6", "host": "fe80::1"}}, {"type": "local"},
        {"type": "blackhole"}, {"encap": "mpls"},
    ],
)  # fmt: skip
def test_other_way_is_not_direct(extra):
    assert not routes.parse_way(output({**DIRECT, **extra})).direct


@pytest.mark.parametrize(
    "value", [[], [DIRECT, DIRECT], [{"dst": "x"}], [{**DIRECT, "prefsrc": "y"}], [{**DIRECT, "dev": "a/b"}], {}]
)
def test_answer_that_is_no_way_is_refused(value):
    with pytest.raises(NetworkFactsInvalid):
        routes.parse_way(json.dumps(value))


@given(st.text() | st.lists(st.dictionaries(st.sampled_from(["dst", "dev", "nexthops"]), st.text())).map(json.dumps))
def test_any_text_is_parsed_or_refused(text):
    for parse in (routes.parse_way, lambda one: routes.parse_routes(one, 4)):
        try:
            parse(text)
        except NetworkFactsInvalid:
            pass
