# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""VM configs: byte for byte what was read, typed where it is looked at, refused where it cannot be understood."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import ConfigInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.vm_config import Drive, Nic, VmConfig

UUID = "0ce88e34-1edf-4663-9f3e-93fb78cddf2e"
FULL = f"""#multi line
#%C3%BCbung
agent: 1
boot: order=scsi0;net0
cores: 1
efidisk0: local:101/vm-101-disk-2.raw,efitype=4m,pre-enrolled-keys=0,size=528K
ide0: local:101/vm-101-cloudinit.qcow2,media=cdrom,size=4M
ide2: none,media=cdrom
lock: migrate
net0: virtio=BC:24:11:58:B8:23,bridge=vmbr0,firewall=1,mtu=1
net1: e1000=bc:24:11:89:c9:da,bridge=vmbr1
scsi0: local:101/vm-101-disk-0.qcow2,cache=writeback,discard=on,iothread=1,size=1G,ssd=1
smbios1: uuid={UUID.upper()}
tpmstate0: local:101/vm-101-disk-4.raw,size=4M,version=v2.0
unused0: local:101/vm-101-disk-3.qcow2

[PENDING]
cores: 2
delete: agent

[special:cloudinit]
ciuser: demo

[before-update]
#first
cores: 1
snaptime: 1795155151
"""


def parse(text):
    return VmConfig.parse(text)


def test_format_gives_the_very_text():
    assert parse(FULL).format() == FULL


def test_format_keeps_odd_spelling():
    text = "cores:   2  \n\n\nname: a\n[s1]\n\nmemory: 1"
    assert parse(text).format() == text


def test_digest_is_the_sha1_of_the_text():
    assert parse(FULL).digest == hashlib.sha1(FULL.encode()).hexdigest()


def test_digest_is_that_of_bytes_that_are_no_utf_8():
    raw = b"#\xff\ncores: 1\n"
    assert parse(raw.decode("utf-8", "surrogateescape")).digest == hashlib.sha1(raw).hexdigest()


def test_values_are_in_order_and_of_the_current_config():
    values = parse(FULL).values
    assert list(values)[:3] == ["agent", "boot", "cores"]
    assert values["cores"] == "1"


def test_sections_are_told_apart():
    config = parse(FULL)
    assert config.pending == {"cores": "2", "delete": "agent"}
    assert config.snapshots == ["before-update"]
    assert config.special == {"cloudinit": {"ciuser": "demo"}}
    assert config.lock == "migrate"


def test_description_is_decoded():
    assert parse(FULL).description == "multi line\nübung"
    assert parse("description: a%3Ab\n").description == "a:b"


def test_uuid_is_lower_case():
    assert parse(FULL).uuid == UUID


@pytest.mark.parametrize("text", ["cores: 1\n", "smbios1: manufacturer=x\n"], ids=["no-smbios", "no-uuid"])
def test_uuid_is_empty_without_one(text):
    assert parse(text).uuid == ""


def test_drives_and_unused_volumes():
    config = parse(FULL)
    assert [drive.key for drive in config.drives()] == ["efidisk0", "ide0", "ide2", "scsi0", "tpmstate0"]
    assert [drive.key for drive in config.unused()] == ["unused0"]


def test_nics_keep_model_mac_and_bridge():
    assert [(nic.key, nic.model, nic.mac, nic.bridge) for nic in parse(FULL).nics()] == [
        ("net0", "virtio", "BC:24:11:58:B8:23", "vmbr0"),
        ("net1", "e1000", "BC:24:11:89:C9:DA", "vmbr1"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "garbage line\n",
        "cores: 1\ncores: 2\n",
        "[PENDING]\ncores: 1\ncores: 2\n",
        "[]\n",
        "[a b\n",
        "[s1]\n[s1]\n",
        "[1snap]\n",
        "cores:\n",
        ": 1\n",
        "scsi0: \n",
        "scsi0: size=1G\n",
        "scsi0: local:1,size=x\n",
        "scsi0: a,file=b\n",
        "net0: nosuch=BC:24:11:58:B8:23,bridge=vmbr0\n",
        "net0: virtio=BC:24:11,bridge=vmbr0\n",
        "net0: virtio=BC:24:11:58:B8:23,e1000=BC:24:11:58:B8:23\n",
        "cores: 1\0\n2",
    ],
    ids=repr,
)
def test_parse_refuses(text):
    with pytest.raises(ConfigInvalid):
        parse(text)


def test_message_does_not_quote_what_may_be_secret():
    with pytest.raises(ConfigInvalid) as caught:
        parse("cipassword $5$canary\n")
    assert "canary" not in str(caught.value)


