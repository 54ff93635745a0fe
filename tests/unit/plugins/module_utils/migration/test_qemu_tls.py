# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's own TLS in the order of a migration: the target first, nothing left at the end, and words that help."""

from __future__ import annotations

import json

import pytest
from unit.fakes.migration_run import POINT, context_of, run, run_with_crash
from unit.fakes.migration_world import Cluster

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import qemu_tls
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Phase
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import EndReason, Kind, PumpEnd

TLS_ONLY = {**POINT, "planes": ["tls"]}
QEMU_TLS = {"transports": ["qemu-tls"], "incoming": TLS_ONLY}
EXPIRED = "The client certificate /etc/crosscluster/pki/lab/client-cert.pem has expired"


@pytest.fixture
def cluster():
    return Cluster()


def assert_nothing_left(cluster):
    assert cluster.qemu.objects == {}
    assert cluster.qemu.parameters["tls-creds"] == cluster.qemu.parameters["tls-hostname"] == ""


def error_of(context):
    return context.facts.error["code"], context.facts.error["side"], context.facts.error["object"]


def test_vm_arrives_and_every_byte_was_encrypted_by_qemu(cluster, tmp_path):
    context = run(cluster, tmp_path, **QEMU_TLS)
    assert (context.facts.phase, context.facts.transport) == (Phase.COMPLETED, "qemu-tls")
    calls = [op for op, _values in cluster.incoming.calls if op != "state"]
    assert calls == ["opaque_key", "attach", "tls_arm", "seal", "tls_disarm", "bye"]
    assert (cluster.dialled, cluster.opaque_keys) == (["control", "scsi0", "ram"], ["", "0c" * 32, "0c" * 32])
    assert dict(cluster.incoming.calls)["tls_arm"] == {"exports": ["drive-scsi0"]}
    assert cluster.qemu.encrypted == ["b1", "b1"]
    assert cluster.qemu.objects["crosscluster-tls"]["dir"] == "/etc/crosscluster/pki/lab"
    assert not cluster.target.armed


def test_other_transports_know_nothing_of_it(cluster, tmp_path):
    context = run(cluster, tmp_path, **{**QEMU_TLS, "transports": ["tls"]})
    assert context.facts.phase is Phase.COMPLETED
    assert (cluster.qemu.encrypted, cluster.qemu.objects, context.facts.qemu_tls) == ([], {}, False)


def test_what_qemu_cannot_read_is_found_before_any_write(cluster, tmp_path):
    cluster.faults.bad_certificate = EXPIRED
    context = run(cluster, tmp_path, **QEMU_TLS)
    assert (context.facts.phase, context.facts.error["code"]) == (Phase.ROLLED_BACK, "NO_TRANSPORT_USABLE")
    assert "client-cert.pem: it has expired" in context.facts.error["message"]
    assert "locking" not in [record["kind"] for record in context.journal.records]
    assert cluster.target.vms == {}


def test_next_listed_transport_is_taken_when_qemu_cannot(cluster, tmp_path):
    cluster.qemu.parameters["tls-creds"] = "somebody"
    context = run(cluster, tmp_path, **{**QEMU_TLS, "transports": ["qemu-tls", "tls"]})
    told = {entry["transport"]: entry["reason"] for entry in context.facts.transports_rejected}
    assert "somebody else" in told["qemu-tls"]
    assert context.facts.transport == "tls"
    assert cluster.opaque_keys == ["", "", ""]
    assert cluster.qemu.parameters["tls-creds"] == "somebody"


def test_disk_of_a_qemu_that_cannot_name_the_peer_is_refused(cluster, tmp_path):
    cluster.qemu.version = (6, 2, 0)
    context = run(cluster, tmp_path, **QEMU_TLS)
    rejected = context.facts.error["facts"]["rejected"]
    assert [entry["code"] for entry in rejected] == ["CAPABILITY_MISSING"]
    assert cluster.qemu.objects == {}


def test_target_that_cannot_be_armed_ends_the_migration(cluster, tmp_path):
    cluster.incoming.refuses = "tls_arm"
    context = run(cluster, tmp_path, **QEMU_TLS)
    assert (context.facts.phase, context.facts.error["code"]) == (Phase.ROLLED_BACK, "INCOMING_FAILED")
    assert (cluster.qemu.state, cluster.qemu.encrypted, cluster.target.vms) == ("running", [], {})
    assert_nothing_left(cluster)


def test_target_that_stays_armed_does_not_fail_the_migration(cluster, tmp_path):
    cluster.incoming.refuses = "tls_disarm"
    assert run(cluster, tmp_path, **QEMU_TLS).facts.phase is Phase.COMPLETED


@pytest.mark.parametrize("fault", ["ram_error", "mirror_error"])
def test_failed_migration_leaves_nothing_in_the_source(cluster, tmp_path, fault):
    setattr(cluster.faults, fault, "Input/output error")
    context = run(cluster, tmp_path, **QEMU_TLS)
    assert (context.facts.phase, context.facts.error["code"]) == (Phase.ROLLED_BACK, "TRANSFER_FAILED")
    assert_nothing_left(cluster)


