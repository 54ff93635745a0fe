# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table that lets in one peer: its text, and where nft is at hand the kernel's own word on it."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.transport import firewall
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.firewall import Firewall, Rule
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.incoming_errors import FirewallMissing

ID = "5d0c6a9e3f7b41c8a2e4d96b1f08735c"
RULE = Rule(ID, "10.77.0.21", 60100, "10.77.0.11", "vmbr1")


def test_rule_names_address_port_peer_and_device():
    text = RULE.to_text()
    assert f"table inet crosscluster_{ID} {{" in text
    assert "ip daddr 10.77.0.21 tcp dport 60100 ip saddr != 10.77.0.11 counter name strangers drop" in text
    assert 'ip daddr 10.77.0.21 tcp dport 60100 iifname != "vmbr1" counter name other_devices drop' in text


def test_rule_for_ipv6_leaves_the_scope_out():
    text = Rule(ID, "fe80::21%vmbr1", 60100, "fe80::11%vmbr1", "vmbr1").to_text()
    assert "ip6 daddr fe80::21 tcp dport 60100 ip6 saddr != fe80::11 " in text


def test_rule_without_a_device_only_names_the_peer():
    assert "iifname" not in Rule(ID, "10.77.0.21", 60100, "10.77.0.11", None).to_text()


@pytest.mark.parametrize("device", ['x" accept; #', "a" * 16, "", "two words"])
def test_device_that_would_end_a_word_is_refused(device):
    with pytest.raises(ValueError, match="device"):
        Rule(ID, "10.77.0.21", 60100, "10.77.0.11", device).to_text()


def test_two_families_are_refused():
    with pytest.raises(ValueError, match="families"):
        Rule(ID, "10.77.0.21", 60100, "fd00::11", "vmbr1").to_text()


def test_node_without_nft_is_told(monkeypatch):
    def run(*_arguments, **_more):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(FirewallMissing, match="No such file"):
        Firewall().install(RULE)
    with pytest.raises(FirewallMissing):
        Firewall().check()
    assert Firewall().remove(ID)
    assert Firewall().counters(ID) == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nftables": [{"counter": {"name": "strangers"}}]}', "null"])
def test_answer_of_nft_that_is_none_has_no_counters(text):
    assert Firewall(lambda _arguments, _text: (0, text, "")).counters(ID) == {}


@pytest.mark.skipif(shutil.which("nft") is None or os.geteuid() != 0, reason="needs nft and root")
def test_real_nft_takes_the_rule_counts_and_lets_go_of_it():
    """In a network namespace of its own."""
    unshare = ["unshare", "--net"]
    if subprocess.run([*unshare, "nft", "list", "tables"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces here")
    holder = subprocess.Popen([*unshare, "sh", "-c", "ip link set lo up; echo up; cat"], stdin=-1, stdout=-1)
    assert holder.stdout.readline() == b"up\n"
    inside = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]

    def run(arguments, text):
        done = subprocess.run([*inside, "nft", *arguments], input=text, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def knock(source):
        script = f"import socket; socket.create_connection(('127.0.0.9', 60100), 0.3, ('{source}', 0))"
        return subprocess.run(
            [*inside, "python3", "-c", script], capture_output=True, text=True, check=False
        ).stderr.strip()

    try:
        wall = Firewall(run)
        wall.check()
        assert not wall.exists(ID)
        wall.install(Rule(ID, "127.0.0.9", 60100, "127.0.0.11", "lo"))
        wall.install(Rule(ID, "127.0.0.9", 60100, "127.0.0.11", "lo"))  # again: made anew
        assert wall.counters(ID) == {"strangers": 0, "other_devices": 0}
        assert knock("127.0.0.11").endswith("Connection refused")  # through; nobody listens
        assert knock("127.0.0.12").endswith("timed out")
        assert wall.counters(ID)["strangers"] >= 1
        wall.install(Rule(ID, "127.0.0.9", 60100, "127.0.0.11", "vmbr1"))
        assert knock("127.0.0.11").endswith("timed out")
        assert wall.counters(ID)["other_devices"] >= 1
        assert wall.remove(ID)
        assert not wall.exists(ID)
        assert knock("127.0.0.12").endswith("Connection refused")
        assert wall.remove(ID)
    finally:
        holder.stdin.close()
        holder.wait(5)


def test_table_of_a_migration_has_its_name():
    assert firewall.Rule.table.fget(RULE) == f"crosscluster_{ID}"