def test_repr_shows_no_value():
    assert "canary" not in repr(parse("cipassword: canary\n[s1]\ncipassword: canary\n"))


def test_uuid_that_is_none_is_refused():
    with pytest.raises(ConfigInvalid):
        parse("smbios1: uuid=nonsense\n").uuid  # noqa: B018


def test_changed_replaces_deletes_and_appends():
    changed = parse("#a\ncores: 1\nlock: migrate\nname: x\n\n[s1]\ncores: 1\n").changed(
        {"cores": "4", "onboot": "0"}, ["lock"]
    )
    assert changed.values == {"cores": "4", "name": "x", "onboot": "0"}
    assert changed.format().endswith("[s1]\ncores: 1\n")


KEYS = st.from_regex(r"[a-z][a-z_-]{0,10}", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=20)


@given(st.dictionaries(KEYS, TEXT, max_size=8), st.lists(TEXT, max_size=3))
def test_parse_and_format_round_trip(values, description):
    text = "".join(f"#{line}\n" for line in description) + "".join(f"{key}: {value}\n" for key, value in values.items())
    config = parse(text)
    assert config.format() == text
    assert config.values == values


@given(st.text(max_size=120))
def test_parse_refuses_or_keeps_every_byte(text):
    try:
        config = parse(text)
    except ConfigInvalid:
        return
    assert config.format() == text


# drives


def test_drive_parameters_have_bytes_and_numbers():
    drive = parse(FULL).drives()[3]
    assert drive.tunnel_parameters(1 << 30) == {
        "interface": "scsi", "index": "0", "size": 1 << 30, "cache": "writeback", "discard": "on",
        "iothread": 1, "ssd": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("word", "number"), [("on", 1), ("yes", 1), ("0", 0), ("off", 0)])
def test_drive_parameters_have_booleans_as_numbers(word, number):
    drive = Drive.parse("scsi0", f"local:1/vm-1-disk-0.raw,ssd={word},serial=1")
    assert drive.tunnel_parameters(1024)["ssd"] == number
    assert drive.tunnel_parameters(1024)["serial"] == "1"


@pytest.mark.parametrize(
    ("value", "image_format"),
    [("local:1/vm-1-disk-0.qcow2", "qcow2"), ("local:1/vm-1-disk-0.raw", "raw"), ("thin:vm-1-disk-0", "raw"),
     ("local:1/vm-1-disk-0.raw,format=qcow2", "qcow2"), ("local:1/vm-1-disk-0.vmdk", "vmdk")],
)  # fmt: skip
def test_drive_image_format(value, image_format):
    assert Drive.parse("scsi0", value).image_format == image_format


@pytest.mark.parametrize(
    ("value", "cdrom", "cloudinit", "empty"),
    [("none,media=cdrom", True, False, True), ("local:iso/x.iso,media=cdrom", True, False, False),
     ("local:1/vm-1-cloudinit.qcow2,media=cdrom", True, True, False),
     ("thin:vm-1-cloudinit,media=cdrom", True, True, False),
     ("cdrom,media=cdrom", True, False, False), ("local:1/vm-1-disk-0.raw", False, False, False)],
)  # fmt: skip
def test_drive_kind(value, cdrom, cloudinit, empty):
    drive = Drive.parse("ide2", value)
    assert (drive.cdrom, drive.cloudinit, drive.empty) == (cdrom, cloudinit, empty)


def test_drive_takes_alias_volume():
    assert Drive.parse("scsi0", "volume=local:1/x,size=1G").file == "local:1/x"


def test_drive_format_round_trip():
    value = "local:1/vm-1-disk-0.raw,cache=none,size=1G"
    assert Drive.parse("scsi0", value).format() == value


# NICs


def test_nic_takes_long_form():
    nic = Nic.parse("net0", "model=virtio,macaddr=bc:24:11:58:b8:23,bridge=vmbr0")
    assert nic.format() == "virtio=BC:24:11:58:B8:23,bridge=vmbr0"


def test_nic_mapped_keeps_what_is_not_named():
    nic = Nic.parse("net0", "virtio=BC:24:11:58:B8:23,bridge=vmbr0,firewall=1,tag=5")
    assert nic.mapped("vmbr7").format() == "virtio=BC:24:11:58:B8:23,bridge=vmbr7,firewall=1,tag=5"
    assert nic.mapped("vmbr7", 0, False).format() == "virtio=BC:24:11:58:B8:23,bridge=vmbr7,firewall=0"
    assert nic.mapped("vmbr7", 9).format() == "virtio=BC:24:11:58:B8:23,bridge=vmbr7,firewall=1,tag=9"


def test_nic_says_whether_it_is_virtio():
    assert [nic.virtio for nic in parse(FULL).nics()] == [True, False]
