# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checked replies: what the target may say, and the corpus of what it may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox import replies
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import (
    AnswerMalformed,
    VersionUnsupported,
)

VMID = 200
VOLID = "local:200/vm-200-disk-0.qcow2"
DRIVESTR = VOLID + ",format=qcow2,size=1G"
ASKED = {"scsi0": {"volid": VOLID, "drivestr": DRIVESTR}}
TICKET = "PVETUNNEL:4EEC61E2::" + "A" * 342 + "=="
RAM = "/run/qemu-server/200.migrate"
NBD = "/run/qemu-server/200_nbd.migrate"
# safety 9: strings that the loose patterns of other clients accept, and more of the kind.
BAD_SOCKETS = [
    "/run/qemu-server/201.migrate", "/run/qemu-server/a/b/c.migrate", "/run/qemu-server//etc.migrate",
    "/run/qemu-server/../200.migrate", RAM + "\n", RAM + " ", " " + RAM, "/run/qemu-server/200.qmp", "200.migrate",
    "/run/qemu-server/200_nbd.migrate ; rm", "/run/qemu-server/２００.migrate", "/run/qemu-server/200.migrate\0", "",
    None, 0, [], ["/run/qemu-server/200.migrate"], {}, True,
]  # fmt: skip
BAD_URIS = [
    "nbd:169.254.169.254:80:exportname=drive-scsi0", "nbd:8.8.8.8:60001:exportname=drive-scsi0",
    "nbd:localhost:22:exportname=drive-scsi0", "nbd:999.999.999.999:99999:exportname=drive-scsi0",
    "nbd:[::ffff:8.8.8.8]:60000:exportname=drive-scsi0", "nbd:192.0.2.2:٦٠٠٠٠:exportname=drive-scsi0",
    "nbd:192.0.2.2:0:exportname=drive-scsi0", f"nbd:unix:{NBD}:exportname=drive-scsi1",
    f"nbd:unix:{NBD}:exportname=drive-scsi0\n", f"nbd:unix:{RAM}:exportname=drive-scsi0", f"nbd:unix:{NBD}",
    "nbd:unix:/run/qemu-server/201_nbd.migrate:exportname=drive-scsi0",
    f"nbd+unix:///drive-scsi0?socket={NBD}", None, 1,
]  # fmt: skip


def start_reply(**migrate):
    plane = {"proto": "unix", "addr": RAM, "uri": "unix:" + RAM, "unix_sockets": [NBD], **migrate}
    return {
        "migrate": plane,
        "drives": {"scsi0": {**ASKED["scsi0"], "nbd_uri": f"nbd:unix:{NBD}:exportname=drive-scsi0"}},
    }


# version


def test_version_takes_api_and_age():
    assert replies.VersionReply.parse({"api": 2, "age": 0}) == replies.VersionReply(2, 0)


def test_version_takes_capabilities_and_unknown_announcements():
    found = replies.VersionReply.parse({"api": 2, "age": 0, "caps": ["insecure-remote"], "new": 1})
    assert found.caps == {"insecure-remote"}


@pytest.mark.parametrize(("api", "age"), [(1, 0), (3, 0), (4, 1)], ids=str)
def test_version_refuses_other_protocol(api, age):
    with pytest.raises(VersionUnsupported):
        replies.VersionReply.parse({"api": api, "age": age})


def test_version_takes_newer_target_that_still_speaks_ours():
    assert replies.VersionReply.parse({"api": 3, "age": 1}).api == 3


@pytest.mark.parametrize(
    "raw",
    [{}, {"api": 2}, {"api": "two", "age": 0}, {"api": True, "age": 0}, {"api": 2, "age": -1}, {"api": 2.0, "age": 0},
     {"api": 2, "age": 0, "caps": "x"}, {"api": 2, "age": 0, "caps": [1]}, {"api": 1 << 63, "age": 0}],
    ids=str,
)  # fmt: skip
def test_version_refuses_malformed(raw):
    with pytest.raises(AnswerMalformed):
        replies.VersionReply.parse(raw)


# bwlimit


@pytest.mark.parametrize(
    ("value", "rate"),
    [(None, None), (0, None), (1000, 1024000), ("10000", 10240000), (1.5, 1536), ("0.1", 1024)],
    ids=str,
)
def test_bwlimit_gives_bytes_per_second(value, rate):
    assert replies.BwlimitReply.parse({"bwlimit": value}).bytes_per_second == rate


@pytest.mark.parametrize("value", [-1, "x", True, [], "1e9", 2**63, float("nan"), float("inf"), "١"], ids=str)
def test_bwlimit_refuses(value):
    with pytest.raises(AnswerMalformed):
        replies.BwlimitReply.parse({"bwlimit": value})


