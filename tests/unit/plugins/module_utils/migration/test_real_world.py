# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge: locks that exclude Proxmox, exports that end, look-ups of recovery."""

from __future__ import annotations

import fcntl
import os

import pytest
from unit.fakes.migration_run import OPTIONS, POINT, spec_of

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import real_world
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import Refused
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import Kind


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


@pytest.mark.parametrize(
    ("transport", "plane", "opaque"), [("tls", "tls", False), ("tcp", "tcp", False), ("qemu-tls", "tls", True)]
)
def test_transport_says_what_is_between_the_workers_and_who_encrypts(monkeypatch, transport, plane, opaque):
    launched = []
    monkeypatch.setattr(
        real_world.PumpHandle, "launch", lambda _argv, settings, secret, *_rest: launched.append(settings)
    )
    spec = spec_of(transports=[transport], incoming=POINT)
    world = real_world.real_world(spec, "ab" * 16, {"target_api_token_secret": "s", "incoming_key": "0a" * 32}, "pyz")
    for kind, stream in ((Kind.RAM, "ram"), (Kind.NBD, "disk/scsi0"), (Kind.CONTROL, "control")):
        world.dial(transport, stream.rpartition("/")[2], kind, stream, None)
    assert {settings.plane for settings in launched} == {plane}
    assert [settings.opaque for settings in launched] == [opaque, opaque, False]
