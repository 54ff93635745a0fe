# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The spec: quantities, every wrong option named, the digest over what defines the migration and nothing else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes.migration_run import OPTIONS, spec_of

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import SpecInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.spec import (
    Limits,
    Spec,
    difference,
    parse_duration,
    parse_rate,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1 B/s", 1), ("200 MiB/s", 200 << 20), ("1.5 GiB/s", 3 << 29), ("10 KiB/s", 10240)],
)
def test_rate_is_read(text, value):
    assert parse_rate(text) == value


@pytest.mark.parametrize(("text", "value"), [("300 ms", 0.3), ("2 s", 2.0), ("30 min", 1800.0), ("1.5 h", 5400.0)])
def test_duration_is_read(text, value):
    assert parse_duration(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", [200, "200", "200MiB/s", "200 MB/s", "0 MiB/s", "-1 s", "", None, "1 s\n", "1e3 s", "١ s"]
)
def test_quantity_without_number_space_and_unit_is_refused(text):
    for parse in (parse_rate, parse_duration):
        with pytest.raises(SpecInvalid) as caught:
            parse(text)
        assert caught.value.remedy


@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_refused(text):
    for parse in (parse_rate, parse_duration):
        with contextlib.suppress(SpecInvalid):
            assert parse(text) > 0


WRONG = [
    ("source", {"vmid": 99}, "source.vmid"),
    ("source", {"vmid": True}, "source.vmid"),
    ("source", {"vmid": 100, "uuid": "x"}, "source.uuid"),
    ("source", None, "source"),
    ("target", "a token", "target"),
    ("target", {**OPTIONS["target"], "node": "a/b"}, "target.node"),
    ("target", {**OPTIONS["target"], "api_user": "root"}, "target.api_user"),
    ("target", {**OPTIONS["target"], "api_token_id": "a!b"}, "target.api_token_id"),
    ("target", {**OPTIONS["target"], "api_port": 0}, "target.api_port"),
    ("target", {**OPTIONS["target"], "vmid": "pool"}, "target.vmid_pool"),
    ("target", {**OPTIONS["target"], "vmid": "pool", "vmid_pool": "300-200"}, "target.vmid_pool"),
    ("target", {**OPTIONS["target"], "vmid": "abc"}, "target.vmid"),
    ("disks", {"disk0": "fast"}, "disks"),
    ("disks", {"scsi0": {"storage": "fast", "format": "vdi"}}, "disks.scsi0.format"),
    ("disks", {"scsi0": {"storage": "../x"}}, "disks.scsi0"),
    ("nics", {"net0": {"bridge": "vmbr0", "tag": 4095}}, "nics.net0.tag"),
    ("nics", {"net0": "a bridge"}, "nics.net0"),
    ("transports", [], "transports"),
    ("transports", ["carrier-pigeon"], "transports"),
    ("transports", ["websocket", "websocket"], "transports"),
    ("limits", {"downtime": "1 h"}, "limits.downtime"),
    ("limits", {"speed": "1 s"}, "limits"),
    ("on_controller_loss", "panic", "on_controller_loss"),
    ("controller_timeout", 120, "controller_timeout"),
]


@pytest.mark.parametrize(
    ("option", "value", "named"), WRONG, ids=[row[2] + "-" + str(n) for n, row in enumerate(WRONG)]
)
def test_wrong_option_is_named_with_what_would_be_right(option, value, named):
    with pytest.raises(SpecInvalid) as caught:
        spec_of(**{option: value})
    assert caught.value.object == named
    assert caught.value.remedy


def test_limits_and_timeouts_and_credentials_are_outside_of_the_digest():
    other = {**OPTIONS["target"], "api_user": "other@pve", "fingerprint": "AA"}
    changed = spec_of(limits={"bandwidth": "1 MiB/s"}, controller_timeout="60 s", target=other)
    assert changed.digest == spec_of().digest


@pytest.mark.parametrize(
    "change",
    [{"disks": {"default": "slow"}}, {"nics": {"default": "vmbr7"}}, {"offline": True}, {"transports": ["tls"]}],
    ids=lambda change: next(iter(change)),
)
def test_what_defines_the_migration_changes_the_digest(change):
    assert spec_of(**change).digest != spec_of().digest
    assert [
        row["option"].split(".")[0] for row in difference(spec_of().identity(), spec_of(**change).identity())
    ] == list(change)


def test_short_and_long_form_of_a_place_are_the_same_spec():
    long = spec_of(disks={"default": {"storage": "fast"}}, nics={"default": {"bridge": "vmbr0"}})
    assert long.digest == spec_of().digest


def test_spec_survives_the_journal():
    spec = spec_of(
        limits={"bandwidth": "1 MiB/s", "downtime": "50 ms"}, disks={"scsi0": {"storage": "a1", "format": "raw"}}
    )
    assert Spec.restore(spec.to_dict()) == spec
    assert Limits.restore(spec.limits.to_dict()) == spec.limits


@pytest.mark.parametrize(
    ("key", "value", "stored"),
    [
        ("api_host", "::1", "::1"),
        ("api_host", "[2001:db8::2]", "2001:db8::2"),
        ("api_user", "joe@example.com@keycloak", "joe@example.com@keycloak"),
    ],
)
def test_target_takes_what_its_endpoint_takes(key, value, stored):
    spec = Spec.from_options({**OPTIONS, "target": {**OPTIONS["target"], key: value}})
    assert getattr(spec.target, key) == stored
    assert Spec.restore(spec.to_dict()) == spec
