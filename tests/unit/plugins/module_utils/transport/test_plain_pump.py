# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pump of clear-text streams between real sockets: who dials when, both directions, every way to end."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from unit.fakes.pump_runner import Runner

from ansible_collections.crosscluster.migration.plugins.module_utils.network import survey
from ansible_collections.crosscluster.migration.plugins.module_utils.network.routes import Way
from ansible_collections.crosscluster.migration.plugins.module_utils.transport import network_proof
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import (
    EndReason,
    EventName,
    Kind,
    PlainSettings,
)

GREETING = b"NBDMAGICIHAVEOPT\0\3"
SHUT = b"\0\1\0\4\0\0\0\0"  # the last word of QEMU's return path


@pytest.fixture
def short():
    """A directory whose path fits into a UNIX address."""
    path = Path(tempfile.mkdtemp(prefix="pump-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def target():
    """A listener of the target's QEMU."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(5)
        sock.settimeout(5)
        yield sock


def start(target, short, kind=Kind.RAM, clock=time.monotonic, **more):
    path = short / "stream.sock"
    port = target.getsockname()[1]
    return Runner(PlainSettings("stream", kind, "127.0.0.1", port, str(path), **more), "", clock), path


def attach(runner, path):
    runner.wait(EventName.LISTENING)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    client.connect(str(path))
    return client


def ram(target, short, **more):
    """QEMU's socket, the target's socket, the pump."""
    runner, path = start(target, short, **more)
    client = attach(runner, path)
    peer, _address = target.accept()
    peer.settimeout(5)
    return client, peer, runner


def nbd(target, short, **more):
    runner, path = start(target, short, Kind.NBD, **more)
    peer, _address = target.accept()
    peer.settimeout(5)
    peer.sendall(GREETING)
    client = attach(runner, path)
    assert client.recv(100) == GREETING
    return client, peer, runner


def test_nothing_touches_the_ram_port_before_qemu_has_come(target, short):
    """The first who comes to that port is the migration, or the end of the target's QEMU."""
    runner, path = start(target, short)
    runner.wait(EventName.LISTENING)
    target.settimeout(0.5)
    with pytest.raises(socket.timeout):
        target.accept()
    target.settimeout(5)
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    client.sendall(b"QEVM")
    peer, _address = target.accept()
    assert peer.recv(10) == b"QEVM"
    client.close()
    peer.close()
    runner.end()


def test_bulk_goes_unframed_and_the_last_words_come_back(target, short):
    client, peer, runner = ram(target, short)
    data = os.urandom(1 << 20) * 8
    writer = threading.Thread(target=client.sendall, args=(data,), daemon=True)
    writer.start()
    came = bytearray()
    while len(came) < len(data):
        came += peer.recv(1 << 20)
    assert bytes(came) == data
    peer.sendall(SHUT)
    peer.close()
    assert (client.recv(100), client.recv(100)) == (SHUT, b"")
    client.close()
    end = runner.end()
    assert (end["reason"], end["clean"], end["sent"], end["received"]) == ("server_closed", True, len(data), 8)


def test_disk_waits_for_the_greeting_and_ends_with_its_requests(target, short):
    client, peer, runner = nbd(target, short)
    client.sendall(b"\0\0\0\1")  # flags of the client
    assert peer.recv(10) == b"\0\0\0\1"
    client.close()
    assert peer.recv(10) == b""
    peer.close()
    assert runner.end()["reason"] == "local_eof"


def test_disk_server_that_does_not_greet_is_cut(target, short):
    runner, _path = start(target, short, Kind.NBD)
    _peer, _address = target.accept()
    assert runner.end()["reason"] == EndReason.GREETING_MISSING.value


def test_what_is_no_disk_server_is_cut(target, short):
    runner, _path = start(target, short, Kind.NBD)
    peer, _address = target.accept()
    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert runner.end()["reason"] == EndReason.NBD_INVALID.value


@pytest.mark.parametrize("kind", [Kind.RAM, Kind.NBD])
def test_listener_that_is_gone_is_told(target, short, kind):
    """A stranger came first: the target's QEMU has ended, and QEMU here must see the end at once."""
    port = target.getsockname()[1]
    target.close()
    path = short / "stream.sock"
    runner = Runner(PlainSettings("stream", kind, "127.0.0.1", port, str(path)), "")
    if kind is Kind.RAM:
        client = attach(runner, path)
        assert client.recv(1) == b""
    end = runner.end()
    assert (end["reason"], end["clean"]) == ("connect_failed", False)
    assert "refused" in end["detail"]


def test_reset_by_the_target_frees_qemu(target, short):
    client, peer, runner = ram(target, short)
    client.sendall(b"QEVM")
    peer.recv(10)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    assert client.recv(1) == b""
    end = runner.end()
    assert (end["reason"], end["clean"]) == ("server_lost", False)


def test_target_that_does_not_read_ram_is_cut(target, short):
    started = time.monotonic()
    client, _peer, runner = ram(target, short, clock=lambda: started + 8 * (time.monotonic() - started))
    client.setblocking(False)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            client.send(bytes(1 << 16))
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:
            break
    assert runner.end()["reason"] == EndReason.PEER_STALLED.value


def test_switchover_that_does_not_end_is_cut(target, short):
    client, peer, runner = ram(target, short)
    runner.command("arm", 0.3)
    before = time.monotonic()
    assert client.recv(1) == b""
    assert time.monotonic() - before < 3
    assert runner.end()["reason"] == EndReason.SWITCHOVER_DEADLINE.value
    peer.close()


def test_worker_that_is_gone_takes_its_stream_along(target, short):
    client, peer, runner = ram(target, short)
    runner.leave()
    assert client.recv(1) == b""
    assert runner.end()["reason"] == EndReason.PARENT_GONE.value
    peer.close()


def test_rate_is_kept(target, short):
    client, peer, runner = ram(target, short, rate=4 << 20)
    threading.Thread(target=client.sendall, args=(bytes(4 << 20),), daemon=True).start()
    before, came = time.monotonic(), 0
    while came < 4 << 20:
        came += len(peer.recv(1 << 20))
    assert time.monotonic() - before > 0.4
    client.close()
    peer.close()
    runner.end()


@pytest.mark.parametrize("kind", [Kind.RAM, Kind.NBD])
def test_way_that_is_not_the_proven_one_is_never_taken(target, short, kind):
    """No device of this node has that address: found before the target hears anything."""
    path = short / "stream.sock"
    port = target.getsockname()[1]
    runner = Runner(PlainSettings("stream", kind, "127.0.0.1", port, str(path), "192.0.2.77"), "")
    end = runner.end()
    assert end["reason"] == "connect_failed"
    assert "NETWORK_CHANGED" in end["detail"]
    target.settimeout(0.2)
    with pytest.raises(socket.timeout):
        target.accept()


def test_way_that_is_the_proven_one_is_taken_from_the_proven_address(target, short, monkeypatch):
    here = ipaddress.ip_address("127.0.0.1")
    way = Way(here, "lo", "", here, True)
    monkeypatch.setattr(network_proof, "device_with", lambda _address: "lo")
    monkeypatch.setattr(survey, "world", lambda: SimpleNamespace(way=lambda _peer: way))
    client, peer, runner = ram(target, short, local_address="127.0.0.1")
    client.close()
    peer.close()
    runner.end()
