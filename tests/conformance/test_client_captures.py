# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorded conversations drive the client: codec, channel, builders, parsers and the mapping, without a socket.

The requests our builders make equal the recorded ones, but for differences without a meaning on the target
(mtunnel-protocol 4.2, 5.2): null is absence, booleans are 0 and 1, `storagemap` and `success` inside `nbd` are dropped
by the target, `operation` has a default, a `lock` line of the config text is dropped.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conformance.capture import Capture

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import mapping
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.mapping import Mode
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.spec import DiskPlace, NicPlace
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox import commands, replies
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.control_channel import ControlChannel
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import (
    AnswerMalformed,
    CommandInvalid,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.target_api import (
    TargetApi,
    TunnelGrant,
    VmStatus,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.vm_config import VmConfig
from ansible_collections.crosscluster.migration.plugins.module_utils.websocket import frames, handshake
from ansible_collections.crosscluster.migration.plugins.module_utils.websocket.errors import UpgradeRefused

CAPTURES = Path(__file__).parent / "captures"
# Conversations a client led to a good end: every request in them is one of ours.
ORDERLY = [
    "client-websocket-online", "client-offline-disk-import", "client-switchover-early-nbdstop",
    "abnormal-resume-then-cut-fin", "remote-migrate-online", "remote-migrate-multidisk-online",
    "remote-migrate-tpm-online",
]  # fmt: skip
# Conversations with requests no client of ours sends: their replies must be understood.
HOSTILE = [
    "commands-9.2.6", "commands-9.1.10", "disk-import-errors", "start-hazards", "permissions-commands",
    "storage-and-config-key-errors", "foreign-lock-change-9.2.6", "config-removed-9.2.6", "quit-arguments-9.2.6",
    "lost-after-start", "insecure-target",
]  # fmt: skip
# Conversations with a target that has the patch series: the builder of clear text and its parser.
PLAIN = ["client-insecure-online", "client-insecure-online-9.1.10", "insecure-parallel-ports", "insecure-target"]
# Plans that can be made again from what was recorded: name, VMID of source and target, running.
PLANS = [
    ("client-websocket-online", 100, 200, True), ("client-switchover-early-nbdstop", 100, 200, True),
    ("remote-migrate-online", 100, 200, True), ("remote-migrate-multidisk-online", 101, 201, True),
    ("remote-migrate-tpm-online", 103, 203, True),
]  # fmt: skip
TICKET = "PVETUNNEL:4EEC61E2::" + "A/b+" * 85 + "=="
FILL = {"PID": "0000AAAA", "PSTART": "00BBBBBB", "STARTTIME": "4EEC61E2", "TICKET": TICKET}


def fill(value):
    """Values for the placeholders of captures/README.md."""
    if isinstance(value, str):
        return re.sub(r"\{\{([A-Z_]+)[^}]*\}\}", lambda found: FILL.get(found.group(1), "x"), value)
    if isinstance(value, list):
        return [fill(member) for member in value]
    return {key: fill(member) for key, member in value.items()} if isinstance(value, dict) else value


def read(name):
    return Capture.read(CAPTURES / f"{name}.jsonl")


def exchanges(name):
    """Request, reply and VMID of each control command that was answered."""
    capture = read(name)
    for event in capture.of("control", sent=True):
        answer = capture.reply_to(event)
        vmid = re.search(r":([0-9]+)$", event.connection)
        if answer is not None and vmid and "frame" not in event.body and "raw" not in answer.body:
            yield fill(event.body), fill(answer.body), int(vmid.group(1))


def pairs(names):
    return [
        pytest.param(request, reply, vmid, id=f"{name}:{number}:{request.get('cmd', 'raw')}")
        for name in names
        for number, (request, reply, vmid) in enumerate(exchanges(name))
    ]


def plain(value):
    """A request without what has no meaning on the target."""
    if isinstance(value, dict):
        return {key: plain(member) for key, member in value.items() if member is not None and key != "storagemap"}
    if isinstance(value, list):
        return [plain(member) for member in value]
    return int(value) if isinstance(value, bool) else value


def comparable(request):
    request = plain(request)
    name = request.get("cmd")
    if name == "bwlimit":
        request.setdefault("operation", "migration")
    elif name == "config":
        request["conf"] = request["conf"].replace("lock: migrate\n", "")
    elif name == "disk-import":
        request["allow_rename"] = int(request["allow_rename"])
    elif name == "start":
        for entry in request["migrate_opts"].get("nbd", {}).values():
            entry.pop("success", None)
    return request


def build(request):
    """The command our builders make for what was asked; CommandInvalid or KeyError for what we never ask."""
    name = request["cmd"]
    simple = {
        "version": commands.version, "query-disk-import": commands.query_disk_import, "fstrim": commands.fstrim,
        "stop": commands.stop, "nbdstop": commands.nbdstop, "resume": commands.resume, "unlock": commands.unlock,
    }  # fmt: skip
    if name in simple:
        return simple[name]()
    return _BUILDERS[name](request)


def _start(request):
    params, options = request["start_params"], request["migrate_opts"]
    return commands.start(
        options["migratedfrom"], options["remote_node"], params["forcemachine"], options.get("nbd", {}),
        params.get("nets-host-mtu"), params.get("forcecpu"), network=options.get("network"),
    )  # fmt: skip


_BUILDERS = {
    "bwlimit": lambda r: commands.bwlimit(r["storages"], r.get("bwlimit")),
    "disk": lambda r: commands.disk(r["storage"], r["drive"], r["format"]),
    "disk-import": lambda r: commands.disk_import(
        r["volname"], r["format"], r["storage"], r["export_formats"].split(","), bool(r["with_snapshots"])
    ),
    "config": lambda r: commands.config(r["conf"].replace("lock: migrate\n", ""), r.get("firewall-config")),
    "start": _start,
    "ticket": lambda r: commands.ticket(r["path"]),
    "quit": lambda r: commands.quit_tunnel(bool(r["cleanup"])),
}


def parse(request, body, vmid):
    """The typed reply to a recorded request."""
    name = request.get("cmd")
    parsers = {
        "version": lambda: replies.VersionReply.parse(body),
        "bwlimit": lambda: replies.BwlimitReply.parse(body),
        "disk": lambda: replies.DiskReply.parse(body, request["storage"], vmid),
        "disk-import": lambda: replies.DiskImportReply.parse(body, vmid, request["export_formats"].split(",")),
        "query-disk-import": lambda: replies.ImportStatus.parse(body, "local", vmid),
        "start": lambda: replies.StartReply.parse(body, vmid, request["migrate_opts"].get("nbd", {})),
        "ticket": lambda: replies.TicketReply.parse(body),
    }
    return parsers.get(name, lambda: replies.check_empty(body, name))()


def carried(command, reply):
    """The reply as the channel gives it after a trip in frames that cut the line anywhere."""
    channel, decoder = ControlChannel(), frames.Decoder()
    assert channel.send(command).endswith(b"\n")
    line = json.dumps(reply).encode() + b"\n"
    wire = b"".join(bytes([0x82, len(part)]) + part for part in (line[at : at + 50] for at in range(0, len(line), 50)))
    found = []
    for at in range(0, len(wire), 37):
        for event in decoder.receive(wire[at : at + 37]):
            found += channel.receive(event.payload)
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(("request_", "reply", "vmid"), pairs(ORDERLY))
def test_builder_makes_recorded_request(request_, reply, vmid):
    assert comparable(build(request_).request()) == comparable(request_)


@pytest.mark.parametrize(("request_", "reply", "vmid"), pairs(ORDERLY))
def test_parser_takes_recorded_reply(request_, reply, vmid):
    found = carried(build(request_), reply)
    assert found.success
    parse(request_, found.body, vmid)


@pytest.mark.parametrize(("request_", "reply", "vmid"), pairs(HOSTILE))
def test_parser_understands_recorded_answer_to_anything(request_, reply, vmid):
    found = carried(commands.version(), reply)
    assert found.success == bool(reply["success"])
    if not found.success:
        assert found.text == reply["msg"][:2000].strip()
        return
    if request_.get("cmd") == "start" and re.search(r"(tcp|nbd):[0-9]", json.dumps(reply)):
        # Anything in clear text is refused, whoever asked for it.
        with pytest.raises(AnswerMalformed):
            parse(request_, found.body, vmid)
        return
    parse(request_, found.body, vmid)


def plain_starts():
    """The recorded requests for clear text and what a target with the patch series answered."""
    for name in PLAIN:
        for request, reply, _vmid in exchanges(name):
            if request.get("cmd") == "start" and reply["success"]:
                yield name, request, reply


def test_listeners_of_recorded_targets_are_understood():
    """Both of those at the proven address: of RAM and disks by TCP, within the network that was asked for."""
    understood = []
    for name, request, reply in plain_starts():
        asked, network = request["migrate_opts"]["nbd"], request["migrate_opts"].get("network")
        found = carried(commands.version(), reply).body
        if request["start_params"]["statefile"] != "tcp" or network is None:
            # RAM on a socket of the node, or an address of the target's own choice.
            with pytest.raises(AnswerMalformed):
                replies.PlainStartReply.parse(found, asked, "198.51.100.2")
            continue
        places = replies.PlainStartReply.parse(found, asked, "198.51.100.2")
        assert places.ram_port != places.nbd_port
        with pytest.raises(AnswerMalformed):
            replies.PlainStartReply.parse(found, asked, "198.51.100.3")
        assert comparable(_start(request).request()) == comparable(request)
        understood.append((name, places.ram_port, places.nbd_port))
    assert {name for name, _ram, _nbd in understood} == set(PLAIN)
    parallel = [ports for name, *ports in understood if name == "insecure-parallel-ports"]
    assert parallel == [[60000, 60001], [60002, 60003]]


@pytest.mark.parametrize(("request_", "reply", "vmid"), pairs(PLAIN[:2]))
def test_builder_makes_recorded_request_to_a_patched_target(request_, reply, vmid):
    assert comparable(build(request_).request()) == comparable(request_)


def test_capability_is_the_targets_own_word():
    for name in PLAIN[:2]:
        [caps] = [replies.VersionReply.parse(r).caps for q, r, _v in exchanges(name) if q.get("cmd") == "version"]
        assert caps == {"insecure-remote"}
    [stock] = [r for q, r, _v in exchanges("client-websocket-online") if q.get("cmd") == "version"][:1]
    assert replies.VersionReply.parse(stock).caps == frozenset()


def test_builder_makes_most_of_the_recorded_commands_and_no_dangerous_one():
    ours = 0
    for request, _reply, _vmid in exchanges("commands-9.2.6"):
        try:
            ours += comparable(build(request).request()) == comparable(request)
        except (CommandInvalid, KeyError, AttributeError):
            continue
    assert ours >= 30


@pytest.mark.parametrize("name", ORDERLY + HOSTILE)
def test_grant_of_recorded_tunnel_is_taken(name):
    for event in read(name).of("http"):
        body = fill(event.body)
        found = re.search(r"/qemu/([0-9]+)/mtunnel$", body.get("url", ""))
        if event.sent and found:
            vmid = int(found.group(1))
        data = (body.get("json") or {}).get("data") if not event.sent else None
        if isinstance(data, dict) and "ticket" in data:
            assert TunnelGrant.parse(data, vmid).socket == f"/run/qemu-server/{vmid}.mtunnel"


@pytest.mark.parametrize("name", [*ORDERLY, "ws-upgrade-errors"])
def test_upgrade_is_the_recorded_one(name):
    capture = read(name)
    for event in capture.of("ws-handshake", sent=True):
        answer = capture.reply_to(event)
        if answer is None or not {"socket", "ticket"} <= set(event.body["query"]):
            continue
        recorded = fill({key: value for key, value in event.body.items() if key != "query_raw"})
        if answer.body["status"] == 101:
            check_upgrade(recorded, answer.body)
        else:
            check_refusal(answer.body)


def check_upgrade(recorded, answer):
    node, vmid = re.search(r"/nodes/([^/]+)/qemu/([0-9]+)/", recorded["path"]).groups()
    path = TargetApi(None, node).tunnel_path(int(vmid), recorded["query"]["ticket"], recorded["query"]["socket"])
    sent, key = handshake.request("target", 8006, path, {"Authorization": recorded["headers"]["Authorization"]})
    lines = sent.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:-2])
    assert lines[0].split(" ")[1].startswith(recorded["path"] + "?")
    ours = {name for name in headers if name not in ("Host",)}
    assert ours == set(recorded["headers"]) - {"Sec-WebSocket-Protocol"}
    head = "".join(f"{name}: {value}\r\n" for name, value in answer["headers"].items())
    head = head.replace("{{WS_ACCEPT}}", handshake.accept_value(key))
    response = handshake.Response(key)
    assert response.receive(f"HTTP/1.1 101 {answer['reason']}\r\n{head}\r\nrest".encode()) == b"rest"


