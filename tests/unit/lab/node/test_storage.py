# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volume names and storage sections."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.api.importer import transfer_format
from lab.cluster_files import STORAGE_CFG
from lab.node.base import Die, Node, ParamError
from lab.node.cluster import parse_sections
from lab.node.storage import Storage, Storages, check_format, file_format

LOCAL = Storage("local", "dir", {"type": "dir", "path": "/var/lib/vz", "content": "images,iso"})
THIN = Storage("thin", "lvmthin", {"type": "lvmthin", "vgname": "pve", "thinpool": "data"})


@pytest.fixture
def storages() -> Storages:
    return Storages(Node(root="/nonexistent", name="alpha1"))


def test_owner_and_format_come_from_the_name(storages: Storages) -> None:
    assert storages.owner_and_format(LOCAL, "112/vm-113-disk-0.raw") == (112, "raw")
    assert storages.owner_and_format(LOCAL, "112/vm-112-disk-2.qcow2") == (112, "qcow2")
    assert storages.owner_and_format(THIN, "vm-112-disk-2") == (112, "raw")


@pytest.mark.parametrize(
    ("storage", "name", "text"),
    [
        (LOCAL, "nosuch", "unable to parse directory volume name 'nosuch'"),
        (LOCAL, "112/../x", "unable to parse volume filename '../x'"),
        (LOCAL, "112/vm-112-disk-0", "unable to parse volume filename 'vm-112-disk-0'"),
        (THIN, "112/vm-112-disk-0.raw", "unable to parse lvm volume name '112/vm-112-disk-0.raw'"),
    ],
)
def test_bad_names(storages: Storages, storage: Storage, name: str, text: str) -> None:
    with pytest.raises(Die) as caught:
        storages.owner_and_format(storage, name)
    assert caught.value.text == text


def test_the_name_of_an_imported_volume_follows_the_format(storages: Storages) -> None:
    assert storages.volume_name(LOCAL, 620, "vm-620-disk-0.raw", "raw") == "620/vm-620-disk-0.raw"
    assert storages.volume_name(LOCAL, 620, "vm-999-disk-0", "raw") == "620/vm-999-disk-0.raw"
    assert storages.volume_name(THIN, 620, "vm-620-disk-0.raw", "raw") == "vm-620-disk-0"
    with pytest.raises(Die, match=r"unable to parse volume filename '\.\./\.\./etc/passwd\.raw'"):
        storages.volume_name(LOCAL, 620, "../../etc/passwd", "raw")


def test_formats_and_plugins() -> None:
    assert LOCAL.formats == ("raw", "qcow2", "vmdk")
    assert THIN.formats == ("raw",)
    assert LOCAL.plugin == "PVE::Storage::DirPlugin"
    assert file_format("vm-1-disk-0.vmdk") == "vmdk"


def test_alloc_compares_name_and_format() -> None:
    check_format("vm-112-y.qcow2", "qcow2")
    with pytest.raises(ParamError, match=r"format: different storage formats \(raw != qcow2\)"):
        check_format("vm-112-y.qcow2", "raw")


def test_a_storage_may_be_off_or_elsewhere() -> None:
    assert LOCAL.enabled("alpha1")
    assert not Storage("x", "dir", {"type": "dir", "disable": ""}).enabled("alpha1")
    assert not Storage("x", "dir", {"type": "dir", "nodes": "beta1,beta2"}).enabled("alpha1")


def test_section_files() -> None:
    text = (
        "dir: local\n\tpath /var/lib/vz\n\tcontent images,iso\n\n# a comment\nlvmthin: thin\n\tvgname pve\n\tdisable\n"
    )
    assert parse_sections(text) == {
        "local": {"type": "dir", "path": "/var/lib/vz", "content": "images,iso"},
        "thin": {"type": "lvmthin", "vgname": "pve", "disable": ""},
    }


@pytest.fixture
def thin(tmp_path: Path) -> Storages:
    """A node whose storage.cfg is that of a fresh lab, the storage without directories in it."""
    (tmp_path / "etc/pve").mkdir(parents=True)
    (tmp_path / "etc/pve/storage.cfg").write_text(STORAGE_CFG, encoding="ascii")
    return Storages(Node(root=str(tmp_path), name="alpha1"))


def test_the_lab_has_a_storage_without_directories_that_refuses_other_formats(thin: Storages) -> None:
    assert thin.get("thin").formats == ("raw",)
    assert thin.alloc("thin", 200, "raw", None, 1024) == "thin:vm-200-disk-0"
    assert thin.size("thin:vm-200-disk-0") == (4 << 20, "raw", 0)  # whole extents
    assert thin.path("thin:vm-200-disk-0") == "/dev/pve/vm-200-disk-0"
    with pytest.raises(Die, match="unsupported format 'qcow2'"):
        thin.alloc("thin", 200, "qcow2", None, 1024)
    with pytest.raises(Die, match=r"no matching import/export format found for storage 'thin'"):
        transfer_format(thin.get("thin"), "qcow2", "qcow2+size", True)


def test_its_devices_come_back_after_a_reboot(thin: Storages, tmp_path: Path) -> None:
    thin.alloc("thin", 200, None, "vm-200-disk-5", 1024)
    (tmp_path / "dev/pve/vm-200-disk-5").unlink()
    assert [volume.volid for volume in thin.list("thin", 200)] == ["thin:vm-200-disk-5"]