# disk


def test_disk_takes_volume_of_this_vm():
    found = replies.DiskReply.parse({"volid": VOLID, "drivestr": DRIVESTR}, "local", VMID)
    assert found == replies.DiskReply(VOLID, DRIVESTR)


def test_disk_takes_block_storage():
    reply = {"volid": "thin:vm-200-disk-1", "drivestr": "thin:vm-200-disk-1,size=1G"}
    assert replies.DiskReply.parse(reply, "thin", VMID).volid == "thin:vm-200-disk-1"


@pytest.mark.parametrize(
    "volid",
    ["local:201/vm-201-disk-0.qcow2", "other:200/vm-200-disk-0.qcow2", "local:200/vm-2001-disk-0.qcow2", "/dev/sda",
     "local:../vm-200-disk-0.qcow2", "local:200/../vm-200-disk-0.qcow2", VOLID + "\n", "local:", "local", "", None, 5,
     "local:200/vm-200-disk-0.qcow2,file=x", "local:200//vm-200-disk-0.qcow2", "local:200/vm-200-disk 0", "x" * 5000],
    ids=repr,
)  # fmt: skip
def test_disk_refuses_volume(volid):
    with pytest.raises(AnswerMalformed):
        replies.DiskReply.parse({"volid": volid, "drivestr": f"{volid},size=1G"}, "local", VMID)


@pytest.mark.parametrize(
    "drivestr",
    ["local:200/vm-200-disk-1.qcow2,size=1G", VOLID + "x,size=1G", DRIVESTR + "\nargs: x", "", None, DRIVESTR + "\0",
     DRIVESTR + "ü"],
    ids=repr,
)  # fmt: skip
def test_disk_refuses_drive_string(drivestr):
    with pytest.raises(AnswerMalformed):
        replies.DiskReply.parse({"volid": VOLID, "drivestr": drivestr}, "local", VMID)


def test_disk_refuses_unknown_key():
    with pytest.raises(AnswerMalformed, match="nobody asked for"):
        replies.DiskReply.parse({"volid": VOLID, "drivestr": DRIVESTR, "more": 1}, "local", VMID)


# disk-import


def test_disk_import_takes_socket_and_offered_format():
    raw = {"socket": "/run/qemu-server/200.storage", "format": "raw+size"}
    assert replies.DiskImportReply.parse(raw, VMID, ["raw+size"]).format == "raw+size"


@pytest.mark.parametrize("socket", BAD_SOCKETS, ids=repr)
def test_disk_import_refuses_socket(socket):
    with pytest.raises(AnswerMalformed):
        replies.DiskImportReply.parse({"socket": socket, "format": "raw+size"}, VMID, ["raw+size"])


@pytest.mark.parametrize("stream", ["zfs", "", None, ["raw+size"], "raw+size\n"], ids=repr)
def test_disk_import_refuses_format_not_offered(stream):
    raw = {"socket": "/run/qemu-server/200.storage", "format": stream}
    with pytest.raises(AnswerMalformed):
        replies.DiskImportReply.parse(raw, VMID, ["raw+size"])


def test_import_status_is_pending_with_or_without_message():
    assert replies.ImportStatus.parse({"status": "pending", "msg": "a\nb"}, "local", VMID).message == "a b"
    assert replies.ImportStatus.parse({"status": "pending"}, "local", VMID).state is replies.ImportState.PENDING


def test_import_status_complete_names_the_volume():
    assert replies.ImportStatus.parse({"status": "complete", "volid": VOLID}, "local", VMID).volid == VOLID


@pytest.mark.parametrize(
    "raw",
    [{"status": "complete"}, {"status": "done"}, {"status": ["complete"]}, {}, {"status": "pending", "msg": 5},
     {"status": "complete", "volid": "local:201/vm-201-disk-0.raw"}, {"status": "pending", "x": 1}],
    ids=str,
)  # fmt: skip
def test_import_status_refuses(raw):
    with pytest.raises(AnswerMalformed):
        replies.ImportStatus.parse(raw, "local", VMID)


# start


def test_start_takes_unix_sockets_of_this_vm():
    found = replies.StartReply.parse(start_reply(), VMID, ASKED)
    assert (found.ram_socket, found.nbd_socket) == (RAM, NBD)
    assert found.drives["scsi0"].export == "drive-scsi0"