def check_refusal(answer):
    response = handshake.Response("x")
    with pytest.raises(UpgradeRefused) as caught:
        response.receive(f"HTTP/1.1 {answer['status']} {answer['reason']}\r\nContent-Length: 0\r\n\r\n".encode())
    assert caught.value.status == answer["status"]


@pytest.mark.parametrize("name", ["client-switchover-early-nbdstop", "status-current-stages"])
def test_status_of_recorded_stages_is_understood(name):
    capture = read(name)
    words = set()
    for event in capture.of("http", sent=True):
        answer = capture.reply_to(event)
        if event.body["url"].endswith("/status/current") and answer is not None and answer.body["status"] == 200:
            found = VmStatus.parse(fill(answer.body["json"]["data"]), answer.at - event.at)
            words.add(found.qmpstatus)
            # Only an answer of QMP itself proves that the guest runs (pve-cli 1.3).
            assert found.runs == (found.qmpstatus == "running" and found.genuine)
    assert {"inmigrate", "paused", "running"} <= words


# The whole plan of a migration, made again from the config the target was told.


def source_config(conf, source, target):
    """A source whose plan leads to the recorded config: other VMID and bridges, everything else equal."""
    text = conf.replace(f"/vm-{target}-", f"/vm-{source}-").replace(f":{target}/", f":{source}/")
    return VmConfig.parse(re.sub(r"bridge=vmbr0", "bridge=vmbr9", text))


