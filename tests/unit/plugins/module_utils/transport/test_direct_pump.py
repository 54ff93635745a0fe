# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stream of a direct transport from socket to socket: the source's pump, the target's ``serve`` in its own process.

Real sockets, real TLS, a fake QEMU at either end; every order of ending of direct-transports 4.5 and every failure.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from unit.fakes.certificates import Authority, lay
from unit.fakes.direct_target import LINKS, DirectTarget, socket_path
from unit.fakes.pump_runner import Runner

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import PumpFailed
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import (
    DirectSettings,
    EndReason,
    EventName,
    kind_of,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.pump_handle import PumpHandle

MID, KEY = "0123456789abcdef" * 2, "5a" * 32
# A busy machine must not look like a fault: patient limits everywhere, quick ones only where one of them is tried.
PATIENT = {"deadman": 10.0, "beat": 0.2, "greeting": 10.0, "answer": 20.0, "background_answer": 20.0, "stall": 30.0}
THERE = {"deadman": 2.0, "beat": 0.2}
GREETING = b"NBDMAGICIHAVEOPT\0\3"
SHUT = b"\0\1\0\4\0\0\0\0"  # the last word of the return path (direct-transports 4.5)
MIB = 1 << 20


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory whose path fits into a UNIX address."""
    path = Path(tempfile.mkdtemp(prefix="direct-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def domain(place: Path) -> Dict[str, str]:
    """The files of both nodes, and of one that belongs to the domain and has another name."""
    authority = Authority()
    return {
        name: str(lay(place / name, authority.pem, authority.issue(name))) for name in ("node-a", "node-b", "node-x")
    }


@pytest.fixture(scope="module")
def targets(place: Path, domain: Dict[str, str]) -> Iterator[Dict[str, DirectTarget]]:
    more: Dict[str, Any] = {"limits": THERE, "refuses": {"ram.9": "no more streams are expected"}}
    both = {
        "tls": DirectTarget(place, "tls", MID, credentials=domain["node-b"], peer_name="node-a", **more),
        "tcp": DirectTarget(place, "tcp", MID, key=KEY, **more),
    }
    yield both
    for target in both.values():
        target.stop()


class Stream:
    """One stream under test: the pump in a thread, the target's process, a UNIX server in the place of QEMU."""

    def __init__(self, target: DirectTarget, plane: str, domain: Dict[str, str], stream: str, **changes: Any) -> None:
        self.target = target
        self.listen = os.path.join(target.directory, "source.sock")
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = socket_path(target.directory, stream)
        Path(path).unlink(missing_ok=True)
        self.server.bind(path)
        self.server.listen(1)
        self.server.settimeout(20)
        kind = kind_of(stream)
        assert kind is not None
        values: Dict[str, Any] = {
            "name": "stream", "kind": kind, "plane": plane, "address": "127.0.0.1", "port": target.port,
            "peer_name": "node-b", "own_name": "node-a", "migration_id": MID, "stream": stream,
            "credentials": domain["node-a"] if plane == "tls" else None, "open_timeout": 20.0,
        }  # fmt: skip
        limits = {**PATIENT, **changes.pop("limits", {})}
        self.settings = DirectSettings(**{**values, **changes}, limits=limits)
        self.secret = KEY if plane == "tcp" else ""

    def start(self) -> Stream:
        self.runner = Runner(self.settings, self.secret)
        self.peer = self.runner.wait(EventName.STANDING)["peer"]
        self.process: int = self.target.wait("stream")["pid"]
        return self

    def open(self, greeting: bytes = b"") -> "tuple[socket.socket, socket.socket]":
        """The source's QEMU and the target's, both connected."""
        self.runner.command("open", {"listen": self.listen})
        if self.settings.stream.startswith("ram"):
            qemu = self.connect()
            return qemu, self.accept()
        far = self.accept()
        far.sendall(greeting)
        return self.connect(), far

    def connect(self) -> socket.socket:
        self.runner.wait(EventName.LISTENING)
        qemu = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        qemu.settimeout(20)
        qemu.connect(self.listen)
        self.runner.wait(EventName.ATTACHED)
        return qemu

    def accept(self) -> socket.socket:
        far, _address = self.server.accept()
        far.settimeout(20)
        return far

    def ends(self) -> "tuple[Dict[str, Any], Dict[str, Any]]":
        """How both sides ended."""
        return self.runner.end(), self.target_end()

    def target_end(self) -> Dict[str, Any]:
        return self.target.wait("end", self.process)

    def close(self) -> None:
        self.server.close()


Make = Callable[..., Stream]


@pytest.fixture
def make(targets: Dict[str, DirectTarget], domain: Dict[str, str]) -> Iterator[Make]:
    made: List[Stream] = []

    def build(plane: str = "tcp", stream: str = "ram", **changes: Any) -> Stream:
        made.append(Stream(targets[plane], plane, domain, stream, **changes))
        return made[-1]

    yield build
    for stream in made:
        stream.close()


planes = pytest.mark.parametrize("plane", ["tls", "tcp"])


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while True:
        piece = sock.recv(1 << 18)
        if not piece:
            return bytes(data)
        data += piece


def read(sock: socket.socket, size: int) -> bytes:
    """Exactly so many bytes."""
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, f"the end after {len(data)} bytes"
        data += piece
    return bytes(data)


def talk(one: socket.socket, other: socket.socket) -> None:
    """A word each way: the stream carries."""
    for speaker, hearer in ((one, other), (other, one)):
        speaker.sendall(b"word")
        assert read(hearer, 4) == b"word"


class Sender(threading.Thread):
    """Sends while the test reads."""

    def __init__(self, sock: socket.socket, data: bytes) -> None:
        super().__init__(daemon=True)
        self._sock, self._data = sock, data
        self.start()

    def run(self) -> None:
        try:
            self._sock.sendall(self._data)
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass


# --- what is carried ------------------------------------------------------------------------------------------------


@planes
def test_both_directions_carry_every_byte(make: Make, plane: str) -> None:
    stream = make(plane).start()
    qemu, far = stream.open()
    there, back = os.urandom(MIB) * 24, os.urandom(MIB) * 16
    Sender(qemu, there)
    Sender(far, back)
    hashes: Dict[str, str] = {}
    reader = threading.Thread(target=lambda: hashes.update(there=hashlib.sha256(read_all(far)).hexdigest()))
    reader.start()
    assert hashlib.sha256(read_all(qemu)).digest() == hashlib.sha256(back).digest()
    reader.join(10)
    assert hashes["there"] == hashlib.sha256(there).hexdigest()
    qemu.close()
    far.close()
    source, target = stream.ends()
    assert source["clean"]
    assert target["clean"]
    assert (source["sent"], source["received"]) == (len(there), len(back))


@planes
def test_both_sides_know_who_is_there(make: Make, plane: str) -> None:
    stream = make(plane).start()
    assert stream.peer["address"] == f"[127.0.0.1]:{stream.target.port}"
    assert stream.peer["local_address"].startswith("[127.0.0.1]:")
    assert (stream.peer["name"], bool(stream.peer["cipher"])) == ("node-b", plane == "tls")
    stream.runner.command("cut")
    assert stream.ends()[0]["reason"] == "cut"


def test_requests_go_over_control(make: Make) -> None:
    stream = make("tls", "control").start()
    worker, supervisor = stream.open()
    for line in (b'{"id":1}\n', b'{"id":2}\n'):
        worker.sendall(line)
        assert supervisor.recv(100) == line
        supervisor.sendall(line.upper())
        assert worker.recv(100) == line.upper()
    worker.close()
    assert supervisor.recv(1) == b""
    supervisor.close()
    assert [end["clean"] for end in stream.ends()] == [True, True]


def test_first_words_over_control_wait_for_the_worker(make: Make) -> None:
    stream = make("tcp", "control").start()
    stream.runner.command("open", {"listen": stream.listen})
    supervisor = stream.accept()
    supervisor.sendall(b'{"hello":1}\n')
    stream.runner.wait(EventName.LISTENING)
    time.sleep(0.2)
    supervisor.sendall(b'{"hello":2}\n')
    worker = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    worker.settimeout(20)
    worker.connect(stream.listen)
    assert read(worker, 24) == b'{"hello":1}\n{"hello":2}\n'
    worker.close()
    supervisor.close()
    assert stream.ends()[0]["clean"]


def test_import_ends_with_its_announced_length(make: Make) -> None:
    reader, writer = os.pipe()
    stream = make("tcp", "import/tpmstate0", input_fd=reader).start()
    stream.runner.command("open")
    far = stream.accept()
    data = (MIB).to_bytes(8, "little") + os.urandom(MIB)
    threading.Thread(target=lambda: (os.write(writer, data), os.close(writer)), daemon=True).start()
    assert read_all(far) == data
    far.sendall(b"imported")  # not for the exporter
    far.close()
    source, target = stream.ends()
    assert (source["reason"], source["clean"], source["announced"]) == ("local_eof", True, len(data))
    assert target["clean"]


def test_rate_is_kept(make: Make) -> None:
    stream = make("tcp", rate=10_000_000).start()
    qemu, far = stream.open()
    began = time.monotonic()
    Sender(qemu, bytes(6_000_000))
    assert len(read_all(far)) == 6_000_000
    assert time.monotonic() - began >= 0.5
    far.close()
    qemu.close()
    assert stream.ends()[0]["clean"]


# --- before QEMU is there -------------------------------------------------------------------------------------------


def test_nothing_is_touched_before_open_and_the_stream_stays_alive(make: Make) -> None:
    stream = make("tls", limits={"deadman": 1.0}).start()
    stream.server.settimeout(1.3)  # longer than the deadman
    with pytest.raises(socket.timeout):
        stream.server.accept()
    assert not Path(stream.listen).exists()
    stream.server.settimeout(20)
    stream.runner.command("open", {"listen": stream.listen})
    stream.runner.wait(EventName.LISTENING)
    stream.server.settimeout(0.2)  # RAM: the target's socket may be touched once only
    with pytest.raises(socket.timeout):
        stream.server.accept()
    stream.runner.command("cut")
    stream.ends()


def test_qemu_meets_only_an_nbd_server_that_has_greeted(make: Make) -> None:
    stream = make("tcp", "disk/scsi0").start()
    stream.runner.command("open", {"listen": stream.listen})
    far = stream.accept()
    time.sleep(0.1)
    assert not Path(stream.listen).exists()
    far.sendall(GREETING[:9])
    far.sendall(GREETING[9:])
    qemu = stream.connect()
    assert qemu.recv(100) == GREETING
    qemu.close()
    assert far.recv(1) == b""
    far.close()
    assert stream.ends()[0]["reason"] == "local_eof"


@pytest.mark.parametrize(("said", "reason"), [(b"", "greeting_missing"), (b"HTTP/1.1 ", "nbd_invalid")])
def test_what_is_no_nbd_server_never_meets_qemu(make: Make, said: bytes, reason: str) -> None:
    stream = make("tcp", "disk/scsi0", limits={"greeting": 0.5}).start()
    stream.runner.command("open", {"listen": stream.listen})
    far = stream.accept()
    far.sendall(said)
    source, target = stream.ends()
    assert source["reason"] == reason
    assert not Path(stream.listen).exists()
    assert target["end"] == "peer_aborted"


def test_missing_socket_of_the_target_is_told_to_the_user(make: Make) -> None:
    stream = make("tls", "disk/scsi0").start()
    stream.server.close()
    stream.runner.command("open", {"listen": stream.listen})
    source, target = stream.ends()
    assert source["reason"] == "peer_aborted"
    assert "Connection refused" in source["detail"]
    assert target["end"] == "connect_failed"


def test_one_connection_is_accepted_and_no_other(make: Make) -> None:
    stream = make("tcp").start()
    ends = stream.open()
    second = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with pytest.raises(OSError, match=r"refused|No such file"):
        second.connect(stream.listen)
    for end in ends:
        end.close()
    stream.ends()


def test_another_process_is_not_accepted_in_the_place_of_qemu(make: Make) -> None:
    stream = make("tcp", peer_pid=1).start()
    stream.runner.command("open", {"listen": stream.listen})
    stream.runner.wait(EventName.LISTENING)
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stranger.connect(stream.listen)
    assert stranger.recv(1) == b""
    source, _target = stream.ends()
    assert source["reason"] == "local_failed"
    assert "in the place of QEMU" in source["detail"]


@pytest.mark.parametrize(
    ("plane", "changes", "secret", "words"),
    [("tcp", {}, "11" * 32, "does not know the key"), ("tcp", {"migration_id": "f" * 32}, KEY, "refused"),
     ("tls", {"stream": "ram.9"}, "", "no more streams"), ("tls", {"peer_name": "node-c"}, "", "another node")],
    ids=["key", "migration", "stream", "name"],
)  # fmt: skip
def test_refusal_is_told(make: Make, plane: str, changes: Dict[str, Any], secret: str, words: str) -> None:
    stream = make(plane, **changes)
    end = Runner(stream.settings, secret).end()
    assert (end["reason"], end["clean"]) == ("refused", False)
    assert words in end["detail"]
    assert secret not in end["detail"] or not secret


def test_foreign_name_is_refused_by_the_target(make: Make, domain: Dict[str, str]) -> None:
    stream = make("tls", credentials=domain["node-x"])
    assert Runner(stream.settings, "").end()["reason"] in ("refused", "connect_failed")
    assert "refused" in stream.target.wait("refused")


def test_nobody_there_is_told_with_address(make: Make) -> None:
    stream = make("tcp", port=1)
    end = Runner(stream.settings, KEY).end()
    assert end["reason"] == "connect_failed"
    assert "127.0.0.1 port 1" in end["detail"]
    assert end["detail"].endswith(". Check address, port, route and firewall of the target")


# --- the end --------------------------------------------------------------------------------------------------------


@planes
def test_last_words_of_the_target_reach_qemu(make: Make, plane: str) -> None:
    """RAM: the target's QEMU says its last eight bytes, closes, and only then the source's closes."""
    stream = make(plane).start()
    qemu, far = stream.open()
    qemu.sendall(b"ram" * 1000)
    assert read(far, 3000) == b"ram" * 1000
    far.sendall(SHUT)
    far.close()
    assert read_all(qemu) == SHUT
    qemu.close()
    source, target = stream.ends()
    assert (source["reason"], source["clean"]) == ("server_closed", True)
    assert (target["end"], target["clean"]) == ("local_eof", True)


@planes
def test_everything_is_delivered_before_qemu_sees_the_end(make: Make, plane: str) -> None:
    """NBD: the client closes at once after its last bytes."""
    stream = make(plane).start()
    qemu, far = stream.open()
    data = os.urandom(MIB) * 4
    sender = threading.Thread(target=lambda: (qemu.sendall(data), qemu.close()), daemon=True)
    sender.start()
    time.sleep(0.2)  # the reader is late
    assert read_all(far) == data
    far.close()
    source, target = stream.ends()
    assert (source["reason"], source["clean"], source["acknowledged"]) == ("local_eof", True, len(data))
    assert (target["end"], target["clean"]) == ("server_closed", True)


@planes
@pytest.mark.parametrize("first", ["source", "target"])
def test_half_close_leaves_the_other_direction_open(make: Make, plane: str, first: str) -> None:
    stream = make(plane).start()
    ends = stream.open()
    one, other = ends if first == "source" else ends[::-1]
    one.sendall(b"question")
    one.shutdown(socket.SHUT_WR)
    assert read_all(other) == b"question"
    other.sendall(b"answer" * 50000)
    other.close()
    assert read_all(one) == b"answer" * 50000
    one.close()
    assert [end["clean"] for end in stream.ends()] == [True, True]


def test_target_qemu_that_leaves_with_bytes_unread_is_a_failure(make: Make) -> None:
    stream = make("tls").start()
    qemu, far = stream.open()
    qemu.sendall(b"x" * MIB)
    time.sleep(0.2)
    far.close()
    source, target = stream.ends()
    assert (source["reason"], target["end"]) == ("peer_aborted", "local_failed")
    assert "QEMU's socket" in source["detail"]
    with pytest.raises(OSError, match=r"reset|Broken"):
        qemu.sendall(b"x" * MIB)


@pytest.mark.parametrize("how", ["cut", "leave"])
def test_worker_cuts_by_command_and_by_its_death(make: Make, how: str) -> None:
    stream = make("tls").start()
    qemu, far = stream.open()
    stream.runner.command("cut") if how == "cut" else stream.runner.leave()
    assert qemu.recv(1) == far.recv(1) == b""
    source, target = stream.ends()
    assert source["reason"] == {"cut": "cut", "leave": "parent_gone"}[how]
    assert target["end"] == "peer_aborted"


# --- failures -------------------------------------------------------------------------------------------------------


@planes
def test_killed_target_worker_frees_the_guest_at_once(make: Make, plane: str) -> None:
    stream = make(plane).start()
    qemu, far = stream.open()
    talk(qemu, far)
    os.kill(stream.process, signal.SIGKILL)
    assert far.recv(1) == qemu.recv(1) == b""
    assert stream.runner.end()["reason"] == "server_lost"


def test_silent_target_worker_frees_the_guest_after_the_deadman(make: Make) -> None:
    stream = make("tcp", limits={"deadman": 1.0}).start()
    qemu, far = stream.open()
    talk(qemu, far)
    os.kill(stream.process, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert qemu.recv(1) == b""
        assert 0.5 <= time.monotonic() - began <= 15
        assert stream.runner.end()["reason"] == "peer_silent"
    finally:
        os.kill(stream.process, signal.SIGCONT)
    assert stream.target_end()["end"] in ("server_lost", "peer_aborted", "peer_silent")


class Relay(threading.Thread):
    """A wire between the workers that can be cut without anybody noticing."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._far = port
        self.carries = True
        self.start()

    def run(self) -> None:
        near, _address = self._listener.accept()
        far = socket.create_connection(("127.0.0.1", self._far))
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while True:
                data = one.recv(65536)
                if not data:
                    break
                if self.carries:
                    other.sendall(data)
        except OSError:
            pass


def test_silent_network_ends_both_sides_after_the_deadman(make: Make, targets: Dict[str, DirectTarget]) -> None:
    relay = Relay(targets["tls"].port)
    stream = make("tls", port=relay.port, limits={"deadman": 1.0}).start()
    qemu, far = stream.open()
    talk(qemu, far)
    relay.carries = False
    began = time.monotonic()
    assert qemu.recv(1) == far.recv(1) == b""
    assert 0.5 <= time.monotonic() - began <= 15
    source, target = stream.ends()
    assert (source["reason"], target["end"]) == ("peer_silent", "peer_silent")


def test_relayed_tcp_is_no_connection(make: Make, targets: Dict[str, DirectTarget]) -> None:
    """Without TLS both ends must see the same addresses: who stands between knows no key to say otherwise."""
    relay = Relay(targets["tcp"].port)
    end = Runner(make("tcp", port=relay.port).settings, KEY).end()
    assert end["reason"] == "refused"


def test_target_qemu_that_stops_reading_stalls(make: Make) -> None:
    """The workers are well and beat: only what QEMU really read tells (direct-transports 4.3)."""
    stream = make("tls", limits={"stall": 2.0}).start()
    qemu, _far = stream.open()
    with pytest.raises(OSError, match=r"reset|Broken"):
        qemu.sendall(bytes(64 * MIB))
    source, target = stream.ends()
    assert source["reason"] == "peer_stalled"
    assert target["end"] in ("peer_aborted", "server_lost")


def test_slow_target_qemu_does_not_stall(make: Make) -> None:
    """It is suspended for longer than the deadman there, and reads on before the stall."""
    stream = make("tls").start()
    qemu, far = stream.open()
    Sender(qemu, bytes(16 * MIB))
    time.sleep(THERE["deadman"] + 0.3)
    got = len(read_all(far))
    far.close()
    qemu.close()
    source, _target = stream.ends()
    assert (got, source["reason"], source["clean"]) == (16 * MIB, "local_eof", True)


NBD_STARTTLS = struct.pack(">8sII", b"IHAVEOPT", 5, 0)
NBD_GO = struct.pack(">8sII", b"IHAVEOPT", 7, 0)
NBD_GONE = struct.pack(">QIII", 0x3E889045565A9, 7, 1, 0)


@pytest.mark.parametrize("phase", ["negotiation", "write"])
def test_nbd_server_that_does_not_answer_frees_the_guest(make: Make, phase: str) -> None:
    stream = make("tcp", "disk/scsi0", limits={"answer": 1.0}).start()
    qemu, far = stream.open(GREETING)
    assert read(qemu, 18) == GREETING
    qemu.sendall(b"\0\0\0\3" + NBD_GO)
    if phase == "write":
        read(far, 20)
        far.sendall(NBD_GONE)
        assert read(qemu, 20) == NBD_GONE
        stream.runner.command("write_blocking")
        qemu.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, 0, 512) + bytes(512))
    assert qemu.recv(1) == b""
    source, target = stream.ends()
    assert (source["reason"], target["end"]) == ("answer_missing", "peer_aborted")


def test_encrypted_nbd_is_carried_unread(make: Make) -> None:
    """qemu-tls: after STARTTLS nothing of it is NBD."""
    stream = make("tcp", "disk/scsi0", opaque=True).start()
    qemu, far = stream.open(GREETING)
    assert read(qemu, 18) == GREETING
    noise = b"\0\0\0\3" + NBD_STARTTLS + b"\x16\x03\x01" + os.urandom(300_000)
    Sender(qemu, noise)
    assert read(far, len(noise)) == noise
    far.sendall(noise)
    far.close()
    assert read_all(qemu) == noise
    qemu.close()
    assert stream.ends()[0]["clean"]


@pytest.mark.parametrize(("name", "words"), [("ram", b"QEVM\0\0\0\3" * 1000), ("disk/scsi0", b"\0\0\0\3" + NBD_GO)])
def test_not_a_byte_that_qemu_should_have_encrypted_leaves_the_node(make: Make, name: str, words: bytes) -> None:
    stream = make("tcp", name, opaque=True).start()
    qemu, far = stream.open(*([GREETING] if name != "ram" else []))
    qemu.sendall(words)
    assert read_all(far) == b""
    source, target = stream.ends()
    assert (source["reason"], target["end"]) == ("clear_text", "peer_aborted")


def test_switchover_deadline_frees_the_guest(make: Make) -> None:
    stream = make("tls").start()
    qemu, far = stream.open()
    talk(qemu, far)
    stream.runner.command("arm", 0.3)
    assert qemu.recv(1) == b""
    source, target = stream.ends()
    assert source["reason"] == "switchover_deadline"
    assert "switchover took too long" in target["detail"]


# --- as processes ---------------------------------------------------------------------------------------------------

PUMP = f"""
import sys
sys.path.insert(0, {LINKS!r})
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.pump import main
sys.exit(main())
"""


def launch(stream: Stream) -> PumpHandle:
    handle = PumpHandle.launch([sys.executable, "-I", "-B", "-c", PUMP], stream.settings, stream.secret)
    handle.wait_standing(time.monotonic() + 20)
    stream.process = stream.target.wait("stream")["pid"]
    handle.open(stream.listen)
    handle.wait_listening(time.monotonic() + 20)
    return handle


def peak_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@planes
def test_memory_stays_flat_while_a_slow_reader_is_fed(make: Make, plane: str) -> None:
    stream = make(plane)
    handle = launch(stream)
    qemu = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    qemu.connect(stream.listen)
    far = stream.accept()
    size = (128 if plane == "tcp" else 48) * MIB
    feeder = threading.Thread(target=lambda: [qemu.sendall(bytes(MIB)) for _mib in range(size // MIB)], daemon=True)
    feeder.start()
    room, got = memoryview(bytearray(4 * MIB)), 0
    while got < size:
        got += far.recv_into(room)
        if got % (16 * MIB) < MIB // 4:
            time.sleep(0.01)
    peak = peak_kib(handle.process.pid)
    far.close()
    feeder.join(10)
    qemu.close()
    end = handle.finish(time.monotonic() + 10)
    assert end.clean
    assert stream.secret not in str(handle.process.args) or not stream.secret
    assert max(peak, stream.target_end()["peak_kib"]) <= 24 * 1024


def test_killed_pump_ends_the_target(make: Make) -> None:
    stream = make("tls")
    handle = launch(stream)
    qemu = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    qemu.connect(stream.listen)
    far = stream.accept()
    qemu.sendall(b"ram")
    assert far.recv(3) == b"ram"
    handle.process.kill()
    assert qemu.recv(1) == far.recv(1) == b""
    assert stream.target_end()["end"] == "server_lost"
    assert handle.finish(time.monotonic() + 10).reason is EndReason.DIED


def test_handle_tells_who_refused(make: Make) -> None:
    stream = make("tls", stream="ram.9")
    with pytest.raises(PumpFailed, match="no more streams are expected"):
        launch(stream)
