# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge: locks that exclude Proxmox, exports that end, look-ups of recovery."""

from __future__ import annotations

import fcntl
import os

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from unit.fakes.certificates import Authority, lay
from unit.fakes.migration_run import OPTIONS, POINT, spec_of

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import real_world
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import Refused
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import DirectSettings, Kind


@pytest.fixture
def lock_file(tmp_path, monkeypatch):
    monkeypatch.setattr(real_world, "_MIGRATION_LOCK", str(tmp_path / "locks" / "pve-migrate-{vmid}"))
    return tmp_path / "locks" / "pve-migrate-100"


def test_migration_lock_excludes_others_until_released(lock_file):
    node = real_world.SourceNode(100)
    node.take_migration_lock(0)
    with open(lock_file, "ab") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        node.release_migration_lock()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_held_migration_lock_is_refused_by_name(lock_file):
    os.makedirs(lock_file.parent)
    with open(lock_file, "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Refused) as caught:
            real_world.SourceNode(100).take_migration_lock(0)
    assert (caught.value.code, caught.value.object) == ("MIGRATION_LOCK_HELD", str(lock_file))


def test_export_hands_out_its_output_and_its_exit_status():
    export = real_world.ExportProcess(["sh", "-c", "printf abc; exit 3"])
    assert os.read(export.fileno(), 10) == b"abc"
    assert export.wait(5) == 3


def test_export_that_hangs_is_ended():
    export = real_world.ExportProcess(["sleep", "60"])
    assert export.wait(0.01) == -9


def test_endpoint_is_that_of_the_spec():
    endpoint = real_world.endpoint_of(spec_of(target={**OPTIONS["target"], "api_port": 9999}))
    assert (endpoint.host, endpoint.port, endpoint.node, endpoint.user) == ("b1", 9999, "beta1", "mig@pve")


class NoExport:
    """An exporter of which only the descriptor is asked."""

    announces_length = True

    def fileno(self):
        return 7


def dialled(monkeypatch, transport):
    """What the pumps of a migration are told: plane, secret and whether QEMU encrypts, by stream."""
    launched = {}

    def launch(_argv, settings, secret, *_rest):
        launched[settings.stream] = (settings.plane, secret, settings.opaque)
        assert DirectSettings.parse(settings.to_line(secret)) == (settings, secret)

    monkeypatch.setattr(real_world.PumpHandle, "launch", launch)
    spec = spec_of(transports=[transport], incoming=POINT)
    world = real_world.real_world(spec, "ab" * 16, {"target_api_token_secret": "s", "incoming_key": "0a" * 32}, "pyz")
    streams = {"ram": Kind.RAM, "disk/scsi0.2": Kind.NBD, "control": Kind.CONTROL, "import/tpmstate0": Kind.IMPORT}
    for stream, kind in streams.items():
        world.dial(transport, "x", kind, stream, NoExport() if kind is Kind.IMPORT else None, "0b" * 32)
    return launched


@pytest.mark.parametrize(("transport", "expected"), [("tls", ("tls", "", False)), ("tcp", ("tcp", "0a" * 32, False))])
def test_streams_of_a_transport_are_all_alike(monkeypatch, transport, expected):
    """Nothing of ``tls`` is ever in the clear, and nobody's key goes along."""
    assert set(dialled(monkeypatch, transport).values()) == {expected}


def test_what_qemu_encrypts_is_not_encrypted_twice_and_everything_else_once(monkeypatch):
    qemus, workers = ("tcp", "0b" * 32, True), ("tls", "", False)
    expected = {"ram": qemus, "disk/scsi0.2": qemus, "control": workers, "import/tpmstate0": workers}
    assert dialled(monkeypatch, "qemu-tls") == expected


def test_certificate_of_this_node_must_do_for_the_transport(tmp_path):
    """The target's QEMU compares the whole subject, the workers a name in it."""
    authority = Authority()
    both = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "us"), x509.NameAttribute(NameOID.COMMON_NAME, "a1.example")]
    for directory, issued in (
        ("alone", authority.issue("a1.example")),
        ("more", authority.issue("a1.example", subject=x509.Name(both))),
        ("none", None),
    ):
        lay(tmp_path / directory, authority.pem, issued)

    def bad(directory, transport):
        return real_world.bad_credentials(str(tmp_path / directory), transport)

    assert [bad("alone", transport) for transport in ("tls", "qemu-tls")] == [None, None]
    assert bad("more", "tls") is None
    assert "subject is not CN=a1.example alone" in bad("more", "qemu-tls").reason
    assert {bad("none", transport).code for transport in ("tls", "qemu-tls")} == {"CREDENTIALS_UNUSABLE"}