def one(name, command):
    return [request for request, _reply, _vmid in exchanges(name) if request.get("cmd") == command]


@pytest.mark.parametrize(("name", "source", "target", "running"), PLANS, ids=[plan[0] for plan in PLANS])
def test_plan_leads_to_recorded_requests(name, source, target, running):
    recorded = comparable(one(name, "config")[0])["conf"]
    config = source_config(recorded, source, target)
    assert VmConfig.parse(recorded).format() == recorded
    moved = mapping.volumes(config, running, {"default": DiskPlace("local")})
    nics = mapping.mapped_nics(config, {"default": NicPlace("vmbr0")})
    strings = {}
    disks = [(request, reply) for request, reply, _vmid in exchanges(name) if request["cmd"] == "disk"]
    for volume in moved:
        if volume.mode is Mode.MIRROR:
            command = commands.disk(volume.storage, volume.parameters, volume.format)
            answers = [reply for request, reply in disks if comparable(request) == comparable(command.request())]
            assert len(answers) == 1, volume.key
            strings[volume.key] = answers[0]["drivestr"]
        else:
            strings[volume.key] = mapping.imported_drive(volume, imported(name, volume, source, target))
    assert mapping.target_config(config, strings, nics) == recorded
    check_start(name, strings, nics)


def imported(name, volume, source, target):
    """The volume id the target gave for an import our client would have asked for in the same words."""
    stream, with_snapshots = mapping.export_format(volume.source_format)
    there = mapping.import_volume_name(volume.volid, source, target)
    command = commands.disk_import(there, volume.format, volume.storage, [stream], with_snapshots)
    assert comparable(command.request()) in [comparable(request) for request in one(name, "disk-import")]
    return f"local:{target}/{there}"


def check_start(name, strings, nics):
    recorded = comparable(one(name, "start")[0])
    mtu = mapping.nets_host_mtu(nics, {key: 1500 for key in nics})
    nbd = {
        key: {"volid": strings[key].partition(",")[0], "drivestr": strings[key]}
        for key in recorded["migrate_opts"]["nbd"]
    }
    made = commands.start("source", "target", recorded["start_params"]["forcemachine"], nbd, mtu)
    assert comparable(made.request()) == recorded
