# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.incoming_settings import (
    IncomingSettings,
    is_key,
    parse_ports,
    plane_of,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.incoming_errors import IncomingInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import Kind

GOOD = {
    "migration_id": "5d" * 16,
    "transports": ["qemu-tls", "tls", "tcp"],
    "address": "10.77.0.21",
    "ports": "60100-60149",
    "peer_address": "10.77.0.11",
    "peer_name": "a1.example",
    "domain": "example",
    "lifetime": 600.0,
    "limits": {"deadman": 2},
}


def test_settings_survive_json():
    settings = IncomingSettings.parse(GOOD)
    assert IncomingSettings.parse(json.loads(json.dumps(settings.to_dict()))) == settings
    assert settings.planes == ("tls", "tcp")
    assert settings.ports == (60100, 60149)
    assert settings.credentials == "/etc/crosscluster/pki/example"


def test_digest_changes_with_every_setting_and_with_the_key():
    settings = IncomingSettings.parse(GOOD)
    digests = {settings.digest("ab" * 32), settings.digest("")}
    for change in ({"address": "10.77.0.22"}, {"lifetime": 60.0}, {"limits": {}}, {"transports": ["tls"]}):
        digests.add(IncomingSettings.parse({**GOOD, **change}).digest(""))
    assert len(digests) == 6


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("migration_id", "5D" * 16),
        ("migration_id", "../../etc"),
        ("transports", []),
        ("transports", ["websocket"]),
        ("address", "b1.example"),
        ("address", "0.0.0.0"),
        ("address", "224.0.0.1"),
        ("address", "fe80::1"),
        ("address", "10.77.0.21%eth0; rm"),
        ("address", "10.77.0.21%eth0"),
        ("limits", {"deadman": "soon"}),
        ("limits", {"deadman": None}),
        ("peer_address", "fd00::11"),
        ("ports", "60100"[:3]),
        ("ports", "60149-60100"),
        ("ports", "80-90"),
        ("ports", "1024-65535"),
        ("peer_name", ""),
        ("peer_name", "a1/example"),
        ("peer_name", "10.77.0.11"),
        ("domain", ""),
        ("domain", "../pki"),
        ("lifetime", 0.5),
        ("lifetime", 1e6),
    ],
)
def test_option_that_cannot_be_right_is_named(option, value):
    with pytest.raises(IncomingInvalid) as refusal:
        IncomingSettings.parse({**GOOD, option: value})
    assert refusal.value.object == option


def test_tcp_alone_needs_no_certificates():
    settings = IncomingSettings.parse({**GOOD, "transports": ["tcp"], "peer_name": None, "domain": None})
    assert (settings.planes, settings.credentials) == (("tcp",), "")


def test_link_local_address_with_its_scope_is_taken():
    change = {"address": "fe80::21%vmbr1", "peer_address": "fe80::11%vmbr1"}
    assert IncomingSettings.parse({**GOOD, **change}).address == "fe80::21%vmbr1"


def test_scope_of_the_peer_is_the_device_that_it_comes_in_over():
    settings = IncomingSettings.parse({**GOOD, "address": "fe80::2%eth1", "peer_address": "fe80::1%eno7"})
    assert (settings.address, settings.peer_address) == ("fe80::2%eth1", "fe80::1%eth1")


def test_single_port_is_a_range():
    assert parse_ports("60100") == (60100, 60100)


@pytest.mark.parametrize(("text", "held"), [("ab" * 32, True), ("AB" * 32, False), ("ab" * 31, False), (None, False)])
def test_key_has_256_bits_in_hex(text, held):
    assert is_key(text) is held


@pytest.mark.parametrize("kind", Kind)
def test_only_what_was_accepted_or_qemu_encrypts_is_in_the_clear_between_the_workers(kind):
    assert (plane_of("tls", kind), plane_of("tcp", kind)) == ("tls", "tcp")
    assert plane_of("qemu-tls", kind) == ("tcp" if kind in (Kind.RAM, Kind.NBD) else "tls")
