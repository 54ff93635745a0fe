# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's tunnel against the lab's target: each of the 14 commands once, over TLS, with a real target QEMU."""

from __future__ import annotations

import time

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox import commands
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.endpoint import Endpoint
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import (
    ChannelLost,
    CommandRefused,
    FingerprintMismatch,
    ParameterRefused,
    TokenRefused,
    VmAbsent,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.replies import ImportState, import_socket
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.session import Session
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.target_api import TargetApi
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.tunnel import Tunnel
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.upgrade import open_websocket
from ansible_collections.crosscluster.migration.plugins.module_utils.websocket import frames
from ansible_collections.crosscluster.migration.plugins.module_utils.websocket.errors import UpgradeRefused
from lab.vms import MACHINE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

TOKEN = "mig@pve!migrate"
VMID = 7310
MIB = 1 << 20


def endpoint(host, **changes):
    user, _mark, token_id = TOKEN.partition("!")
    values = {"host": host.api_host, "port": 8006, "node": host.node, "user": user, "token_id": token_id,
              "fingerprint": host.fingerprint, **changes}  # fmt: skip
    return Endpoint(**values)


@pytest.fixture
def target(lab):
    host = lab.host("beta1")
    return TargetApi(Session(endpoint(host), host.tokens[TOKEN]), host.node)


@pytest.fixture
def opened(lab, target):
    """An open tunnel for a VMID nobody has; ended with everything it made."""
    host = lab.host("beta1")
    grant = target.open_tunnel(VMID, ["fast"], ["vmbr0"])
    wait(lambda: any("mtunnel started" in line for line in target.task_log(grant.upid)))
    path = target.tunnel_path(VMID, grant.ticket, grant.socket)
    tunnel = Tunnel.open(endpoint(host), host.tokens[TOKEN], path, time.monotonic() + 10)
    yield tunnel, grant
    try:
        tunnel.stop()
        tunnel.quit(cleanup=True)
    except (ChannelLost, CommandRefused):
        pass
    tunnel.close()
    wait(lambda: not target.task_status(grant.upid).running)
    # After a lost channel nothing but root on the target can remove the rest (mtunnel-protocol 8.1).
    host.run(["qm", "unlock", str(VMID)], check=False)
    host.run(["qm", "destroy", str(VMID)], check=False)


def wait(holds, seconds=15.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def send_image(lab, target, tunnel, size):
    """A raw image of `size` bytes through the import socket: length first, close frame, the server's end."""
    host = lab.host("beta1")
    path = target.tunnel_path(VMID, tunnel.ticket(import_socket(VMID)), import_socket(VMID))
    stream, _first = open_websocket(endpoint(host), host.tokens[TOKEN], path, time.monotonic() + 10, time.monotonic)
    data = size.to_bytes(8, "little") + bytes(range(256)) * (size // 256)
    for at in range(0, len(data), frames.ALIGNED_PAYLOADS[0]):
        stream.write(frames.encode(frames.Opcode.BINARY, data[at : at + frames.ALIGNED_PAYLOADS[0]]))
        wait(stream.flush)
    stream.write(frames.close_frame())
    wait(stream.flush)
    wait(lambda: stream.read() == b"")
    stream.close_gracefully()


def test_each_of_the_14_commands(lab, target, opened):
    tunnel, grant = opened
    assert tunnel.version().api == 2
    assert tunnel.bwlimit(["fast"], 100000).bytes_per_second in (None, 100000 * 1024)

    imported = tunnel.disk_import(f"vm-{VMID}-disk-0.raw", "raw", "fast", ["raw+size"], False)
    assert imported.format == "raw+size"
    send_image(lab, target, tunnel, MIB)
    states = []
    wait(lambda: states.append(tunnel.query_disk_import()) or states[-1].state is not ImportState.PENDING)
    assert states[-1].state is ImportState.COMPLETE

    disk = tunnel.disk("fast", {"interface": "scsi", "index": "0", "size": 16 * MIB}, "raw")
    tunnel.config(
        f"boot: order=scsi0\ncores: 1\nkvm: 0\nmachine: {MACHINE}\nmemory: 64\nname: tunnel-test\n"
        f"net0: virtio=BC:24:11:73:10:01,bridge=vmbr0\nscsi0: {disk.drivestr}\nscsihw: virtio-scsi-pci\n"
        f"smbios1: uuid=73107310-0000-4000-8000-000000000001\nunused0: {states[-1].volid}\nvga: none\n"
    )
    started = tunnel.start("alpha1", "beta1", f"{MACHINE}+pve0", {"scsi0": disk}, "net0=1500")
    assert (started.ram_socket, started.drives["scsi0"].export) == (f"/run/qemu-server/{VMID}.migrate", "drive-scsi0")
    assert tunnel.ticket(started.ram_socket)
    assert tunnel.ticket(started.nbd_socket)
    status = target.vm_status(VMID)
    assert (status.qmpstatus, status.lock, status.genuine) == ("inmigrate", "migrate", True)

    tunnel.nbdstop()
    tunnel.fstrim()
    tunnel.tick()
    tunnel.call(commands.resume())
    tunnel.stop()
    assert target.vm_status(VMID).status == "stopped"
    with pytest.raises(CommandRefused, match="not running"):
        tunnel.resume()
    tunnel.unlock()
    assert target.vm_status(VMID).lock == ""
    assert [line for line in target.task_log(grant.upid) if "received command 'resume'" in line]


def test_quit_with_cleanup_leaves_nothing(lab, target):
    host = lab.host("beta1")
    grant = target.open_tunnel(VMID, ["fast"], [])
    assert target.own_tunnel_task(VMID) == grant.upid
    wait(lambda: any("mtunnel started" in line for line in target.task_log(grant.upid)))
    path = target.tunnel_path(VMID, grant.ticket, grant.socket)
    tunnel = Tunnel.open(endpoint(host), host.tokens[TOKEN], path, time.monotonic() + 10)
    volid = tunnel.disk("fast", {"interface": "scsi", "index": "0", "size": MIB}, "qcow2").volid
    assert target.volumes_of("fast", VMID) == [volid]
    tunnel.quit(cleanup=True)
    tunnel.close()
    wait(lambda: not target.task_status(grant.upid).running)
    assert target.task_status(grant.upid).exitstatus == "OK"
    assert target.volumes_of("fast", VMID) == []
    with pytest.raises(VmAbsent):
        target.vm_status(VMID)


def test_taken_vmid_is_named(target, opened):
    with pytest.raises(ParameterRefused) as caught:
        target.open_tunnel(VMID, [], [])
    assert f"VM {VMID} already exists" in caught.value.errors["vmid"]


def test_own_task_can_be_deleted(target, opened):
    tunnel, grant = opened
    target.delete_task(grant.upid)
    wait(lambda: not target.task_status(grant.upid).running)
    with pytest.raises(ChannelLost):
        tunnel.version()


def test_foreign_ticket_is_refused(lab, target, opened):
    host = lab.host("beta1")
    path = target.tunnel_path(VMID, "PVETUNNEL:00000000::AAAA", f"/run/qemu-server/{VMID}.mtunnel")
    with pytest.raises(UpgradeRefused) as caught:
        Tunnel.open(endpoint(host), host.tokens[TOKEN], path, time.monotonic() + 10)
    assert caught.value.status == 401


def test_wrong_token_and_wrong_certificate(lab):
    host = lab.host("beta1")
    with pytest.raises(TokenRefused):
        TargetApi(Session(endpoint(host), "00000000-0000-0000-0000-000000000000"), host.node).storages()
    with pytest.raises(FingerprintMismatch):
        TargetApi(Session(endpoint(host, fingerprint="ab" * 32), host.tokens[TOKEN]), host.node).version()


def test_look_up_of_the_target(target):
    assert {storage.name for storage in target.storages()} >= {"fast", "local"}
    assert "vmbr0" in target.bridge_names()
    assert target.version()
    assert target.permissions()["/"]
