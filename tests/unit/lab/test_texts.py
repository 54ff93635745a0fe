# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts the lab writes: inventory, user.cfg, VM configs."""

from __future__ import annotations

import yaml
from hypothesis import given
from hypothesis import strategies as st

from lab.cluster_files import user_cfg
from lab.inventory import to_yaml
from lab.vms import EFI_MIB, Disk, config_text, size_text

words = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20)
names = st.from_regex(r"[a-z][a-z0-9_-]{0,10}", fullmatch=True).filter(lambda name: yaml.safe_load(name) == name)
trees = st.recursive(
    words | st.integers() | st.booleans(), lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(names, trees, min_size=1, max_size=4))
def test_the_inventory_is_read_back_as_written(tree: dict) -> None:
    assert yaml.safe_load(to_yaml(tree)) == tree


def test_every_token_has_a_user_and_the_grants_are_to_both() -> None:
    lines = [line.split(":") for line in user_cfg().splitlines() if line]
    users = {fields[1] for fields in lines if fields[0] == "user"}
    assert {fields[1].split("!")[0] for fields in lines if fields[0] == "token"} == users
    roles = {fields[1] for fields in lines if fields[0] == "role"}
    for fields in (each for each in lines if each[0] == "acl"):
        assert fields[3] == "mig@pve,mig@pve!migrate"
        assert fields[4] in roles


def test_a_config_is_sorted_lines() -> None:
    assert config_text({"scsi0": "a", "boot": "order=scsi0"}) == "boot: order=scsi0\nscsi0: a\n"


def test_sizes_are_written_as_proxmox_does() -> None:
    assert [size_text(mib) for mib in (64, 1024, 1536, 4096, EFI_MIB)] == ["64M", "1G", "1536M", "4G", "528K"]


def test_disks_are_read_from_the_command_line() -> None:
    assert Disk.parse("slow:32:qcow2", 1) == Disk("scsi1", "slow", 32, "qcow2")
