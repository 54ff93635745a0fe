# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listening end as a process, with real TLS, a real rule and real strangers, in a network namespace of its own.

Real time passes here, as little as the deadlines under test allow. The source's side is the real one (``direct_end``).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from unit.fakes import incoming_process
from unit.fakes.certificates import Authority, lay
from unit.fakes.network_namespace import OWN, PEER, STRANGER, network

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import CrossclusterError
from ansible_collections.crosscluster.migration.plugins.module_utils.migration import incoming_start, places
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.client import Client
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import Recorded
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.incoming_settings import IncomingSettings
from ansible_collections.crosscluster.migration.plugins.module_utils.transport import direct_end, pump, wire
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import (
    GreetingRefused,
    LinkLost,
    NetworkChanged,
    TlsFailed,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.firewall import Firewall
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import DirectSettings, kind_of
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.pump_handle import PumpHandle
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.wire import FrameKind

ID, KEY, UUID = "5d" * 16, "ab" * 32, incoming_process.UUID
PATIENT = {"deadman": 10.0}  # the machine may be busy; the timers have tests of their own
PROGRAM = incoming_process.__file__

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("nft") or not shutil.which("ip"), reason="needs root, nft and ip"
)


@pytest.fixture(scope="module", autouse=True)
def namespace():
    try:
        with network():
            yield
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    found, home = {}, Authority()
    for role, name in (("target", "b1.example"), ("source", "a1.example"), ("another", "a2.example")):
        found[role] = str(tmp_path_factory.mktemp(role))
        lay(Path(found[role]), home.pem, home.issue(name))
    return found


