# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The direct transports in the order of a migration, with the incoming worker played."""

from __future__ import annotations

import pytest
from unit.fakes.migration_run import POINT, context_of, run
from unit.fakes.migration_world import Cluster

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Phase
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import EndReason, PumpEnd
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.policy import Rejection

TLS = {"transports": ["tls"], "incoming": POINT}


@pytest.fixture
def cluster():
    return Cluster()


def kinds(context):
    return [record["kind"] for record in context.journal.records]


def test_vm_arrives_over_tls(cluster, tmp_path):
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.transport) == (Phase.COMPLETED, "tls")
    assert cluster.dialled == ["control", "scsi0", "ram"]
    assert [op for op, _values in cluster.incoming.calls] == ["attach", "seal", "bye"]
    assert cluster.incoming.closed


def test_everything_stands_before_anything_is_written(cluster, tmp_path):
    context = run(cluster, tmp_path, **TLS)
    assert kinds(context).index("standing") < kinds(context).index("locking")


def test_what_cannot_stand_is_refused_before_any_write(cluster, tmp_path):
    cluster.unreachable.add("ram")
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.error["code"]) == (Phase.ROLLED_BACK, "NO_TRANSPORT_USABLE")
    assert "locking" not in kinds(context)
    assert cluster.target.vms == {}
    assert all(pump.ended for pump in cluster.pumps)


def test_next_listed_transport_is_taken_and_the_reason_told(cluster, tmp_path):
    cluster.unreachable.add("control")
    context = run(cluster, tmp_path, transports=["tls", "tcp", "websocket"], incoming={**POINT, "planes": ["tls"]})
    assert (context.facts.phase, context.facts.transport) == (Phase.COMPLETED, "websocket")
    told = {entry["transport"]: entry["code"] for entry in context.facts.transports_rejected}
    assert told == {"tls": "PUMP_FAILED", "tcp": "INCOMING_REFUSES"}


def test_stream_that_breaks_while_it_waits_ends_the_migration(cluster, tmp_path):
    cluster.faults.before = lambda command: (
        command == "start" and setattr(cluster.pumps[-1], "ended", PumpEnd(EndReason.PEER_SILENT, False))
    )
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.error["code"]) == (Phase.ROLLED_BACK, "TRANSFER_FAILED")
    assert cluster.qemu.state == "running"


def test_what_a_lost_channel_leaves_is_removed_over_control(cluster, tmp_path):
    def lose(command):
        if command == "start":
            cluster.target.connection.drop()

    cluster.faults.before = lose
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.residue) == (Phase.ROLLED_BACK, [])
    assert cluster.target.vms == {}
    removed = dict(cluster.incoming.calls)["remove"]["recorded"]
    assert (removed["vmid"], removed["commit_intent"]) == (200, False)


def test_no_rate_is_guessed_where_the_peer_tells_what_it_took(cluster, tmp_path):
    context = context_of(cluster, tmp_path, **TLS)
    assert context.stream_rate() is None
    context.ram_limit = 5000
    assert context.stream_rate() == 5000


def test_certificate_that_will_not_do_for_the_next_listed_transport_is_found_again(cluster, tmp_path):
    """``tls`` fails only when it is dialled: what was found before the worker began holds for the one after it."""
    cluster.unreachable.add("control")
    cluster.bad_credentials["qemu-tls"] = Rejection("CREDENTIALS_UNUSABLE", "its subject is not CN=a1 alone")
    context = run(cluster, tmp_path, transports=["tls", "qemu-tls", "websocket"], incoming={**POINT, "planes": ["tls"]})
    assert (context.facts.phase, context.facts.transport) == (Phase.COMPLETED, "websocket")
    told = {entry["transport"]: entry["code"] for entry in context.facts.transports_rejected}
    assert told == {"tls": "PUMP_FAILED", "qemu-tls": "CREDENTIALS_UNUSABLE"}
    assert cluster.dialled == ["control"]
