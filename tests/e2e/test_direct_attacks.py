# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens on the migration network learns nothing, and who talks to the listening end disturbs nothing."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from pathlib import Path

import pytest

from e2e.capture import Capture
from e2e.direct import PORTS, assert_nobody_listens, incoming_logs, listening_port, over
from e2e.test_guard import until
from lab.network import Segment
from lab.vms import Disk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

MIB = 1 << 20
HANDSHAKE = b"\x16\x03"  # a TLS record of the handshake, of any version (RFC 8446 5.1)
ALERT = b"\x15\x03"


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


@pytest.mark.parametrize("transport", ["tcp", "tls"])
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
    else:
        assert seen == [False, False]
        assert all(secured)


# Runs in the source's host. Waits for the port, is there before the source, and tells what it heard.
_STRANGERS = """
import json, secrets, socket, ssl, sys, time
address, foreign, pki, known = sys.argv[1:]
heard = {"silent": [], "garbage": [], "other address": []}

def connect(source=None):
    return socket.create_connection((address, port), 5.0, source and (source, 0))

def listen(link):
    data = b""
    try:
        link.settimeout(20.0)
        while more := link.recv(65536):
            data += more
    except OSError:
        pass
    return data.hex()

port = int(sys.stdin.readline())
for _ in range(3):
    connect().close()
silent = [connect() for _ in range(3)]
garbage = [connect() for _ in range(3)]
rubbish = (b"GET / HTTP/1.1\\r\\n\\r\\n", b"\\x16\\x03\\x01" + secrets.token_bytes(4096), b"NBDMAGIC")
for link, data in zip(garbage, rubbish):
    link.sendall(data)
context = ssl.create_default_context(cafile=pki + "/ca-cert.pem")
context.check_hostname = False
context.load_cert_chain(pki + "/client-cert.pem", pki + "/client-key.pem")
link = context.wrap_socket(connect(), server_hostname=known)
heard["version"] = link.version()
heard["wrong name"] = listen(link)
try:
    connect(foreign).close()
    heard["other address"] = "let in"
except OSError as error:
    heard["other address"] = "kept out"
heard["garbage"] = [listen(link) for link in garbage]
heard["silent"] = [listen(link) for link in silent]
print(json.dumps(heard))
"""


def as_the_target(vm):
    """The target's own certificate in the source's host: of the right CA, with a name that is not the source's."""
    directory = "/root/stolen"
    Path(vm.source_host.path(directory)).mkdir(exist_ok=True)
    for name in ("ca-cert.pem", "client-cert.pem", "client-key.pem"):
        stolen = Path(vm.target_host.path(f"/etc/crosscluster/pki/crosscluster/{name}")).read_bytes()
        Path(vm.source_host.path(f"{directory}/{name}")).write_bytes(stolen)
    return directory


def test_strangers_who_come_first_change_nothing(mover, certificates):
    """They come from the peer's own address, before it; one comes from another. The move passes, and none is heard."""
    vm = mover().create()
    foreign = str(vm.source_host.addresses.migration4.ip + 100)
    device = Segment.MIGRATION.value
    length = vm.source_host.addresses.migration4.network.prefixlen
    vm.source_host.run(["ip", "address", "add", f"{foreign}/{length}", "dev", device])
    argv = [vm.target_host.migration_address, foreign, as_the_target(vm), vm.target_host.name]
    strangers = vm.source_host.popen(
        ["/usr/bin/python3", "-I", "-c", _STRANGERS, *argv],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        before = incoming_logs(vm.target_host)
        play = vm.controller.start("migrate", extra=over(vm, "tls"))
        port = until(lambda: listening_port(vm.target_host), "the listener", play)
        told, failed = strangers.communicate(f"{port}\n", timeout=120)
    finally:
        strangers.kill()
        vm.source_host.run(["ip", "address", "del", f"{foreign}/{length}", "dev", device])
    assert not failed
    play.wait().expect(0)
    vm.assert_moved()
    vm.assert_guest_went_on()
    assert_nobody_listens(vm)
    heard = json.loads(told)
    assert heard["version"] == "TLSv1.3"
    assert b"PEER_CERTIFICATE_REFUSED" in bytes.fromhex(heard["wrong name"])
    assert heard["other address"] == "kept out"
    assert heard["silent"] == ["", "", ""]
    assert all(not said or bytes.fromhex(said).startswith(ALERT) for said in heard["garbage"])
    (log,) = (text for name, text in incoming_logs(vm.target_host).items() if name not in before)
    first = log.index(" stands")
    assert log[:first].count("a connection was turned away") >= 7, "the strangers were not there first"
    streams = [line.split(" stands")[0].rsplit(" ", 1)[1] for line in log.splitlines() if " stands" in line]
    assert sorted(streams) == ["control", "disk/scsi0", "ram"]