@pytest.mark.parametrize("sockets", [{}, {"unix_sockets": []}, {"unix_sockets": None}], ids=str)
def test_start_without_disks_names_no_nbd_socket(sockets):
    plane = {"proto": "unix", "addr": RAM, "uri": "unix:" + RAM, **sockets}
    found = replies.StartReply.parse({"migrate": plane, "drives": {}}, VMID, {})
    assert (found.nbd_socket, found.drives) == (None, {})


@pytest.mark.parametrize("addr", BAD_SOCKETS, ids=repr)
def test_start_refuses_ram_socket(addr):
    with pytest.raises(AnswerMalformed):
        replies.StartReply.parse(start_reply(addr=addr), VMID, ASKED)


@pytest.mark.parametrize("socket", BAD_SOCKETS, ids=repr)
def test_start_refuses_nbd_socket(socket):
    for sockets in ([socket], [NBD, socket], socket):
        with pytest.raises(AnswerMalformed):
            replies.StartReply.parse(start_reply(unix_sockets=sockets), VMID, ASKED)


@pytest.mark.parametrize(
    "migrate",
    [{"proto": "tcp"}, {"proto": "tcp", "addr": "192.0.2.2", "port": "60000"}, {"uri": "tcp:192.0.2.2:60000"},
     {"uri": "exec:/bin/sh"}, {"proto": None}, {"port": "60000"}, {"unix_sockets": []}],
    ids=str,
)  # fmt: skip
def test_start_refuses_any_plane_but_unix(migrate):
    with pytest.raises(AnswerMalformed):
        replies.StartReply.parse(start_reply(**migrate), VMID, ASKED)


@pytest.mark.parametrize("uri", BAD_URIS, ids=repr)
def test_start_refuses_nbd_uri(uri):
    raw = start_reply()
    raw["drives"]["scsi0"]["nbd_uri"] = uri
    with pytest.raises(AnswerMalformed):
        replies.StartReply.parse(raw, VMID, ASKED)


@given(st.text(max_size=80))
def test_start_accepts_no_uri_but_the_expected(text):
    raw = start_reply()
    raw["drives"]["scsi0"]["nbd_uri"] = text
    with pytest.raises(AnswerMalformed):
        replies.StartReply.parse(raw, VMID, ASKED)


def test_start_refuses_other_drives_than_asked():
    for drives in ({}, {"scsi1": {}}, [], None, {**start_reply()["drives"], "scsi1": {}}):
        with pytest.raises(AnswerMalformed):
            replies.StartReply.parse({**start_reply(), "drives": drives}, VMID, ASKED)


@pytest.mark.parametrize("key", ["volid", "drivestr"])
def test_start_refuses_another_volume(key):
    raw = start_reply()
    raw["drives"]["scsi0"][key] += "x"
    with pytest.raises(AnswerMalformed):
        replies.StartReply.parse(raw, VMID, ASKED)


@pytest.mark.parametrize("raw", [{}, {"migrate": []}, {"migrate": {}}, {"migrate": "unix"}], ids=str)
def test_start_refuses_success_without_fields(raw):
    with pytest.raises(AnswerMalformed):
        replies.StartReply.parse(raw, VMID, ASKED)


# ticket, and commands without an answer


def test_ticket_does_not_show_in_repr():
    assert TICKET not in repr(replies.TicketReply.parse({"ticket": TICKET}))


@pytest.mark.parametrize(
    "ticket",
    ["", None, "PVE:x", TICKET + "\n", TICKET + "&socket=/x", TICKET.replace("4EEC61E2", "4eec61e2"), 5],
    ids=repr,
)
def test_ticket_refuses_without_showing_it(ticket):
    with pytest.raises(AnswerMalformed) as caught:
        replies.TicketReply.parse({"ticket": ticket})
    assert not ticket or str(ticket) not in str(caught.value)


def test_empty_reply_has_nothing_but_success():
    replies.check_empty({"success": True}, "resume")
    with pytest.raises(AnswerMalformed):
        replies.check_empty({"volid": "x"}, "resume")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["volid", "drivestr", "migrate", "drives", "socket", "format", "status", "bwlimit", "ticket", "api"]
)


@given(st.dictionaries(KEYS | st.text(max_size=5), JSON, max_size=5))
def test_parsers_survive_any_object(raw):
    for parse in (
        lambda: replies.DiskReply.parse(raw, "local", VMID),
        lambda: replies.StartReply.parse(raw, VMID, ASKED),
        lambda: replies.DiskImportReply.parse(raw, VMID, ["raw+size"]),
        lambda: replies.TicketReply.parse(raw),
    ):
        with pytest.raises(AnswerMalformed):
            parse()


# start in clear text (mtunnel-protocol 6.2)

