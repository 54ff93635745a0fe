# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge: which commands are run, and what becomes of their answers. The probes themselves: tests/topologies."""

from __future__ import annotations

import errno
import ipaddress
import socket

import pytest
from unit.fakes.network_outputs import OWN, PEER, link, narrowing, output

from ansible_collections.crosscluster.migration.plugins.module_utils.network import probe
from ansible_collections.crosscluster.migration.plugins.module_utils.network.errors import NetworkFactsInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.network.evidence import KnockOutcome
from ansible_collections.crosscluster.migration.plugins.module_utils.network.probe import Completed, Pair

LOOPBACK = ipaddress.ip_address("127.0.0.1")
OUTPUTS = {
    "ip -d -j addr show": output(link("mig", "", "10.5.0.1/24")),
    "ip -4 -j route show table all": output({"dst": "10.5.0.0/24", "dev": "mig"}),
    "ip -j neigh show": "[]",
    "bridge -j link show": "",
    "bridge -j fdb show": "",
    "nft -j list ruleset": narrowing(),
    "ip xfrm state list nokeys": "",
    "ip xfrm policy list": "",
    "ip -j route get 10.5.0.2": output({"dst": "10.5.0.2", "dev": "mig", "prefsrc": "10.5.0.1"}),
    "ip -j route get 10.5.0.2 from 10.5.0.1": output({"dst": "10.5.0.2", "from": "10.5.0.1", "dev": "mig"}),
    "ip -4 -j rule show": output({"priority": 0, "src": "all", "table": "local"}),
}


class Node:
    """Answers commands; those it does not know fail."""

    def __init__(self, *missing):
        self.outputs = {command: said for command, said in OUTPUTS.items() if command not in missing}
        self.asked = []

    def __call__(self, argv, stdin):
        self.asked.append(" ".join(argv))
        said = self.outputs.get(self.asked[-1])
        return Completed(0, said, "") if said is not None else Completed(1, "", "no such thing")


def test_facts_of_a_node_are_gathered():
    node = Node()
    facts = probe.gather(node, 4)
    assert [one.name for one in facts.links] == ["mig"]
    assert (facts.bridge_ports, len(facts.routes), facts.neighbours) == ({}, 1, ())
    assert facts.ruleset is not None
    assert "ip xfrm state list nokeys" in node.asked


def test_what_a_node_lacks_is_not_known():
    facts = probe.gather(Node("nft -j list ruleset", "bridge -j link show", "ip xfrm state list nokeys"), 4)
    assert (facts.ruleset, facts.bridge_ports, facts.protections) == (None, None, ())
    assert probe.gather(Node("bridge -j fdb show"), 4).bridge_ports is None


def test_node_without_iproute_is_refused():
    with pytest.raises(NetworkFactsInvalid, match="no such thing"):
        probe.gather(Node("ip -d -j addr show"), 4)


def test_way_and_filter_are_read_alone():
    assert probe.read_way(Node(), PEER).source == OWN
    assert probe.read_way(Node("ip -j route get 10.5.0.2"), PEER) is None
    assert probe.read_way(Node("ip -j route get 10.5.0.2 from 10.5.0.1"), PEER) is None
    assert probe.read_ruleset(Node("nft -j list ruleset")) is None


def test_way_is_that_of_the_address_that_is_sent_from():
    node = Node()
    elsewhere = {"dst": "10.5.0.2", "from": "10.5.0.1", "dev": "api", "gateway": "192.0.2.2", "table": "200"}
    node.outputs["ip -j route get 10.5.0.2 from 10.5.0.1"] = output(elsewhere)
    found = probe.read_way(node, PEER)
    assert (found.interface, found.gateway, found.direct) == ("api", "192.0.2.2", False)


def test_way_that_not_all_packets_take_says_so():
    node = Node()
    assert probe.read_way(node, PEER).unless == ""
    node.outputs["ip -4 -j rule show"] = output({"priority": 9, "src": "all", "dport": 60100, "table": "200"})
    node.outputs["ip -4 -j route show table all"] = output({"dst": "default", "dev": "api", "table": "200"})
    assert probe.read_way(node, PEER).unless == "rule 9 asks dport"


def test_node_that_does_not_tell_its_rules_is_refused():
    with pytest.raises(NetworkFactsInvalid, match="ip -4 -j rule show"):
        probe.read_way(Node("ip -4 -j rule show"), PEER)


def test_command_that_does_not_exist_is_no_traceback():
    assert probe.run_command(["/no/such/command"]).returncode == -1


def test_command_reads_what_it_is_given():
    assert probe.run_command(["cat"], "some words").stdout == "some words"


def test_key_does_not_show():
    pair = Pair("a", "b", OWN, PEER, 60150, b"k" * 32)
    assert "kkk" not in repr(pair)


def test_nobody_at_the_port_is_a_problem_not_an_error():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        pair = Pair("a", "b", LOOPBACK, LOOPBACK, sock.getsockname()[1], bytes(32))
        assert "refused" in probe.converse(pair).problem


def test_knock_tells_refused_from_connected():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert probe.knock(LOOPBACK, port) is KnockOutcome.REFUSED
        sock.listen(1)
        assert probe.knock(LOOPBACK, port) is KnockOutcome.CONNECTED


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (errno.EHOSTUNREACH, KnockOutcome.UNREACHABLE),
        (errno.ENETUNREACH, KnockOutcome.UNREACHABLE),
        (errno.ETIMEDOUT, KnockOutcome.SILENT),
        (errno.EPERM, KnockOutcome.NOT_SENT),
        (errno.EMFILE, KnockOutcome.NOT_SENT),
    ],
)
def test_knock_that_fails_on_its_own_side_proves_nothing(monkeypatch, number, outcome):
    class Broken(socket.socket):
        def connect(self, _address):
            raise OSError(number, "broken")

    monkeypatch.setattr(probe.socket, "socket", Broken)
    assert probe.knock(LOOPBACK, 1) is outcome


def test_interface_that_cannot_be_asked_is_a_problem():
    assert probe.ask_owners("nosuch0", "02:00:00:00:00:01", OWN, PEER).problem