def test_new_attempt_is_armed_anew(cluster, tmp_path):
    """QEMU < 8.2: the target QEMU of a second attempt is another one."""
    cluster.qemu.version = (7, 2, 0)
    looks = iter(range(100))
    cluster.faults.before = lambda command: setattr(
        cluster.qemu, "remaining", 40 << 20 if command == "version" and next(looks) == 1 else 0
    )
    context = run(cluster, tmp_path, **QEMU_TLS)
    assert (context.facts.phase, context.facts.attempts) == (Phase.COMPLETED, 1)
    calls = [op for op, _values in cluster.incoming.calls]
    assert (calls.count("opaque_key"), calls.count("tls_arm")) == (1, 2)
    assert cluster.opaque_keys == ["", *["0c" * 32] * 4]
    assert cluster.qemu.encrypted == ["b1"] * 4


def test_key_of_the_opaque_streams_is_written_nowhere(cluster, tmp_path):
    context = run(cluster, tmp_path, **QEMU_TLS)
    assert "0c" * 32 in cluster.opaque_keys
    assert all("0c" * 32 not in path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "0c" * 32 not in json.dumps(context.journal.records)


@pytest.mark.parametrize("key", [None, "", "0c" * 31, 7])
def test_target_that_tells_no_key_is_not_used(cluster, tmp_path, key):
    cluster.incoming.opaque_key = key
    context = run(cluster, tmp_path, **{**QEMU_TLS, "transports": ["qemu-tls", "websocket"]})
    assert (context.facts.phase, context.facts.transport) == (Phase.COMPLETED, "websocket")
    assert [entry["code"] for entry in context.facts.transports_rejected] == ["TARGET_UNEXPECTED"]
    assert cluster.dialled == ["control"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_worker_that_dies_anywhere_leaves_nothing_in_the_source(tmp_path, after):
    for at in range(1, 60):
        cluster, path = Cluster(), tmp_path / str(at)
        path.mkdir()
        if not run_with_crash(cluster, path, at, after, **QEMU_TLS):
            return
        context = run(cluster, path, **QEMU_TLS)
        assert context.facts.final
        if cluster.qemu.alive:
            assert_nothing_left(cluster)
    pytest.fail("it never came to the end")


def test_refusal_of_the_source_names_the_certificate_of_the_target(cluster, tmp_path):
    cluster.faults.handshake_error = "Certificate does not match the hostname b1"
    context = run(cluster, tmp_path, **QEMU_TLS)
    assert error_of(context) == ("QEMU_TLS_FAILED", "target", "server-cert.pem of b1")
    assert cluster.qemu.state == "running"
    assert_nothing_left(cluster)


def explained(cluster, tmp_path, end, words="ram_save_setup failed: Input/output error", **options):
    context = context_of(cluster, tmp_path, **{**QEMU_TLS, **options})
    context.incoming = cluster.incoming
    context.pumps["ram"] = context.world.dial("qemu-tls", "ram", Kind.RAM, "ram", None, "")
    context.pumps["ram"].ended = PumpEnd(end, False) if end else None
    cluster.target.qemu = cluster.target.qemu or "inmigrate"
    error = qemu_tls.explain(context, "ram", words)
    return error and (error.facts["cause"], error.side.value, error.object)


def test_target_that_ends_the_handshake_has_refused_the_source(cluster, tmp_path):
    expected = ("refused", "source", "client-cert.pem of a1")
    assert explained(cluster, tmp_path, EndReason.SERVER_CLOSED) == expected


def test_target_that_does_not_answer_is_said_so(cluster, tmp_path):
    assert explained(cluster, tmp_path, EndReason.ANSWER_MISSING) == ("silent", "target", "QEMU on b1")


def test_source_that_does_not_encrypt_is_said_so(cluster, tmp_path):
    assert explained(cluster, tmp_path, EndReason.CLEAR_TEXT) == ("clear_text", "source", "QEMU")


@pytest.mark.parametrize("end", [EndReason.PEER_SILENT, EndReason.CUT, None])
def test_stream_that_broke_for_another_reason_is_not_explained_by_tls(cluster, tmp_path, end):
    assert explained(cluster, tmp_path, end) is None


def test_target_that_has_let_somebody_in_did_not_refuse(cluster, tmp_path):
    cluster.target.qemu = "paused"
    assert explained(cluster, tmp_path, EndReason.SERVER_CLOSED) is None


def test_lost_control_explains_nothing(cluster, tmp_path):
    context = context_of(cluster, tmp_path, **QEMU_TLS)
    context.pumps["ram"] = context.world.dial("qemu-tls", "ram", Kind.RAM, "ram", None, "")
    context.pumps["ram"].ended = PumpEnd(EndReason.SERVER_CLOSED, False)
    assert qemu_tls.explain(context, "ram", "Input/output error") is None


def test_words_of_other_transports_are_theirs(cluster, tmp_path):
    assert explained(cluster, tmp_path, EndReason.SERVER_CLOSED, "has expired", transports=["tls"]) is None
