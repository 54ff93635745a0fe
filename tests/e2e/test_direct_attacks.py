# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens on the migration network learns nothing of the guest, unless clear text was asked for."""

from __future__ import annotations

import json
import os
import secrets
import struct

import pytest

from e2e.capture import Capture
from e2e.direct import PORTS, over
from lab.network import Segment
from lab.vms import Disk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

MIB = 1 << 20
HANDSHAKE = b"\x16\x03"  # a TLS record of the handshake, of any version (RFC 8446 5.1)
FRAMES = range(1, 11)  # direct-transports 5: type, three zero bytes, length, payload
HELLO, CHALLENGE, DATA = 1, 2, 7
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
