# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens on the migration network learns nothing of the guest, unless clear text was asked for; who talks on it
disturbs nothing."""

from __future__ import annotations

import json
import os
import secrets
import struct

import pytest

from e2e.attackers import STRANGERS, Attacker, in_the_middle, replaying, steal_certificate
from e2e.capture import Capture
from e2e.direct import PORTS, assert_nobody_listens, assert_refused, incoming_logs, listening_port, over
from e2e.test_guard import until
from lab.network import Segment
from lab.vms import Disk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

MIB = 1 << 20
HANDSHAKE = b"\x16\x03"  # a TLS record of the handshake, of any version (RFC 8446 5.1)
ALERT = b"\x15\x03"
FRAMES = range(1, 11)  # direct-transports 5: type, three zero bytes, length, payload
HELLO, CHALLENGE, DATA, ABORT = 1, 2, 7, 10
STARTTLS = 5  # an option of NBD


def between_workers(streams):
    """The bytes of each direction of each connection to the port of an incoming worker."""
    return [data for (_, source, _, target), data in streams.items() if source in PORTS or target in PORTS]


def mark(vm):
    """Put a random text of its own into the guest's RAM and one onto its disk; gives both."""
    ram, disk = (f"marker-{secrets.token_hex(16)}" for _ in range(2))
    vm.guest.command("m" + ram)
    image = os.open(vm.source.image(vm.vm.volumes["scsi0"]), os.O_WRONLY)
    try:
        os.pwrite(image, disk.encode().ljust(4096, b"\0"), 48 * MIB)  # the guest has nothing there
        os.fsync(image)
    finally:
        os.close(image)
    return ram.encode(), disk.encode()


def carried_by(stream):
    """What the frames of one direction carry: the stream's name, where it is said, and the data."""
    name, data, at = "", b"", 0
    while at < len(stream):
        kind, zeros, size = struct.unpack_from(">B3sI", stream, at)
        assert (kind in FRAMES, zeros) == (True, bytes(3)), f"no frame at {at}"
        payload = stream[at + 8 : at + 8 + size]
        at += 8 + size
        if kind == HELLO:
            name = json.loads(payload)["stream"]
        elif kind == DATA:
            data += payload
    return name, data


def assert_encrypted_by_qemu(streams):
    """``control`` by the workers, RAM and disks by QEMU: greeting and frames in the clear, in them nothing but TLS."""
    found = {}
    for (source, port, target, to), sent in streams.items():
        if to not in PORTS or sent.startswith(HANDSHAKE):
            continue
        answered = streams[target, to, source, port]
        assert (sent[0], answered[0]) == (HELLO, CHALLENGE)
        name, request = carried_by(sent)
        found[name] = request, carried_by(answered)[1]
    assert sorted(found) == ["disk/scsi0", "ram"]
    assert all(data.startswith(HANDSHAKE) for data in found["ram"])
    # An NBD server greets and is asked for TLS in the clear: 4 bytes of flags and an option without data to it, 18 of
    # greeting and an answer without data from it (NBD, "newstyle").
    request, answer = found["disk/scsi0"]
    assert (request[4:20], request[20:22]) == (b"IHAVEOPT" + struct.pack(">II", STARTTLS, 0), HANDSHAKE)
    assert (answer[:16], answer[38:40]) == (b"NBDMAGICIHAVEOPT", HANDSHAKE)
    secured = [data.startswith(HANDSHAKE) for data in between_workers(streams)]
    assert secured.count(True) == 2, "control, in both directions"


@pytest.mark.parametrize("transport", ["tcp", "tls", "qemu-tls"])
def test_capture_shows_the_guest_only_where_clear_text_was_asked_for(mover, certificates, tmp_path, transport):
    """``tcp`` is the control: there the capture must find both markers."""
    vm = mover().create([Disk(size_mib=64)])
    markers = mark(vm)
    with Capture(vm.target_host, Segment.MIGRATION.value, tmp_path / "packets") as capture:
        run = vm.controller.run("migrate", extra=over(vm, transport)).expect(0)
    vm.assert_moved()
    assert run.result()["transport"] == transport
    carried = between_workers(capture.streams)
    assert len(carried) >= 6, "control, disk and RAM, each in both directions"
    assert sum(map(len, carried)) > run.result()["bytes"]
    seen = [any(marker in data for data in capture.streams.values()) for marker in markers]
    secured = [data.startswith(HANDSHAKE) for data in carried]
    if transport == "tcp":
        assert seen == [True, True]
        assert not any(secured)
        return
    assert seen == [False, False]
    if transport == "tls":
        assert all(secured)
    else:
        assert_encrypted_by_qemu(capture.streams)


