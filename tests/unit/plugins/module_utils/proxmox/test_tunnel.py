# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tunnel against a double of the target's websocket proxy on the loopback."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from unit.fakes.proxy_double import ProxyDouble, make_certificate

from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox import commands, tunnel
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.endpoint import Endpoint
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import (
    AnswerMalformed,
    ChannelLost,
    CommandRefused,
    EndpointInvalid,
    ReplyTimeout,
    TunnelPoisoned,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.tunnel import Tunnel

SECRET = "12345678-canary"
PATH = "/api2/json/nodes/b1/qemu/200/mtunnelwebsocket?ticket=PVETUNNEL%3Ax&socket=%2Frun%2Fqemu-server%2F200.mtunnel"
VERSION = b'{"success":true,"api":2,"age":0}\n'


class Clock:
    """Real time, moved forward by hand."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.monotonic() + self.ahead


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def connect(certificate):
    """Open a tunnel to a double; gives both and the clock."""
    opened = []

    def start(fingerprint=None, path=PATH, seconds=5.0, **options):
        double = ProxyDouble(certificate[0], **options)
        endpoint = Endpoint("127.0.0.1", double.port, "b1", "mig@pve", "t1", fingerprint or certificate[1])
        clock = Clock()
        made = Tunnel.open(endpoint, SECRET, path, clock() + seconds, clock)
        opened.append((made, double))
        return made, double, clock

    yield start
    for made, double in opened:
        made.close()
        with contextlib.suppress(OSError):
            double.hang_up()
        double.join(5)
        assert double.breaches == []


def script(*answers):
    """Answers one line after the other, whatever the frames."""
    left, buffer = list(answers), bytearray()

    def answer(payload):
        buffer.extend(payload)
        out = b""
        while b"\n" in buffer:
            del buffer[: buffer.index(b"\n") + 1]
            out += left.pop(0)
        return out

    return answer


def ok(**members):
    return json.dumps({**members, "success": True}).encode() + b"\n"


def test_open_upgrades_with_the_token(connect):
    made, double, _clock = connect(answer=script(VERSION))
    assert made.version().api == 2
    request = double.request.decode().split("\r\n")
    assert request[0] == f"GET {PATH} HTTP/1.1"
    assert f"Authorization: PVEAPIToken=mig@pve!t1={SECRET}" in request
    assert made.vmid == 200


def test_commands_and_typed_replies(connect):
    volid = "local:200/vm-200-disk-0.raw"
    nbd = "/run/qemu-server/200_nbd.migrate"
    started = {
        "migrate": {"proto": "unix", "addr": "/run/qemu-server/200.migrate", "uri": "unix:/run/qemu-server/200.migrate",
                    "unix_sockets": [nbd]},
        "drives": {"scsi0": {"volid": volid, "drivestr": volid + ",size=1G",
                             "nbd_uri": f"nbd:unix:{nbd}:exportname=drive-scsi0"}},
    }  # fmt: skip
    ticket = "PVETUNNEL:4EEC61E2::" + "A" * 342 + "=="
    made, double, _clock = connect(answer=script(
        ok(bwlimit="1000"), ok(volid=volid, drivestr=volid + ",size=1G"),
        ok(socket="/run/qemu-server/200.storage", format="raw+size"), ok(status="complete", volid=volid), ok(),
        ok(**started), ok(ticket=ticket), ok(), ok(), ok(), ok(), ok(), ok(),
    ))  # fmt: skip
    assert made.bwlimit(["local"]).bytes_per_second == 1024000
    disk = made.disk("local", {"interface": "scsi", "index": "0", "size": 1 << 30}, "raw")
    assert made.disk_import("vm-200-disk-1.raw", "raw", "local", ["raw+size"], False).format == "raw+size"
    assert made.query_disk_import().volid == volid
    made.config("cores: 1\n")
    assert set(made.start("a1", "b1", "q35", {"scsi0": disk}).drives) == {"scsi0"}
    assert made.ticket(nbd) == ticket
    for method in (made.nbdstop, made.resume, made.fstrim, made.stop, made.unlock):
        method()
    made.quit(cleanup=True)
    assert [json.loads(line)["cmd"] for line in double.data.decode().splitlines()] == [
        "bwlimit", "disk", "disk-import", "query-disk-import", "config", "start", "ticket", "nbdstop", "resume",
        "fstrim", "stop", "unlock", "quit",
    ]  # fmt: skip


def test_long_line_goes_in_frames_the_server_takes(connect):
    made, double, _clock = connect(answer=script(ok()))
    made.config("#" + "x" * 300000 + "\n")
    assert max(double.frames) == 131072
    assert sum(double.frames) == len(double.data)


def test_refusal_names_command_and_text_and_leaves_the_tunnel_sound(connect):
    made, _double, _clock = connect(answer=script(b'{"success":false,"msg":"VM 200 not running\\n"}\n', VERSION))
    with pytest.raises(CommandRefused) as caught:
        made.resume()
    assert (caught.value.text, caught.value.facts["command"]) == ("VM 200 not running", "resume")
    assert made.version()


def test_malformed_answer_of_one_command_leaves_the_tunnel_sound(connect):
    made, _double, _clock = connect(answer=script(ok(volid="x", drivestr="x"), ok()))
    with pytest.raises(AnswerMalformed):
        made.disk("local", {"interface": "scsi", "index": "0", "size": 1024}, "raw")
    assert made.poisoned == ""
    made.stop()


def test_line_that_is_no_reply_poisons(connect):
    made, _double, _clock = connect(answer=script(b"nonsense\n"))
    with pytest.raises(AnswerMalformed):
        made.version()
    assert made.poisoned
    with pytest.raises(TunnelPoisoned):
        made.stop()


def test_timeout_poisons_and_the_late_reply_is_still_heard(connect):
    made, double, _clock = connect()
    with pytest.raises(ReplyTimeout) as caught:
        made.resume(timeout=0.05)
    assert caught.value.facts == {"command": "resume"}
    with pytest.raises(TunnelPoisoned):
        made.unlock()
    assert made.late_reply(0.05) is None
    double.send(ok())
    assert made.late_reply(5.0) == {}
    assert made.late_reply(5.0) is None


def test_late_refusal_is_a_refusal(connect):
    made, double, _clock = connect()
    with pytest.raises(ReplyTimeout):
        made.resume(timeout=0.05)
    double.send(b'{"success":false,"msg":"got timeout"}\n')
    with pytest.raises(CommandRefused):
        made.late_reply(5.0)


def test_end_of_the_connection_is_a_lost_channel(connect):
    made, double, _clock = connect()
    double.hang_up()
    with pytest.raises(ChannelLost) as caught:
        made.resume()
    assert caught.value.facts["outstanding"] in ("resume", "")
    with pytest.raises(ChannelLost):
        made.tick()
    assert made.poisoned


def test_reset_is_a_lost_channel(connect):
    made, double, _clock = connect()
    double.reset()
    double.join(5)
    with pytest.raises(ChannelLost):
        made.version()


def test_invalid_frame_is_a_lost_channel(connect):
    made, double, _clock = connect()
    double.raw(b"\x02\x01x")
    with pytest.raises(ChannelLost) as caught:
        made.version()
    assert "fragmented" in caught.value.facts["reason"]


def test_reply_that_came_before_the_end_counts(connect):
    doubles = []

    def last_words(_payload):
        doubles[0].hang_up()
        return VERSION

    made, double, _clock = connect(answer=last_words)
    doubles.append(double)
    assert made.version().api == 2
    double.join(5)
    with pytest.raises(ChannelLost):
        made.tick()


def test_half_a_reply_does_not_count(connect):
    made, double, _clock = connect()
    double.send(VERSION[:10])
    double.hang_up()
    double.join(5)
    with pytest.raises(ChannelLost):
        made.call(commands.version())


def test_tick_pings_every_30_seconds(connect):
    made, double, clock = connect(answer=script(VERSION))
    made.tick()
    clock.ahead = tunnel.PING_INTERVAL
    made.tick()
    made.tick()
    assert made.version()
    assert double.pings == 1


def test_close_sends_a_close_frame(connect):
    made, double, _clock = connect()
    made.close()
    double.join(5)
    assert double.close_status == 1000
    with pytest.raises(ChannelLost):
        made.version()


def test_open_needs_a_path_of_a_vm(connect):
    with pytest.raises(EndpointInvalid):
        connect(path="/api2/json/nodes/b1")


def test_start_in_clear_text_takes_nothing_but_the_proven_address(connect):
    volid = "local:200/vm-200-disk-0.raw"
    asked = {"scsi0": {"volid": volid, "drivestr": volid + ",size=1G"}}

    def listening(address):
        migrate = {"proto": "tcp", "addr": address, "port": "60000", "uri": f"tcp:{address}:60000"}
        return ok(
            migrate=migrate,
            drives={"scsi0": {**asked["scsi0"], "nbd_uri": f"nbd:{address}:60001:exportname=drive-scsi0"}},
        )

    made, double, _clock = connect(answer=script(listening("10.77.0.21"), listening("10.77.0.22"), ok()))
    command = commands.start("a1", "b1", "q35", asked, network="10.77.0.0/24")
    assert made.start_plain(command, "10.77.0.21").ram_port == 60000
    with pytest.raises(AnswerMalformed):
        made.start_plain(command, "10.77.0.21")
    made.stop()  # the channel is sound: what was started is stopped over it
    assert [json.loads(line)["cmd"] for line in double.data.decode().splitlines()] == ["start", "start", "stop"]
