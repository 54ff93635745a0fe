# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One address, one port out of a range, on loopback."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.transport import listener as listener_module
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.incoming_errors import (
    AddressAbsent,
    PortsTaken,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.listener import (
    Listener,
    device_with,
    devices_with,
)

HOME = "127.0.0.9"
PORTS = range(61830, 61840)


@pytest.fixture
def listener():
    with contextlib.closing(Listener(HOME, PORTS)) as made:
        yield made


def dial(port):
    return socket.create_connection((HOME, port), 2)


def test_nobody_gets_in_before_it_opens(listener):
    with pytest.raises(ConnectionRefusedError):
        dial(listener.port)
    assert listener.accept() is None


def test_connection_comes_with_the_address_of_the_peer(listener):
    listener.open()
    with dial(listener.port):
        connection, address = listener.accept()
        assert address.startswith("127.")
        assert not connection.getblocking()
        connection.close()


def test_shut_listener_keeps_its_port_and_can_open_again(listener):
    listener.open()
    listener.shut()
    listener.shut()
    with pytest.raises(ConnectionRefusedError):
        dial(listener.port)
    listener.open()
    with dial(listener.port):
        pass


def test_two_of_them_never_take_one_port_even_before_they_listen(listener):
    with contextlib.closing(Listener(HOME, PORTS)) as other:
        assert other.port != listener.port


def test_port_that_somebody_else_has_is_skipped():
    with contextlib.closing(socket.socket()) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((HOME, PORTS[0]))
        taken.listen(1)
        with contextlib.closing(Listener(HOME, PORTS)) as made:
            assert made.port in PORTS[1:]
        with pytest.raises(PortsTaken):
            Listener(HOME, PORTS[:1])


def test_address_of_another_node_is_an_error():
    with pytest.raises(AddressAbsent, match="does not have the address"):
        Listener("192.0.2.77", PORTS)


def test_ipv6_is_for_ipv6_only():
    try:
        made = Listener("::1", PORTS)
    except AddressAbsent:
        pytest.skip("no IPv6 here")
    with contextlib.closing(made):
        assert socket.socket(fileno=os.dup(made.fileno())).getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_listener_is_bound_to_the_device_of_its_address():
    assert device_with("127.0.0.1") == "lo"
    with contextlib.closing(Listener("127.0.0.1", PORTS, "lo")) as made:
        assert made.device == "lo"
        made.open()
        with socket.create_connection(("127.0.0.1", made.port), 2):
            pass


def test_address_of_another_node_is_on_no_device():
    assert devices_with("192.0.2.77") == []
    assert device_with("192.0.2.77") is None


def test_link_local_peer_comes_with_its_scope():
    assert listener_module._with_scope(("fe80::11", 40000, 0, socket.if_nametoindex("lo"))) == "fe80::11%lo"
    assert listener_module._with_scope(("fd00::11", 40000, 0, 0)) == "fd00::11"
    assert listener_module._with_scope(("10.77.0.11", 40000)) == "10.77.0.11"