# -- who talks ------------------------------------------------------------------------------------------------------


def assert_moved_alone(vm, before):
    """The guest went on, each stream stood once, and the strangers were turned away; gives the log."""
    vm.assert_moved()
    vm.assert_guest_went_on()
    assert_nobody_listens(vm)
    (log,) = (text for name, text in incoming_logs(vm.target_host).items() if name not in before)
    streams = [line.split(" stands")[0].rsplit(" ", 1)[1] for line in log.splitlines() if " stands" in line]
    assert sorted(streams) == ["control", "disk/scsi0", "ram"]
    assert "a connection was turned away" in log
    return log


@pytest.fixture
def foreign(lab):
    """A second address of the source's host in the migration network."""
    host = lab.host("alpha1")
    address = host.addresses.migration4.ip + 100
    words = [f"{address}/{host.addresses.migration4.network.prefixlen}", "dev", Segment.MIGRATION.value]
    host.run(["ip", "address", "add", *words])
    yield str(address)
    host.run(["ip", "address", "del", *words])


def test_strangers_who_come_first_change_nothing(mover, certificates, foreign):
    """They come from the peer's own address, before it; one comes from another. The move passes, and none is heard."""
    vm = mover().create()
    before = incoming_logs(vm.target_host)
    pki = steal_certificate(vm.source_host, vm.target_host)
    where = (vm.target_host.migration_address, foreign, pki, vm.target_host.name)
    with Attacker(vm.source_host, STRANGERS, *where, announces=False) as strangers:
        play = vm.controller.start("migrate", extra=over(vm, "tls"))
        port = until(lambda: listening_port(vm.target_host), "the listener", play)
        heard = strangers.told(f"{port}\n")
    play.wait().expect(0)
    log = assert_moved_alone(vm, before)
    assert heard["version"] == "TLSv1.3"
    assert b"PEER_CERTIFICATE_REFUSED" in bytes.fromhex(heard["wrong name"])
    assert heard["other address"] == "kept out"
    assert set(heard["silent"]) == {""}
    assert all(not said or bytes.fromhex(said).startswith(ALERT) for said in heard["garbage"])
    assert log[: log.index(" stands")].count("a connection was turned away") >= 8, "the strangers were not there first"


@pytest.mark.parametrize("transport", ["tls", "tcp"])
def test_replayed_hello_opens_nothing(mover, certificates, transport):
    """All that the source said at the start of its first connection, said once more by somebody else."""
    vm = mover().create([Disk()])
    before = incoming_logs(vm.target_host)
    with replaying(vm.source_host, vm.target_host) as attacker:
        run = vm.controller.run("migrate", extra=over(vm, transport)).expect(0)
        told = attacker.told()
    assert run.result()["transport"] == transport
    assert_moved_alone(vm, before)
    said, heard = bytes.fromhex(told["said"]), bytes.fromhex(told["heard"])
    if transport == "tcp":
        assert b'"stream"' in said
        assert frame_kinds(heard) == [CHALLENGE, ABORT]
    else:
        assert said.startswith(HANDSHAKE)
        assert not heard or heard.startswith((HANDSHAKE, ALERT))


MIDDLE = [("tls", "plain"), ("tls", "reset"), ("tls", "older TLS"), ("tcp", "passes on")]


@pytest.mark.parametrize(("transport", "how"), MIDDLE)
def test_attacker_in_the_middle_gets_no_byte_of_the_guest(mover, certificates, transport, how):
    """One listed transport is that one or none: the play fails before anything is written, and says why."""
    vm = mover().create([Disk()])
    with in_the_middle(vm.source_host, vm.target_host, how) as attacker:
        run = vm.controller.run("migrate", extra=over(vm, transport))
        said = [bytes.fromhex(each) for each in attacker.told()]
    assert_refused(vm, run)
    assert said, "nobody came to the attacker"
    if transport == "tls":
        assert {kind for each in said for kind in record_kinds(each)} <= {HANDSHAKE[0], ALERT[0]}
    else:
        assert {tuple(frame_kinds(each)) for each in said} == {(HELLO,)}


def record_kinds(data):
    """The types of the TLS records that follow each other in some bytes; anything else is an error."""
    kinds, at = [], 0
    while at < len(data):
        assert data[at + 1] == HANDSHAKE[1], data[at : at + 80]
        kinds.append(data[at])
        at += 5 + int.from_bytes(data[at + 3 : at + 5], "big")
    return kinds


def frame_kinds(data):
    """The types of the frames that follow each other in some bytes."""
    kinds, at = [], 0
    while at < len(data):
        kinds.append(data[at])
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "big")
    return kinds
