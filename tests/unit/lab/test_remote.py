# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stock source: what it is given, what it makes of a VM, how it frames."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.api.websocket import FrameReader
from lab.cluster_files import STORAGE_CFG
from lab.node.base import Die, Node, ParamError
from lab.node.vmconfig import VmConfig
from lab.remote.endpoint import Endpoint, IdMap
from lab.remote.mirrors import duration, human
from lab.remote.request import wanted
from lab.remote.volumes import ProblemVolumes, drive_object, import_name, ordered, scan
from lab.remote.websocket_tunnel import CLOSE, cut, frame

PRINT = ":".join(["ab"] * 32)


def test_the_endpoint_keeps_the_equals_signs_of_its_token() -> None:
    found = Endpoint.parse(f"host=192.0.2.2,apitoken=PVEAPIToken=a@pve!t=s=x,fingerprint={PRINT}")
    assert (found.apitoken, found.port, found.fingerprint) == ("PVEAPIToken=a@pve!t=s=x", 8006, PRINT.upper())
    assert Endpoint.parse("host=h,apitoken=a@pve!t=s,port=8007").header == "PVEAPIToken=a@pve!t=s"


@pytest.mark.parametrize("text", ["host=h", "apitoken=t", "host=h,apitoken=t,color=red", "host=h,apitoken=t,port=x"])
def test_a_bad_endpoint_is_a_bad_parameter(text: str) -> None:
    with pytest.raises(ParamError, match="target-endpoint"):
        Endpoint.parse(text)


def test_maps_take_the_entry_then_the_default_then_the_id_itself() -> None:
    found = IdMap.parse("target-storage", "local:fast; slow")
    assert (found.of("local"), found.of("other")) == ("fast", "slow")
    assert IdMap.parse("target-bridge", "vmbr0:vmbr1").of("vmbr9") == "vmbr9"
    assert IdMap.parse("target-storage", "1").identity
    for text, reason in (
        ("a:b,a:c", "duplicate mapping for source 'a'"),
        ("b,c", "default target ID can only be provided once"),
        ("1,a", "identity mapping cannot be combined with other mappings"),
    ):
        with pytest.raises(ParamError) as refused:
            IdMap.parse("target-storage", text)
        assert refused.value.errors == {"target-storage": f"failed to parse storage map: {reason}\n"}


def test_figures_are_written_as_the_log_writes_them() -> None:
    assert (human(0), human(1 << 30), human(540672)) == ("0.0 B", "1.0 GiB", "528.0 KiB")
    assert (duration(5.9), duration(65), duration(7205)) == ("5s", "1m 5s", "2h 0m 5s")


def test_drives_are_told_as_the_tunnel_wants_them() -> None:
    drive = {"file": "local:100/x.raw", "format": "raw", "size": "1G", "ssd": "1", "discard": "on"}
    assert drive_object("scsi12", drive, 1 << 30) == {
        "interface": "scsi", "index": "12", "size": 1 << 30, "ssd": 1, "discard": "on",
    }  # fmt: skip
    assert import_name("local:101/vm-101-disk-3.qcow2", 101, 201) == "vm-201-disk-3.qcow2"
    assert ordered(["efidisk0", "virtio1", "scsi10", "scsi2"]) == ["scsi2", "scsi10", "virtio1", "efidisk0"]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "etc/pve/nodes/alpha1/qemu-server").mkdir(parents=True)
    (tmp_path / "etc/pve/storage.cfg").write_text(STORAGE_CFG, encoding="ascii")
    return Node(root=str(tmp_path), name="alpha1")


def test_volumes_and_how_they_travel(node: Node) -> None:
    text = (
        "ide2: local:100/vm-100-cloudinit.qcow2,media=cdrom\nscsi0: thin:vm-100-disk-0\nide0: none,media=cdrom\n"
        "tpmstate0: local:100/vm-100-disk-1.raw,size=4M\nunused0: fast:100/vm-100-disk-2.qcow2\n"
    )
    found = {volume.key: volume for volume in scan(node, VmConfig.parse(100, text), running=True)}
    assert {key for key, volume in found.items() if volume.online} == {"scsi0"}
    assert found["scsi0"].found == "found local disk 'thin:vm-100-disk-0' (attached)"
    assert found["ide2"].found.startswith("found generated disk")
    assert found["unused0"].why == "unused"


def test_an_iso_stands_in_the_way(node: Node) -> None:
    with pytest.raises(ProblemVolumes) as caught:
        scan(node, VmConfig.parse(100, "ide2: local:iso/debian.iso,media=cdrom\n"), running=False)
    assert caught.value.reasons == {"local:iso/debian.iso": "local cdrom image"}


PARAMS = {"node": "alpha1", "vmid": "100", "target-endpoint": "host=h,apitoken=t", "target-storage": "1",
          "target-bridge": "1"}  # fmt: skip


def test_the_insecure_plane_is_a_patched_sources_and_a_privileged_callers(node: Node) -> None:
    asked = {**PARAMS, "migration_type": "insecure"}
    with pytest.raises(ParamError, match="property is not defined in schema"):
        wanted(node, asked, None, patched=False)
    with pytest.raises(Die, match=r"403 Permission check failed \(/, Sys.Modify\)"):
        wanted(node, asked, lambda path, privileges, any_of: False, patched=True)
    with pytest.raises(ParamError, match="does not have a value in the enumeration 'secure, insecure'"):
        wanted(node, {**PARAMS, "migration_type": "maybe"}, None, patched=True)


def test_a_locked_or_missing_vm_is_refused_before_the_target_is_asked(node: Node) -> None:
    with pytest.raises(Die, match=r"Configuration file 'nodes/alpha1/qemu-server/100.conf' does not exist"):
        wanted(node, PARAMS, None, patched=False)
    node.path("/etc/pve/nodes/alpha1/qemu-server/100.conf").write_text("lock: migrate\n", encoding="ascii")
    with pytest.raises(Die, match=r"VM is locked \(migrate\)"):
        wanted(node, PARAMS, None, patched=False)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536])
def test_frames_are_what_the_server_accepts(length: int) -> None:
    payload = bytes(length)
    assert [each.payload for each in FrameReader().receive(frame(2, payload))] == [payload]
    assert [each.opcode for each in FrameReader().receive(frame(CLOSE, b"\x03\xe8"))] == [8]


def test_server_frames_are_cut_off_one_by_one() -> None:
    buffer = bytearray(b"\x82\x03abc\x82\x7e\x00\x7e" + b"x" * 126 + b"\x82\x05par")
    assert cut(buffer) == (2, b"abc")
    assert cut(buffer) == (2, b"x" * 126)
    assert cut(buffer) is None
    assert bytes(buffer) == b"\x82\x05par"
