# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pump against a double of the target's proxy: wire contract, both directions, every way to end."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

import pytest
from unit.fakes.proxy_double import ProxyDouble, make_certificate
from unit.fakes.pump_runner import Runner

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import (
    EndReason,
    EventName,
    Kind,
    PumpSettings,
)

SECRET = "12345678-90ab-cdef-1234-567890abcdef"
NBD_GREETING = b"NBDMAGICIHAVEOPT\0\3"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory whose path fits into a UNIX address."""
    import shutil
    import tempfile

    path = Path(tempfile.mkdtemp(prefix="pump-"))
    yield path
    shutil.rmtree(path)


def settings_for(double: ProxyDouble, certificate: Any, kind: Kind, **extra: Any) -> PumpSettings:
    endpoint = {
        "host": "127.0.0.1",
        "port": double.port,
        "node": "target",
        "user": "mig@pve",
        "token_id": "t1",
        "fingerprint": certificate[1],
        "ca_path": None,
        "validate_certs": True,
    }
    values: Dict[str, Any] = {"name": "stream", "kind": kind, "endpoint": endpoint, "path": "/api2/json/x?ticket=y"}
    return PumpSettings(**{**values, **extra})


def attach(runner: Runner, path: Path) -> socket.socket:
    runner.wait(EventName.LISTENING)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(10)
    client.connect(str(path))
    runner.wait(EventName.ATTACHED)
    return client


def start(certificate: Any, short: Path, kind: Kind = Kind.RAM, **double_options: Any) -> Any:
    double = ProxyDouble(certificate[0], **double_options)
    path = short / "stream.sock"
    return double, Runner(settings_for(double, certificate, kind, listen=str(path)), SECRET), path


def test_pump_keeps_the_wire_contract_for_bulk_data(certificate: Any, short: Path) -> None:
    double, runner, path = start(certificate, short)
    client = attach(runner, path)
    data = os.urandom(1 << 20) * 12
    client.sendall(data)
    client.close()
    end = runner.end()
    assert (end["reason"], end["clean"], end["sent"]) == ("local_eof", True, len(data))
    assert double.finished.wait(5)
    assert double.breaches == []
    assert bytes(double.data) == data
    assert double.close_status == 1000
    assert max(double.frames) <= 131072


def test_full_frames_fill_tls_records_exactly(certificate: Any, short: Path) -> None:
    double, runner, path = start(certificate, short)
    runner.wait(EventName.LISTENING)
    double.reads.clear()  # lets QEMU's side fill up, so that reads are full
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(path))
    data = bytes(8 << 20)
    client.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < len(data):
            sent += client.send(data[sent:])
    client.setblocking(True)
    double.reads.set()
    client.sendall(data[sent:])
    client.close()
    runner.end()
    assert double.finished.wait(5)
    full = [record for record in double.records if record == 16384 + 22]  # header 5, content type 1, tag 16
    assert len(full) >= 0.9 * len(data) / 16384


def test_socket_is_private_and_gone_after_the_one_connection(certificate: Any, short: Path) -> None:
    _double, runner, path = start(certificate, short)
    runner.wait(EventName.LISTENING)
    assert path.stat().st_mode & 0o777 == 0o600
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(path))
    runner.wait(EventName.ATTACHED)
    assert not path.exists()
    client.close()
    assert runner.end()["clean"]


def test_secret_travels_in_the_header_only(certificate: Any, short: Path) -> None:
    double, runner, path = start(certificate, short)
    attach(runner, path).close()
    runner.end()
    assert f"Authorization: PVEAPIToken=mig@pve!t1={SECRET}".encode() in double.request
    assert not any(SECRET in str(event) for event in runner.seen)


def test_last_words_of_the_target_reach_qemu_before_the_close(certificate: Any, short: Path) -> None:
    double, runner, path = start(certificate, short)
    client = attach(runner, path)
    client.sendall(b"ram")
    double.wait_for(3)
    double.send(b"\0\1\0\4\0\0\0\0")
    double.hang_up()
    assert client.recv(100, socket.MSG_WAITALL) == b"\0\1\0\4\0\0\0\0"
    assert runner.end()["reason"] == "server_closed"


def test_slow_qemu_gets_every_byte_in_order(certificate: Any, short: Path) -> None:
    double, runner, path = start(certificate, short)
    client = attach(runner, path)
    data = os.urandom(1 << 20) * 4
    threading.Thread(target=double.send, args=(data,), daemon=True).start()
    got = bytearray()
    while len(got) < len(data):
        got += client.recv(50000)
    assert bytes(got) == data
    client.close()
    assert runner.end()["received"] == len(data)


@pytest.mark.parametrize("how", ["hang_up", "reset"])
def test_qemu_sees_the_end_when_the_server_ends(certificate: Any, short: Path, how: str) -> None:
    double, runner, path = start(certificate, short)
    client = attach(runner, path)
    getattr(double, how)()
    assert client.recv(10) == b""
    assert runner.end()["clean"] is False


def test_frame_that_no_server_may_send_cuts(certificate: Any, short: Path) -> None:
    double, runner, path = start(certificate, short)
    client = attach(runner, path)
    double.raw(b"\x02\x01x")  # not final
    assert client.recv(10) == b""
    assert runner.end()["reason"] == "server_lost"


@pytest.mark.parametrize("how", ["cut", "leave"])
def test_worker_cuts_by_command_and_by_its_death(certificate: Any, short: Path, how: str) -> None:
    _double, runner, path = start(certificate, short)
    client = attach(runner, path)
    runner.command("cut") if how == "cut" else runner.leave()
    assert client.recv(10) == b""
    assert runner.end()["reason"] == {"cut": "cut", "leave": "parent_gone"}[how]


def test_refused_upgrade_is_told_with_its_status(certificate: Any, short: Path) -> None:
    _double, runner, _path = start(certificate, short, status="401 permission denied - invalid PVETUNNEL ticket")
    end = runner.end()
    assert end["reason"] == "connect_failed"
    assert "401" in end["detail"]


def test_wrong_fingerprint_sends_no_request(certificate: Any, short: Path) -> None:
    double = ProxyDouble(certificate[0])
    settings = settings_for(double, (certificate[0], "00" * 32), Kind.RAM, listen=str(short / "s"))
    assert runner_end(settings)["detail"].startswith("FINGERPRINT_MISMATCH")
    assert double.request == b""


def runner_end(settings: PumpSettings) -> Dict[str, Any]:
    return Runner(settings, SECRET).end()


def test_nbd_greeting_is_seen_before_qemu_may_connect(certificate: Any, short: Path) -> None:
    _double, runner, path = start(certificate, short, Kind.NBD, greeting=NBD_GREETING)
    client = attach(runner, path)
    assert client.recv(18, socket.MSG_WAITALL) == NBD_GREETING
    client.close()
    assert runner.end()["reason"] == "local_eof"


def test_nbd_server_that_does_not_greet_never_meets_qemu(certificate: Any, short: Path) -> None:
    _double, runner, path = start(certificate, short, Kind.NBD)
    began = time.monotonic()
    assert runner.end()["reason"] == "greeting_missing"
    assert time.monotonic() - began < 3
    assert not path.exists()
    assert not [event for event in runner.seen if event.name is EventName.LISTENING]


def test_switchover_deadline_frees_qemu(certificate: Any, short: Path) -> None:
    _double, runner, path = start(certificate, short)
    client = attach(runner, path)
    runner.command("arm", 0.3)
    assert client.recv(10) == b""
    assert runner.end()["reason"] == "switchover_deadline"


def import_pipe(double: ProxyDouble, certificate: Any, data: bytes, **extra: Any) -> Dict[str, Any]:
    reader, writer = os.pipe()
    runner = Runner(settings_for(double, certificate, Kind.IMPORT, input_fd=reader, **extra), SECRET)

    def feed() -> None:
        try:
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(data)
        except BrokenPipeError:
            pass

    threading.Thread(target=feed, daemon=True).start()
    return runner.end()


def sized(data: bytes, announced: Optional[int] = None) -> bytes:
    return (len(data) if announced is None else announced).to_bytes(8, "little") + data


def test_import_counts_its_bytes_against_the_header(certificate: Any) -> None:
    double = ProxyDouble(certificate[0])
    data = os.urandom(300000)
    end = import_pipe(double, certificate, sized(data))
    assert (end["reason"], end["clean"]) == ("local_eof", True)
    assert end["sent"] == end["announced"] == len(data) + 8
    double.finished.wait(5)
    assert bytes(double.data) == sized(data)
    assert double.close_status == 1000


def test_end_of_the_input_is_told_before_the_server_has_closed(certificate: Any) -> None:
    double = ProxyDouble(certificate[0])
    reader, writer = os.pipe()
    runner = Runner(settings_for(double, certificate, Kind.IMPORT, input_fd=reader, drain_timeout=5.0), SECRET)
    os.write(writer, sized(b"x" * 512))
    os.close(writer)
    assert runner.wait(EventName.DRAINING)["sent"] == 520
    assert not any(event.name is EventName.ENDED for event in runner.seen)
    assert runner.end()["clean"]


@pytest.mark.parametrize("announced", [299999, 300001, 2**40], ids=["more", "less", "far-less"])
def test_import_of_another_length_is_not_clean(certificate: Any, announced: int) -> None:
    double = ProxyDouble(certificate[0])
    end = import_pipe(double, certificate, sized(os.urandom(300000), announced))
    assert (end["reason"], end["clean"]) == ("length_differs", False)


def test_rate_is_kept_within_a_few_percent(certificate: Any, short: Path) -> None:
    double = ProxyDouble(certificate[0])
    path = short / "s"
    runner = Runner(settings_for(double, certificate, Kind.RAM, listen=str(path), rate=20_000_000), SECRET)
    client = attach(runner, path)
    began = time.monotonic()
    client.sendall(bytes(12_000_000))
    client.close()
    end = runner.end()
    assert end["sent"] == 12_000_000
    # A socket buffer and the burst are free of charge: at most 0.5 MB of the 12.
    assert 0.54 <= time.monotonic() - began <= 5.0


def test_statistics_say_what_was_acknowledged(certificate: Any, short: Path) -> None:
    _double, runner, path = start(certificate, short)
    client = attach(runner, path)
    client.sendall(bytes(100000))
    facts: Dict[str, Any] = {}
    while facts.get("acknowledged") != 100000:
        facts = runner.wait(EventName.STATS)
    assert facts["in_flight"] == 0
    client.close()
    runner.end()
    assert EndReason(runner.seen[-1].facts["reason"]) is EndReason.LOCAL_EOF


def ten_times() -> float:
    return time.monotonic() * 10


def start_fast(certificate: Any, short: Path, kind: Kind, **double_options: Any) -> Any:
    double = ProxyDouble(certificate[0], **double_options)
    path = short / "stream.sock"
    settings = settings_for(double, certificate, kind, listen=str(path), open_timeout=100.0)
    return double, Runner(settings, SECRET, ten_times), path


def test_silent_network_frees_qemu(certificate: Any, short: Path) -> None:
    double, runner, path = start_fast(certificate, short, Kind.RAM)
    client = attach(runner, path)
    double.answers_pings = False
    client.sendall(b"ram")
    began = time.monotonic()
    assert client.recv(10) == b""
    assert runner.end()["reason"] == "pong_missing"
    assert time.monotonic() - began < 2.0


def test_blocked_network_frees_qemu(certificate: Any, short: Path) -> None:
    """Not even the kernel takes our bytes any more, so no ping gets through either."""
    double, runner, path = start_fast(certificate, short, Kind.RAM)
    client = attach(runner, path)
    double.reads.clear()
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        client.sendall(bytes(64 << 20))
    assert runner.end()["reason"] == "pong_missing"
    double.reads.set()


def test_nbd_server_that_stops_answering_frees_guest_writes(certificate: Any, short: Path) -> None:
    """The link lives, pings are answered, QEMU on the far side stands still."""
    _double, runner, path = start_fast(certificate, short, Kind.NBD, greeting=NBD_GREETING, answer=go)
    client = attach(runner, path)
    client.recv(18, socket.MSG_WAITALL)
    client.sendall(b"\0\0\0\3" + struct.pack(">8sII", b"IHAVEOPT", 7, 0))
    assert client.recv(20, socket.MSG_WAITALL) == GO_REPLY
    runner.command("write_blocking")
    client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, 0, 512) + bytes(512))
    assert client.recv(10) == b""
    assert runner.end()["reason"] == "answer_missing"


GO_REPLY = struct.pack(">QIII", 0x3E889045565A9, 7, 1, 0)


def go(payload: bytes) -> bytes:
    """Answers the one option, nothing else."""
    return GO_REPLY if b"IHAVEOPT" in payload else b""
