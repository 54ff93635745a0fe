# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The responder on the loopback: answers the peer that has the key, tells what it saw, ends."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import socket
import threading
import time
from dataclasses import replace

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.network import probe, responder
from ansible_collections.crosscluster.migration.plugins.module_utils.network.errors import (
    NetworkInvalid,
    ResponderFailed,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.network.exchange import echo_key, echo_packet
from ansible_collections.crosscluster.migration.plugins.module_utils.network.probe import Completed, Pair
from ansible_collections.crosscluster.migration.plugins.module_utils.network.responder import Responder, Settings

LOOPBACK = ipaddress.ip_address("127.0.0.1")
KEY = bytes(32)
PAIR = Pair("a", "b", LOOPBACK, LOOPBACK, 0, KEY)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Nft:
    """Notes what it is told; lists one table of a responder that was killed."""

    def __init__(self):
        self.told = []

    def __call__(self, argv, stdin):
        self.told.append((" ".join(argv), stdin))
        listed = "table inet crosscluster_probe_" + "0" * 32 if argv[1:3] == ["list", "tables"] else ""
        return Completed(0, listed, "")


@pytest.fixture
def settings():
    return Settings(
        responder_id=secrets.token_hex(16), own_name="b", peer_name="a", own=LOOPBACK, peer=LOOPBACK, interface="lo",
        ports=(free_port(),), lifetime=30, key=KEY, with_filter=False,
    )  # fmt: skip


@pytest.fixture
def running(settings):
    """One that serves in a thread until it is asked for its report."""
    one = Responder(settings, Nft())
    port = one.open()
    thread = threading.Thread(target=one.serve)
    thread.start()
    yield one, replace(PAIR, port=port)
    responder.collect(settings.responder_id)
    thread.join(10)
    one.close()


def test_peer_is_answered_and_packets_come_back(running, settings):
    _one, pair = running
    talk = probe.converse(pair)
    assert (talk.problem, talk.proven, talk.seen, talk.answered) == ("", True, talk.local, talk.remote)
    sizes, quality = probe.echo(pair, 1500)
    assert sizes.largest == 1500
    assert quality.returned == quality.sent
    report = responder.collect(settings.responder_id)
    assert report["proven"] == 1
    assert report["strangers"] == []


def test_who_has_not_the_key_gets_no_proof_and_no_packet(running):
    _one, pair = running
    stranger = replace(pair, key=bytes([1]) * 32)
    assert not probe.converse(stranger).proven
    assert probe.echo(stranger, 1500)[0] is None


def test_garbage_ends_the_connection_and_nothing_else(running, settings):
    _one, pair = running
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"x" * 5000, b"[]\n", b""):
        with socket.create_connection(("127.0.0.1", pair.port), 5) as sock:
            sock.settimeout(5)
            # It may have hung up before any of these; what it must not do is answer.
            with contextlib.suppress(OSError):
                sock.sendall(garbage)
                sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                assert sock.recv(100) == b""
    assert probe.converse(pair).proven
    assert responder.collect(settings.responder_id)["proven"] == 1


def test_packet_of_another_address_is_not_echoed(settings):
    one = Responder(replace(settings, peer=ipaddress.ip_address("127.0.0.2")), Nft())
    port = one.open()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(echo_packet(echo_key(KEY, "a", "b"), 1, 5, 100), ("127.0.0.1", port))
            one._ends = time.monotonic() + 0.3
            one.serve()
        assert one.echoes == 0
    finally:
        one.close()


def test_filter_stands_before_the_port_opens_and_goes_with_it(settings):
    nft = Nft()
    one = Responder(replace(settings, with_filter=True), nft)
    port = one.open()
    rules = next(text for command, text in nft.told if command == "nft -f -")
    assert f"th dport {port} ip daddr 127.0.0.1" in rules
    assert "elements = { 127.0.0.1 timeout 60s }" in rules
    assert ("nft delete table inet crosscluster_probe_" + "0" * 32, "") in nft.told
    one.close()
    one.close()
    assert [command for command, _text in nft.told].count(
        f"nft delete table inet crosscluster_probe_{settings.responder_id}"
    ) == 1


def test_leftover_of_one_that_lives_is_kept(settings):
    nft = Nft()
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind("\0crosscluster-probe-" + "0" * 32)
        one = Responder(replace(settings, with_filter=True), nft)
        one.open()
        one.close()
    assert ("nft delete table inet crosscluster_probe_" + "0" * 32, "") not in nft.told


def test_next_port_is_taken_when_one_is_in_use(settings):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        busy = taken.getsockname()[1]
        one = Responder(replace(settings, ports=(busy, settings.ports[0])), Nft())
        assert one.open() == settings.ports[0]
        one.close()
        with pytest.raises(ResponderFailed):
            Responder(replace(settings, ports=(busy,), responder_id="1" * 32), Nft()).open()


def test_time_that_is_over_ends_it(settings):
    now = [0.0]
    one = Responder(settings, Nft(), lambda: now[0])
    one.open()
    now[0] = settings.lifetime + 1.0
    one.serve()
    one.close()


def test_report_of_one_that_is_gone_is_none():
    assert responder.collect("f" * 32) is None


def test_start_leaves_a_process_that_ends_when_asked(settings):
    port = responder.start(settings, probe.run_command)
    assert probe.converse(replace(PAIR, port=port)).proven
    assert responder.collect(settings.responder_id)["proven"] == 1
    assert responder.collect(settings.responder_id) is None


def test_start_tells_why_it_did_not_come_up(settings):
    with pytest.raises(ResponderFailed, match="no port"):
        responder.start(replace(settings, ports=()), probe.run_command)


def test_key_does_not_show(settings):
    assert "key" not in repr(settings)


@pytest.mark.parametrize("text", [None, "", "A" * 32, "0" * 31, "0" * 32 + "\n", "../" + "0" * 29])
def test_id_that_is_none_is_refused(text):
    with pytest.raises(NetworkInvalid):
        responder.parse_id(text)
