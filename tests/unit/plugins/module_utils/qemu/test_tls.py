# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What QEMU is told about its TLS, and that nothing counts which it does not say back."""

from __future__ import annotations

import pytest
from unit.fakes.tls_monitor import NODES, TlsMonitor

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu import tls
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.errors import (
    QemuTlsFailed,
    QemuTlsNotSet,
    QmpInvalid,
)

PATH = "/run/qemu-server/117_nbd.migrate"


def test_target_lets_one_name_in_and_the_source_checks_one():
    target, source = TlsMonitor(), TlsMonitor()
    tls.add_credentials(target, Side.TARGET, "/pki", "a1.example.com")
    tls.add_credentials(source, Side.SOURCE, "/pki")
    shared = {"qom-type": "tls-creds-x509", "id": "crosscluster-tls", "dir": "/pki", "verify-peer": True}
    identity = {"qom-type": "authz-simple", "id": "crosscluster-authz", "identity": "CN=a1.example.com"}
    assert target.objects == {
        "crosscluster-tls": {**shared, "endpoint": "server"},
        "crosscluster-authz": identity,
    }
    assert source.objects == {"crosscluster-tls": {**shared, "endpoint": "client"}}


def test_refused_credentials_name_the_file():
    qemu = TlsMonitor()
    qemu.fails["object-add"] = "The server certificate /pki/server-cert.pem has expired"
    with pytest.raises(QemuTlsFailed) as caught:
        tls.add_credentials(qemu, Side.TARGET, "/pki", "a1")
    assert (caught.value.side, caught.value.object) == (Side.TARGET, "/pki/server-cert.pem")


@pytest.mark.parametrize(
    ("side", "wanted"),
    [(Side.TARGET, tls.target_parameters()), (Side.SOURCE, tls.source_parameters("b1"))],
    ids=["target", "source"],
)
def test_parameters_count_when_they_are_read_back(side, wanted):
    qemu = TlsMonitor()
    tls.arm_parameters(qemu, side, wanted)
    assert wanted.items() <= qemu.parameters.items()
    deaf = TlsMonitor()
    deaf.deaf = True
    with pytest.raises(QemuTlsNotSet) as caught:
        tls.arm_parameters(deaf, side, wanted)
    assert caught.value.side is side


def test_parameters_of_somebody_else_are_seen_and_kept():
    qemu = TlsMonitor()
    assert tls.foreign_credentials(qemu) == ""
    qemu.parameters["tls-creds"] = "theirs"
    qemu.objects = {"theirs": {}, "crosscluster-tls": {}}
    assert tls.foreign_credentials(qemu) == "theirs"
    tls.disarm(qemu)
    assert (list(qemu.objects), qemu.parameters["tls-creds"]) == (["theirs"], "theirs")


@pytest.mark.parametrize("unset", [None, ""])
def test_parameter_that_was_never_set_is_empty(unset):
    qemu = TlsMonitor()
    qemu.parameters = {"tls-creds": unset}
    assert tls.foreign_credentials(qemu) == ""


def test_disarming_takes_the_parameters_before_the_objects():
    qemu = TlsMonitor()
    tls.add_credentials(qemu, Side.TARGET, "/pki", "a1")
    tls.arm_parameters(qemu, Side.TARGET, tls.target_parameters())
    assert tls.foreign_credentials(qemu) == ""
    qemu.commands.clear()
    tls.disarm(qemu)
    writing = [command for command in qemu.commands if not command.startswith(("query", "qom"))]
    assert writing == ["migrate-set-parameters", "object-del", "object-del"]
    assert (qemu.objects, qemu.parameters["tls-creds"]) == ({}, "")
    tls.disarm(qemu)


def test_server_is_opened_anew_with_the_same_exports():
    qemu = TlsMonitor()
    tls.arm_nbd(qemu, PATH, list(NODES))
    assert qemu.server == {
        "addr": {"type": "unix", "data": {"path": PATH}},
        "tls-creds": "crosscluster-tls",
        "tls-authz": "crosscluster-authz",
    }
    assert {entry["id"]: entry["node-name"] for entry in qemu.exports} == NODES


@pytest.mark.parametrize("names", [["drive-scsi0"], [*NODES, "drive-scsi9"], []], ids=["too many", "too few", "none"])
def test_other_exports_than_those_of_the_migration_stay_untouched(names):
    qemu = TlsMonitor()
    with pytest.raises(QemuTlsNotSet):
        tls.arm_nbd(qemu, PATH, names)
    assert qemu.commands == ["query-block-exports"]


def test_export_that_does_not_come_back_is_seen(monkeypatch):
    qemu = TlsMonitor()
    monkeypatch.setattr(qemu, "block_export_add", lambda _a: None)
    with pytest.raises(QemuTlsNotSet):
        tls.arm_nbd(qemu, PATH, list(NODES))


def test_exports_of_other_kinds_do_not_count():
    other = {"id": "fuse0", "node-name": "n", "type": "fuse", "shutting-down": False}
    assert tls.Export.parse_all([other]) == []


@pytest.mark.parametrize("answer", [None, {}, [3], [{"id": "x"}], [{"id": "x", "type": "nbd"}]], ids=repr)
def test_answer_of_another_shape_is_refused(answer):
    with pytest.raises(QmpInvalid):
        tls.Export.parse_all(answer)


def test_node_of_a_mirror_checks_the_name():
    assert tls.block_options("b1") == {"tls-creds": "crosscluster-tls", "tls-hostname": "b1"}