@pytest.fixture
def tmp_path():
    """Short: the path of a UNIX socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="cc") as name:
        yield Path(name)


@pytest.fixture
def start(tmp_path, domains):
    """Starts one and ends it in any case."""
    with starting(tmp_path, domains) as begin:
        yield begin


@contextlib.contextmanager
def starting(directory, domains):
    """With the directories of a test; ``process`` has its processes."""
    detached = []

    def detach(migration_id):
        argv = [sys.executable, PROGRAM, str(directory), "incoming", migration_id]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, env=environment)
        detached.append(process)
        return lambda: process.poll() is None

    def begin(key=KEY, **changes):
        options = {
            "transports": ("tls", "tcp"),
            "peer_address": PEER,
            "address": OWN,
            "lifetime": 60.0,
            "limits": PATIENT,
        }
        settings = IncomingSettings(
            ID, ports=(60100, 60149), peer_name="a1.example", credentials=domains["target"], **{**options, **changes}
        )
        return dict(incoming_start.start(settings, key), process=detached)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("RUN", "LIBRARY"):
            patch.setattr(places, name, getattr(places, name))  # put back at the end
        incoming_process.use(directory)
        patch.setattr(incoming_start, "_detach", detach)
        try:
            yield begin
        finally:
            incoming_start.end(ID)
            for process in detached:
                process.wait(10)


def no_trace(migration_id=ID):
    """Nothing of it is left: no process answers, no rule, no file."""
    return not Firewall().exists(migration_id) and not os.path.exists(places.run_directory(migration_id))


def wait_until(holds, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.02)


class Stream:
    """The source's end of one stream: frames by hand, and a client of the conversation over ``control``."""

    def __init__(self, status, stream, plane="tls", domain="", key=KEY, **changes):
        settings = DirectSettings(
            **{
                "name": stream.replace("/", "-"),
                "kind": kind_of(stream),
                "plane": plane,
                "address": status["address"],
                "port": status["port"],
                "peer_name": "b1.example",
                "own_name": "a1.example",
                "migration_id": ID,
                "stream": stream,
                "credentials": domain if plane == "tls" else None,
                "local_address": PEER,
                **changes,
            }
        )
        self.end, self.peer = direct_end.dial(settings, key if plane == "tcp" else "", time.monotonic)
        self.data = b""
        self.seen = []
        self.count = 0

    def send(self, kind, payload=b""):
        self.end.send(wire.encode(kind, payload))

    def until(self, holds, seconds=5.0):
        """Read until something holds; beats go on."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, self.seen
            try:
                frames = self.end.receive()
            except (LinkLost, TlsFailed):  # cut: a reset, or no close notify
                frames = None
            if frames is None:
                self.seen.append("eof")
                return
            for frame in frames:
                self.seen.append(frame.kind)
                if frame.kind is FrameKind.DATA:
                    self.data += bytes(frame.payload)
                elif frame.kind is FrameKind.ABORT:
                    self.seen.append(frame.fields)
            if not self.end.heard:
                select.select([self.end.fileno()], [], [], 0.2)
                with contextlib.suppress(LinkLost):  # it shows at the next read
                    self.end.send(wire.beat(0))

    def wait_for(self, kind, seconds=5.0):
        self.until(lambda: kind in self.seen, seconds)
        assert kind in self.seen, self.seen

    def open(self):
        self.send(FrameKind.OPEN)
        self.wait_for(FrameKind.OPENED)

    def line(self):
        self.until(lambda: b"\n" in self.data)
        line, _newline, self.data = self.data.partition(b"\n")
        return json.loads(line)

    def ask(self, op, **values):
        self.count += 1
        self.send(FrameKind.DATA, json.dumps({"id": self.count, "op": op, **values}).encode() + b"\n")
        answer = self.line()
        assert answer["id"] == self.count
        if "error" in answer:
            raise Recorded.parse(answer["error"])
        return answer["data"]

    def close(self):
        self.end.close()


@pytest.fixture
def dial(domains):
    with contextlib.ExitStack() as stack:

        def make(status, stream, **options):
            options.setdefault("domain", domains["source"])
            made = Stream(status, stream, **options)
            stack.callback(made.close)
            return made

        yield make


def control_of(dial, status, **options):
    control = dial(status, "control", **options)
    control.open()
    assert control.line()["hello"]["migration_id"] == ID
    return control


class Qemu:
    """A UNIX socket that says back what it hears; counts who came."""

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(4)
        self.came = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _address = self.listener.accept()
                self.came += 1
                with connection:
                    while data := connection.recv(65536):
                        connection.sendall(data)


@pytest.fixture
def vm(tmp_path):
    """VM 117 on the target, started for a migration."""
    (tmp_path / "vm.json").write_text(json.dumps({"lock": "migrate", "run_state": "inmigrate"}))
    qemu = Qemu(incoming_process.socket_of(tmp_path, "ram"))
    nbd = Qemu(incoming_process.socket_of(tmp_path, "nbd"))
    yield qemu
    qemu.listener.close()
    nbd.listener.close()


def attach(control, tmp_path):
    sockets = {name: incoming_process.socket_of(tmp_path, name) for name in ("ram", "nbd")}
    return control.ask("attach", vmid=117, uuid=UUID, **sockets)


@pytest.mark.parametrize("plane", ["tls", "tcp"])
def test_stream_goes_to_qemu_once_it_is_attached_and_opened(start, dial, vm, tmp_path, plane):
    status = start()
    assert (status["planes"], status["rejected"], status["own_name"]) == (["tls", "tcp"], {}, "b1.example")
    assert status["firewall"] == {"installed": True, "counters": {"strangers": 0, "other_devices": 0}}
    control, ram = control_of(dial, status, plane=plane), dial(status, "ram", plane=plane)
    assert attach(control, tmp_path)["vmid"] == 117
    control.ask("seal")
    assert vm.came == 0  # nothing was touched before OPEN
    ram.open()
    ram.send(FrameKind.DATA, b"guest memory")
    ram.until(lambda: ram.data == b"guest memory")
    ram.send(FrameKind.FIN)
    ram.wait_for(FrameKind.FIN)
    assert vm.came == 1
    state = control.ask("state")
    assert (state["run_state"], state["lock"], state["migrate"]["status"]) == ("inmigrate", "migrate", "active")
    ram.close()
    report = control.ask("bye")
    assert report["turned"]["stranger"] == 0
    control.close()
    wait_until(no_trace)
    assert status["process"][0].wait(5) == 0


def test_same_settings_attach_and_others_are_refused(start):
    first = start()
    again = start()
    assert (first["changed"], again["changed"], again["port"]) == (True, False, first["port"])
    with pytest.raises(CrossclusterError) as refusal:
        start(lifetime=61.0)
    assert refusal.value.code == "INCOMING_DIFFERS"
    assert incoming_start.end(ID)
    assert no_trace()
    assert not incoming_start.end(ID)


def test_key_is_nowhere_but_in_memory(start, tmp_path):
    process = start()["process"][0]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    words = Path(f"/proc/{process.pid}/cmdline").read_bytes() + Path(f"/proc/{process.pid}/environ").read_bytes()
    assert KEY.encode() not in words
    with Client(str(places.run_directory(ID)) + "/incoming.sock") as client:
        assert KEY not in json.dumps(client.call("status"))


def test_why_it_cannot_listen_is_told(start):
    with pytest.raises(CrossclusterError) as refusal:
        start(address="192.0.2.7")
    assert refusal.value.code == "ADDRESS_ABSENT"
    assert no_trace()


def test_killed_one_is_cleaned_up_by_the_next_start_and_by_absent(start, dial):
    status = start()
    stream = dial(status, "ram")
    process = status["process"][0]
    process.kill()
    process.wait()
    stream.until(lambda: "eof" in stream.seen)  # its children died with it
    assert Firewall().exists(ID)
    assert start()["changed"]
    status["process"][1].kill()
    status["process"][1].wait()
    assert incoming_start.end(ID)
    assert no_trace()


def test_it_ends_when_nobody_is_connected_for_the_lifetime(start):
    process = start(lifetime=1.0)["process"][0]
    assert process.wait(5) == 0
    assert no_trace()


def test_stream_that_stands_keeps_it_alive(start, dial):
    status = start(lifetime=1.0)
    stream = dial(status, "ram")
    deadline = time.monotonic() + 1.3
    stream.until(lambda: time.monotonic() > deadline)
    assert incoming_start.running(ID)["streams"][0]["name"] == "ram"
    stream.close()
    assert status["process"][0].wait(6) == 0
    assert no_trace()


def test_no_stream_stands_twice_and_none_after_seal(start, dial):
    status = start()
    control = control_of(dial, status)
    dial(status, "ram")
    dial(status, "disk/scsi0.2")
    for name, why in (("ram", "opened before"), ("control.2", "one already")):
        with pytest.raises(GreetingRefused, match=why):
            dial(status, name)
    control.ask("seal")
    with pytest.raises(CrossclusterError, match="refused"):
        dial(status, "disk/scsi1")


def test_source_that_lost_control_comes_back_and_has_everything_removed(start, dial, vm, tmp_path):
    """Its worker was killed: a new one dials in and finds the VM still attached."""
    status = start()
    control = control_of(dial, status)
    attach(control, tmp_path)
    control.ask("seal")
    control.end.abort()
    wait_until(lambda: incoming_start.running(ID)["open"])
    with pytest.raises(GreetingRefused, match="no more streams"):
        dial(status, "ram")
    again = dial(status, "control.2")
    again.open()
    again.line()
    recorded = {"vmid": 117, "uuid": UUID, "volumes": []}
    assert [step["action"] for step in again.ask("remove", recorded=recorded)["steps"]] == ["stop", "destroy"]
    assert not (tmp_path / "117.ram").exists()
    again.end.abort()
    assert status["process"][0].wait(6) == 0
    assert no_trace()


def test_refusals_reach_the_source_with_their_codes(start, dial, vm, tmp_path):
    control = control_of(dial, start())
    for op, values, code in (
        ("attach", {"vmid": 118, "uuid": UUID, "ram": "/run/x", "nbd": None}, "REQUEST_INVALID"),
        ("state", {}, "NOT_ATTACHED"),
        ("status", {}, "REQUEST_INVALID"),
        ("resume", {"recorded": {"vmid": 117, "uuid": UUID}}, "COMMIT_INTENT_MISSING"),
    ):
        with pytest.raises(Recorded) as refusal:
            control.ask(op, **values)
        assert refusal.value.code == code


def test_stream_opened_before_attach_is_told_why(start, dial):
    stream = dial(start(), "ram")
    stream.send(FrameKind.OPEN)
    stream.wait_for(FrameKind.ABORT)
    assert "no socket was attached for ram" in stream.seen[-1]["text"]


def test_certificate_of_another_node_is_refused_before_any_stream(start, dial, domains):
    status = start()
    with pytest.raises((GreetingRefused, TlsFailed), match=r"a2\.example"):
        dial(status, "ram", domain=domains["another"])
    assert incoming_start.running(ID)["turned"]["failed"] == 1


def test_wrong_key_is_refused(start, dial):
    with pytest.raises(GreetingRefused, match="does not know the key"):
        dial(start(), "ram", plane="tcp", key="00" * 32)


def test_clear_text_over_a_network_that_has_changed_is_refused_with_the_reason(start, dial, tmp_path):
    changed = tmp_path / "network"
    changed.write_text("check 9")
    status = start()
    for stream in ("control", "ram"):
        with pytest.raises(NetworkChanged, match=rf"refused the stream {stream}: NETWORK_CHANGED check 9 at .*:60100"):
            dial(status, stream, plane="tcp")
    changed.unlink()
    wait_until(lambda: not incoming_start.running(ID)["streams"])
    # Neither stood: the transport that comes next may have them, and certificates need no such proof.
    dial(status, "control", plane="tcp")
    changed.write_text("check 9")
    dial(status, "ram")


def test_plane_that_was_not_wanted_gets_no_byte(start):
    status = start(transports=("tls",))
    with socket.create_connection((OWN, status["port"]), 2, (PEER, 0)) as plain:
        plain.sendall(wire.message(FrameKind.HELLO, {"v": 1, "mid": ID, "stream": "ram", "nonce": "cd" * 32}))
        assert plain.recv(100) == b""


QEMU_TLS = {"transports": ("qemu-tls",), "key": ""}
OPAQUE = {"plane": "tcp", "opaque": True}


@pytest.mark.parametrize("options", [QEMU_TLS, {"transports": ("tcp", "qemu-tls")}], ids=["alone", "beside tcp"])
def test_what_qemu_encrypts_reaches_it_only_while_it_takes_nothing_else(start, dial, vm, tmp_path, options):
    """In the clear between the workers, with a key that the target made: no clear byte can come to QEMU, or from it."""
    status = start(**options)
    control = control_of(dial, status)
    key = control.ask("opaque_key")["key"]
    assert control.ask("opaque_key") == {"key": key}
    assert key != KEY
    attach(control, tmp_path)

    def is_let_through(stream):
        made = dial(status, stream, key=key, **OPAQUE)
        made.send(FrameKind.OPEN)
        made.until(lambda: {FrameKind.OPENED, FrameKind.ABORT} & {s for s in made.seen if not isinstance(s, dict)})
        assert FrameKind.OPENED in made.seen or "by TLS only" in made.seen[-1]["text"]
        return FrameKind.OPENED in made.seen

    assert not is_let_through("ram")
    assert not is_let_through("disk/scsi0")
    assert vm.came == 0
    control.ask("tls_arm", exports=["drive-scsi0"])
    assert is_let_through("ram.2")
    assert is_let_through("disk/scsi0.2")
    control.ask("tls_disarm")
    assert not is_let_through("ram.3")
    control.ask("tls_arm", exports=["drive-scsi0"])
    with pytest.raises(Recorded):
        control.ask("tls_arm", exports=["drive-virtio9"])
    assert not is_let_through("ram.4")  # what became of the one that failed is not known
    assert vm.came == 1
    assert key not in json.dumps(incoming_start.running(ID))
    assert [path for path in tmp_path.rglob("*") if path.is_file() and key.encode() in path.read_bytes()] == []


def test_without_a_key_for_tcp_nothing_else_is_heard_in_the_clear(start, dial):
    status = start(**QEMU_TLS)
    assert (status["planes"], status["rejected"]) == (["tls"], {})
    key = control_of(dial, status).ask("opaque_key")["key"]
    for stream, options in (
        ("ram", {"plane": "tcp"}),
        ("control.2", {"plane": "tcp"}),
        ("import/tpmstate0", {"plane": "tcp"}),
        ("ram", {**OPAQUE, "key": KEY}),
    ):
        with pytest.raises(GreetingRefused):
            dial(status, stream, **{"key": key, **options})
    assert incoming_start.running(ID)["turned"]["failed"] == 4
    dial(status, "import/tpmstate0")
    dial(status, "ram", key=key, **OPAQUE)


def test_the_two_keys_are_no_substitute_for_each_other(start, dial, vm, tmp_path):
    status = start(transports=("tcp", "qemu-tls"))
    assert status["planes"] == ["tcp", "tls"]
    control = control_of(dial, status)
    key = control.ask("opaque_key")["key"]
    attach(control, tmp_path)
    for options in ({**OPAQUE, "key": KEY}, {"plane": "tcp", "key": key}):
        with pytest.raises(GreetingRefused, match="does not know the key"):
            dial(status, "ram", **options)
    dial(status, "ram", plane="tcp").open()  # clear text, as asked for
    wait_until(lambda: vm.came == 1)


@pytest.mark.parametrize(("options", "plane"), [({"transports": ("tcp", "qemu-tls")}, "tcp"), ({}, "tls")])
def test_key_is_told_over_tls_only_and_only_where_qemu_tls_is_served(start, dial, options, plane):
    with pytest.raises(Recorded) as refusal:
        control_of(dial, start(**options), plane=plane).ask("opaque_key")
    assert refusal.value.code == "REQUEST_INVALID"


def refused_peer(status):
    """One that says more than is read before it is refused."""
    hello = wire.message(FrameKind.HELLO, {"v": 1, "mid": "00" * 16, "stream": "ram", "nonce": "cd" * 32})
    sock = socket.create_connection((OWN, status["port"]), 2, (PEER, 0))
    sock.sendall(hello + bytes(40000))
    return sock


def test_who_is_refused_hears_why_although_it_was_not_heard_out(start):
    """A close with unread input would be a reset, which may take the reason along."""
    with refused_peer(start()) as sock:
        sock.settimeout(5)
        said = b""
        while chunk := sock.recv(4096):  # to the end: no reset
            said += chunk
    assert b"REFUSED" in said
    assert incoming_start.running(ID)["turned"]["failed"] == 1


def test_who_is_refused_and_stays_is_closed_in_a_moment(start):
    status = start()
    with refused_peer(status) as sock:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while True:
                sock.sendall(b"\0")  # and on and on
                time.sleep(0.05)
        assert time.monotonic() - began < 4.0


def test_strangers_change_nothing_for_the_source(start, dial, vm, tmp_path, monkeypatch):
    monkeypatch.setenv("DOOR_DEADLINE", "2")
    status = start()
    place = (OWN, status["port"])
    with pytest.raises(TimeoutError):  # the rule
        socket.create_connection(place, 0.2, (STRANGER, 0))
    assert incoming_start.running(ID)["firewall"]["counters"]["strangers"] >= 1
    Firewall().remove(ID)  # as on a node without nft
    with socket.create_connection(place, 2, (STRANGER, 0)) as stranger:
        assert stranger.recv(100) == b""
    for words in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(300),
        b"\x16\x03\x01\x00\x05hello",
        b"QEVM\x00\x00\x00\x03",
    ):
        with socket.create_connection(place, 2, (PEER, 0)) as other, contextlib.suppress(ConnectionError):
            other.sendall(words)
    silent = [socket.create_connection(place, 2, (PEER, 0)) for _number in range(5)]
    control, ram = control_of(dial, status), dial(status, "ram", plane="tcp")
    attach(control, tmp_path)
    ram.open()
    ram.send(FrameKind.DATA, b"x")
    ram.until(lambda: ram.data == b"x")
    assert vm.came == 1
    turned = incoming_start.running(ID)["turned"]
    assert (turned["stranger"], turned["failed"]) == (1, 5)
    for sock in silent:
        sock.settimeout(6)
        assert sock.recv(10) == b""  # their time is over
        sock.close()
    assert incoming_start.running(ID)["turned"]["late"] == 5


def test_end_takes_streams_port_rule_and_files_along(start, dial):
    status = start()
    stream = dial(status, "ram")
    began = time.monotonic()
    os.kill(status["process"][0].pid, signal.SIGTERM)
    stream.until(lambda: "eof" in stream.seen, 2.0)
    assert status["process"][0].wait(3) == 0
    assert time.monotonic() - began < 2
    assert no_trace()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((OWN, status["port"]), 1, (PEER, 0))


@pytest.mark.parametrize("by", ["request", "end"])
def test_tls_of_qemu_does_not_outlive_the_migration(start, dial, vm, tmp_path, domains, by):
    status = start()
    control = control_of(dial, status)
    attach(control, tmp_path)
    assert control.ask("tls_arm", exports=["drive-scsi0"]) == {"exports": ["drive-scsi0"]}
    qemu = json.loads((tmp_path / "qemu.json").read_text())
    assert qemu["objects"]["crosscluster-tls"]["dir"] == domains["target"]
    assert qemu["objects"]["crosscluster-authz"]["identity"] == "CN=a1.example"
    if by == "request":
        control.ask("tls_disarm")
    else:
        os.kill(status["process"][0].pid, signal.SIGTERM)
        assert status["process"][0].wait(3) == 0
    qemu = json.loads((tmp_path / "qemu.json").read_text())
    assert (qemu["objects"], qemu["parameters"]["tls-creds"]) == ({}, "")


def test_ipv6(start, dial):
    status = start(address="fd00:77::21", peer_address="fd00:77::11", transports=("tcp",))
    stream = dial(status, "ram", plane="tcp", local_address="fd00:77::11")
    assert stream.peer["address"] == f"[fd00:77::21]:{status['port']}"


def test_pumps_and_client_of_the_source_meet_it(start, domains, vm, tmp_path, monkeypatch):
    """The processes and the client that a source worker uses, one stream in the clear and one over TLS."""
    status = start()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    control = launch(status, "control", "tls", domains["source"])
    ram = launch(status, "ram", "tcp")
    end = time.monotonic() + 30
    control.wait_standing(end)
    ram.wait_standing(end)
    control.open(str(tmp_path / "control"))
    control.wait_listening(end)
    with Client(str(tmp_path / "control")) as client:
        client.call("attach", vmid=117, uuid=UUID, ram=str(tmp_path / "117.ram"), nbd=str(tmp_path / "117.nbd"))
        ram.open(str(tmp_path / "ram"))
        ram.wait_listening(end)
        with socket.socket(socket.AF_UNIX) as guest:
            guest.connect(str(tmp_path / "ram"))
            guest.sendall(b"guest memory" * 1000)
            guest.shutdown(socket.SHUT_WR)
            heard = b"".join(iter(lambda: guest.recv(65536), b""))
        assert heard == b"guest memory" * 1000
        assert ram.finish(end).clean
        assert client.call("state")["run_state"] == "inmigrate"
        client.call("bye")
    assert control.finish(end).clean
    wait_until(no_trace)


def launch(status, stream, plane, credentials=None):
    settings = DirectSettings(
        stream, kind_of(stream), plane, OWN, status["port"], "b1.example", "a1.example", ID, stream,
        credentials=credentials, local_address=PEER, limits=PATIENT, open_timeout=20.0,
    )  # fmt: skip
    words = [sys.executable, "-c", f"import sys; from {pump.__name__} import main; sys.exit(main())"]
    return PumpHandle.launch(words, settings, KEY if plane == "tcp" else "")