HERE, HERE6 = "198.51.100.2", "fd00:5::2"


def plain_reply(host=HERE, ram="60000", nbd="60001", **migrate):
    plane = {"proto": "tcp", "addr": host, "port": ram, "uri": f"tcp:{host}:{ram}", **migrate}
    uri = f"nbd:{host}:{nbd}:exportname=drive-scsi0"
    return {"migrate": plane, "drives": {"scsi0": {**ASKED["scsi0"], "nbd_uri": uri}}}


@pytest.mark.parametrize(("host", "address"), [(HERE, HERE), (f"[{HERE6}]", HERE6), ("[FD00:5:0::2]", HERE6)])
def test_plain_start_tells_the_proven_address_and_its_ports(host, address):
    found = replies.PlainStartReply.parse(plain_reply(host), ASKED, address)
    assert found == replies.PlainStartReply(address, 60000, 60001)


def test_plain_start_without_disks_has_no_port_for_them():
    found = replies.PlainStartReply.parse({**plain_reply(), "drives": None}, {}, HERE)
    assert found == replies.PlainStartReply(HERE, 60000, None)


@pytest.mark.parametrize(
    "host",
    [
        "198.51.100.3", "localhost", "127.0.0.1", "169.254.169.254", "target.example", "198.51.100.2.", "198.51.100.02",
        "3325256706", f"[{HERE}]", "[::ffff:198.51.100.2]", HERE6, "[fd00:5::2%eth0]", "999.999.999.999", "",
        "198.51.100.2 ", "１９８.51.100.2", "/run/qemu-server/200.migrate",
    ],
)  # fmt: skip
@pytest.mark.parametrize("address", [HERE, HERE6])
def test_plain_start_elsewhere_is_refused(host, address):
    with pytest.raises(AnswerMalformed):
        replies.PlainStartReply.parse(plain_reply(host), ASKED, address)


@pytest.mark.parametrize(
    "port",
    [60000, "59999", "60051", "0", "-60000", "060000", "60000.0", "６００００", "60000 ", "8006", "", None, True, []],
)
def test_port_outside_of_the_range_of_proxmox_is_refused(port):
    with pytest.raises(AnswerMalformed):
        replies.PlainStartReply.parse(plain_reply(ram=port), ASKED, HERE)
    with pytest.raises(AnswerMalformed):
        replies.PlainStartReply.parse(plain_reply(nbd=port if port != 60000 else "60051"), ASKED, HERE)


@pytest.mark.parametrize("uri", [*BAD_URIS, f"nbd:{HERE}:60001:exportname=drive-scsi1", f"nbd:{HERE}:60001"])
def test_plain_disk_elsewhere_or_another_one_is_refused(uri):
    raw = plain_reply()
    raw["drives"]["scsi0"]["nbd_uri"] = uri
    with pytest.raises(AnswerMalformed):
        replies.PlainStartReply.parse(raw, ASKED, HERE)


@pytest.mark.parametrize(
    "migrate",
    [
        {"proto": "unix"}, {"uri": "tcp:8.8.8.8:60000"}, {"uri": f"tcp:{HERE}:60002"}, {"unix_sockets": []}, {"new": 1},
        {"addr": None}, {"uri": None},
    ],
)  # fmt: skip
def test_plain_plane_that_contradicts_itself_is_refused(migrate):
    with pytest.raises(AnswerMalformed):
        replies.PlainStartReply.parse(plain_reply(**migrate), ASKED, HERE)


def test_plain_start_with_one_port_for_everything_or_other_drives_is_refused():
    two = {**ASKED, "virtio0": ASKED["scsi0"]}
    raw = plain_reply()
    raw["drives"]["virtio0"] = {**ASKED["scsi0"], "nbd_uri": f"nbd:{HERE}:60002:exportname=drive-virtio0"}
    for reply, asked in ((plain_reply(nbd="60000"), ASKED), (plain_reply(), two), (plain_reply(), {}), (raw, two)):
        with pytest.raises(AnswerMalformed):
            replies.PlainStartReply.parse(reply, asked, HERE)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=40) | st.sampled_from([HERE, "60000", "tcp"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["migrate", "drives", "scsi0", "proto", "addr", "port", "uri", "nbd_uri", "volid"]),
                inner,
            )
        ),
    )
)
def test_no_answer_gets_past_the_parser_with_another_address(raw):
    raw = raw if isinstance(raw, dict) else {"migrate": raw}
    try:
        found = replies.PlainStartReply.parse(raw, ASKED, HERE)
    except AnswerMalformed:
        return
    assert (found.address, found.ram_port in range(60000, 60051)) == (HERE, True)
