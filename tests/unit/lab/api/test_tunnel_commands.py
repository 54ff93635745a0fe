# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of the tunnel without a VM: volumes, limits, imports (mtunnel-protocol 2.6, 4.2, 5 and 7.3)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Callable

import pytest

from lab.api import tunnel_commands
from lab.api.drives import drive_string
from lab.api.importer import transfer_format
from lab.api.tunnel_commands import Session
from lab.node.base import Die, Node
from lab.node.storage import Storages

STORAGE_CFG = """dir: local
\tpath /var/lib/vz
\tcontent images

dir: slow
\tpath /srv/slow
\tcontent images
\tbwlimit migration=500,default=900
"""
needs_images = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Session]:
    monkeypatch.setenv("LAB_PERSONALITY", str(tmp_path / "none"))
    pve = tmp_path / "etc/pve"
    (pve / "nodes/beta1/qemu-server").mkdir(parents=True)
    (pve / "nodes/beta1/qemu-server/200.conf").write_text("lock: create\n")
    (pve / "storage.cfg").write_text(STORAGE_CFG)
    (pve / "datacenter.cfg").write_text("bwlimit: migration=800\n")
    (pve / "user.cfg").write_text(
        "user:root@pam:1:0::::::\ntoken:root@pam!t1:0:0::\nuser:mig@pve:1:0::::::\ntoken:mig@pve!t1:0:0::\n"
        "role:Move:Datastore.AllocateSpace:\nacl:1:/:mig@pve:Move:\n"
    )
    return lambda user: Session(Node(root=str(tmp_path), name="beta1"), 200, user)


@pytest.mark.parametrize(
    ("user", "storages", "wish", "limit"),
    [
        ("mig@pve!t1", ["slow"], None, "500"),
        ("mig@pve!t1", ["slow"], 1000, "500"),
        ("mig@pve!t1", ["slow"], 400, 400),
        ("mig@pve!t1", ["slow", "slow", None], "400", "400"),
        ("mig@pve!t1", ["local"], None, "800"),
        ("mig@pve!t1", ["local", "slow"], 0, "500"),
        ("mig@pve!t1", [None], 1000, "800"),
        ("root@pam!t1", ["slow"], 1000, 1000),
        ("root@pam!t1", ["nosuch"], 1000, 1000),
        ("root@pam!t1", [], 1000, 1000),
        ("root@pam!t1", ["slow"], None, "500"),
    ],
)
def test_who_may_change_a_limit_overrides_it(
    session: "Callable[[str], Session]", user: str, storages: "list[Any]", wish: Any, limit: Any
) -> None:
    request = {"storages": storages, **({} if wish is None else {"bwlimit": wish})}
    assert tunnel_commands.bwlimit(session(user), request) == {"bwlimit": limit}


def test_the_drive_string() -> None:
    drive = {"file": "local:200/x.raw", "format": "raw", "interface": "scsi", "index": "0", "size": "64M"}
    more = {"ssd": True, "cache": None, "mbps": 10, "odd": 1}
    assert drive_string({**drive, **more}, "64") == "local:200/x.raw,format=raw,mbps=10,odd=1,size=64,ssd=1"


@pytest.mark.parametrize(
    "option",
    [{"cache": "nosuch"}, {"ssd": "yes"}, {"iothread": {}}, {"size": "big"}, {"queues": 1}, {"iops": "x"},
     {"volume": "local:200/x.raw"}, {"serial": "a,b"}],
)  # fmt: skip
def test_options_that_no_drive_can_have(option: "dict[str, Any]") -> None:
    with pytest.raises(Die, match=r"^(format error at |illegal value with commas for serial)"):
        drive_string({"file": "local:200/x.raw", "format": "raw", **option}, "0")


@needs_images
def test_a_refused_option_leaves_a_volume_that_nobody_frees(session: "Callable[[str], Session]") -> None:
    tunnel = session("mig@pve!t1")
    with pytest.raises(Die, match="cache: value 'x' does not have a value in the enumeration 'none, "):
        tunnel_commands.disk(tunnel, {"storage": "local", "format": "raw", "drive": {"size": 1024, "cache": "x"}})
    assert [volume.volid for volume in Storages(tunnel.node).list("local", 200)] == ["local:200/vm-200-disk-0.raw"]
    assert not tunnel.volumes
    with pytest.raises(Die, match="unable to create image: "):
        tunnel_commands.disk(tunnel, {"storage": "local", "format": "raw", "drive": {"size": -1}})


@pytest.mark.parametrize(
    ("image", "offered", "snapshots", "chosen"),
    [
        ("raw", "raw+size", False, "raw+size"),
        ("raw", "zfs,raw+size", False, "raw+size"),
        ("raw", "raw+size", True, None),
        ("qcow2", "qcow2+size", True, "qcow2+size"),
        ("qcow2", "raw+size,qcow2+size", True, "qcow2+size"),
        ("qcow2", "qcow2+size", False, None),
        ("qcow2", "raw+size", False, "raw+size"),
        ("vmdk", "vmdk+size", True, "vmdk+size"),
    ],
)
def test_the_stream_of_an_import(
    session: "Callable[[str], Session]", image: str, offered: str, snapshots: bool, chosen: "str | None"
) -> None:
    storage = session("mig@pve!t1").storages.get("local")
    if chosen is None:
        with pytest.raises(Die, match="no matching import/export format found for storage 'local'"):
            transfer_format(storage, image, offered, snapshots)
    else:
        assert transfer_format(storage, image, offered, snapshots) == chosen


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({}, "No volid set for NBD volume 'scsi0'"),
        (None, "No volid set for NBD volume 'scsi0'"),
        ({"volid": "x", "replicated": 1}, "Unknown NBD volume key for 'scsi0:x': 'replicated'"),
        ({"volid": "x", "drivestr": "y"}, "Unknown NBD volume 'scsi0:x'"),
    ],
)
def test_nbd_volumes_of_start(session: "Callable[[str], Session]", entry: Any, text: str) -> None:
    with pytest.raises(Die) as caught:
        tunnel_commands._nbd_volumes(session("mig@pve!t1"), {"scsi0": entry})
    assert caught.value.text == text
