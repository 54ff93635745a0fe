# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Option types, texts and privileges of VM configs, as the recordings and mtunnel-protocol 2.6 give them."""

from __future__ import annotations

import pytest

from lab.node import schema


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        (
            "lock",
            "nosuch",
            "value 'nosuch' does not have a value in the enumeration 'backup, clone, create, migrate, rollback, "
            "snapshot, snapshot-delete, suspending, suspended'",
        ),
        ("cores", "abc", "type check ('integer') failed - got 'abc'"),
        ("cores", "0", "value must have a minimum value of 1"),
        ("kvm", "maybe", "type check ('boolean') failed - got 'maybe'"),
        ("nosuch", "1", "unknown setting 'nosuch'"),
        ("scsi31", "none", "unknown setting 'scsi31'"),
        ("machine", "nosuch", "format error\ntype: value does not match the regex pattern"),
    ],
)
def test_refused_values(key: str, value: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        schema.normalise(key, value)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("key", "value", "privileges"),
    [
        ("cores", "1", [(("VM.Config.CPU",), False)]),
        ("memory", "1", [(("VM.Config.Memory",), False)]),
        ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0", [(("VM.Config.Network",), False)]),
        ("name", "x", [(("VM.Config.Options",), False)]),
        ("bios", "ovmf", [(("VM.Config.Options",), False)]),
        ("serial0", "socket", [(("VM.Config.HWType",), False)]),
        ("smbios1", "uuid=1", [(("VM.Config.HWType",), False)]),
        ("scsi0", "local:1/vm-1-disk-0.raw", [(("VM.Config.Disk",), False)]),
        ("boot", "order=scsi0", [(("VM.Config.Disk",), False)]),
        ("ide2", "none,media=cdrom", [(("VM.Config.CDROM",), False)]),
        (
            "ide0",
            "local:1/vm-1-cloudinit.qcow2,media=cdrom",
            [(("VM.Config.Cloudinit",), False), (("VM.Config.CDROM",), False)],
        ),
        ("ciuser", "x", [(("VM.Config.Cloudinit", "VM.Config.Network"), True)]),
        ("vmgenid", "1", []),
        ("meta", "ctime=1", []),
    ],
)
def test_privileges_per_key(key: str, value: str, privileges: "list[tuple[tuple[str, ...], bool]]") -> None:
    assert schema.privileges(key, value) == privileges


@pytest.mark.parametrize(
    "key",
    ["args", "affinity", "arch", "hugepages", "keephugepages", "ivshmem", "amd-sev", "intel-tdx", "parallel0", "lock"],
)
def test_keys_of_root_alone(key: str) -> None:
    assert schema.root_only(key, "1") == f"only root can set '{key}' config"


def test_devices_of_root_alone() -> None:
    assert schema.root_only("hostpci0", "00:02.0") == "only root can set 'hostpci0' config for non-mapped devices"
    assert schema.root_only("hostpci0", "mapping=gpu") is None
    assert schema.root_only("serial0", "socket") is None
    assert schema.root_only("scsi0", "local:1/x.raw") is None


@pytest.mark.parametrize(("key", "value"), [("bios", "nosuch"), ("cores", "0"), ("ostype", "x"), ("vmgenid", "abc")])
def test_a_config_text_is_read_without_bounds_and_word_lists(key: str, value: str) -> None:
    assert schema.stored(key, value) == value
    with pytest.raises(ValueError, match=r"\S"):
        schema.normalise(key, value)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("cores", "-1", "type check ('integer') failed - got '-1'"),
        ("memory", "abc", "format error\ncurrent: type check ('integer') failed - got 'abc'"),
        ("scsi0", "local:1/x.raw,bogus=1", "invalid key in comma-separated list property: bogus"),
        ("scsi0", "ssd=1", "format error\nfile: property is missing and it is not optional"),
        (
            "virtio1",
            "local:1/x.raw,discard=yes",
            "format error\ndiscard: value 'yes' does not have a value in the enumeration 'ignore, on'",
        ),
        ("net0", "virtio,bogus=1", "invalid key in comma-separated list property: bogus"),
    ],
)
def test_types_and_formats_of_a_config_text(key: str, value: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        schema.stored(key, value)
    assert str(caught.value) == text
