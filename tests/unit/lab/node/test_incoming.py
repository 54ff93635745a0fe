# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports and addresses of the plain TCP plane."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.node import incoming
from lab.node.base import Die, Node
from lab.node.incoming import Incoming, next_port, ram_uri


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(root=str(tmp_path), name="beta1")


def test_ports_are_kept_for_a_while(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "_bindable", lambda where, port: port != 60001)
    assert [next_port(node, "192.0.2.2") for _ in range(3)] == [60000, 60002, 60003]
    (node.path("/var/tmp/pve-reserved-ports")).write_text("60000 1\n60002 99999999999\n", encoding="ascii")
    assert [next_port(node, "192.0.2.2") for _ in range(2)] == [60000, 60003]


def test_no_port_left(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "_bindable", lambda where, port: False)
    with pytest.raises(Die, match="unable to find free port"):
        next_port(node, "192.0.2.2")


def test_ram_by_tcp_is_deferred_and_by_socket_it_is_not(node: Node) -> None:
    assert ram_uri(node, 700, Incoming(ram_by_tcp=True, plain=True)) == "defer"
    assert ram_uri(node, 700, Incoming(plain=True)) == f"unix:{node.root}/run/qemu-server/700.migrate"


def test_only_the_patched_plane_looks_at_the_network() -> None:
    assert incoming.address(Incoming(network="203.0.113.0/24", node_address="192.0.2.2")) == "192.0.2.2"
    assert not Incoming(nbd_proto_version=1).nbd_by_tcp
    assert Incoming(nbd_proto_version=1, plain=True).nbd_by_tcp
    assert Incoming().nbd_by_tcp
