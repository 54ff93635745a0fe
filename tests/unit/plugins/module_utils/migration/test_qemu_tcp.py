# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``qemu-tcp`` in the order of a migration: asked of the target, tied to the proof, explained when a stranger came."""

from __future__ import annotations

import pytest
from unit.fakes.migration_run import POINT, context_of, run, run_with_crash
from unit.fakes.migration_world import Cluster

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import qemu_tcp
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Phase
from ansible_collections.crosscluster.migration.plugins.module_utils.network.evidence import Check, State
from ansible_collections.crosscluster.migration.plugins.module_utils.network.verdict import REQUIRED, judge
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import PumpFailed
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import Kind

OWN, ADDRESS = "10.77.0.11", "10.77.0.21"
ACCEPTED = {"accepted_by": "the network team", "until": "2100-01-01"}


def proven(cluster, age=60.0):
    checks = [
        Check(number, node, State.PASSED, f"{address}/24 on mig, which is up", part=part)
        for number, part in REQUIRED
        for node, address in (("a1", OWN), ("b1", ADDRESS))
    ]
    checks += [Check(11, node, State.NOTED, "veth") for node in ("a1", "b1")]
    return judge("a1", "b1", "10.77.0.0/24", checks, now=cluster.clock.wall() - age).to_dict()


def plain(cluster, transports=("qemu-tcp",), **more):
    incoming = {"address": ADDRESS, "own_address": OWN, "network": proven(cluster), **more}
    return {"transports": list(transports), "incoming": incoming, "clear_text": ACCEPTED}


@pytest.fixture
def cluster():
    made = Cluster()
    made.target.caps = ["insecure-remote"]
    return made


def kinds(context):
    return [record["kind"] for record in context.journal.records]


def test_vm_arrives_at_the_listeners_of_the_targets_qemu(cluster, tmp_path):
    context = run(cluster, tmp_path, **plain(cluster))
    assert (context.facts.phase, context.facts.transport) == (Phase.COMPLETED, "qemu-tcp")
    assert [stream[:3] for stream in cluster.plain] == [("scsi0", ADDRESS, 60001), ("ram", ADDRESS, 60000)]
    sent = cluster.target.plain_start
    assert sent["start_params"]["statefile"] == "tcp"
    assert (sent["migrate_opts"]["type"], sent["migrate_opts"]["network"]) == ("insecure", "10.77.0.0/24")
    assert cluster.dialled == []


def test_target_is_asked_before_the_source_is_locked(cluster, tmp_path):
    context = run(cluster, tmp_path, **plain(cluster))
    order = [kind for kind in kinds(context) if kind in ("reserving", "tunnel", "locking", "lock_taken")]
    assert order == ["reserving", "tunnel", "locking", "lock_taken"]


def test_target_without_the_capability_is_left_as_it_was(cluster, tmp_path):
    cluster.target.caps = []
    context = run(cluster, tmp_path, **plain(cluster))
    assert (context.facts.phase, context.facts.error["code"]) == (Phase.ROLLED_BACK, "NO_TRANSPORT_USABLE")
    [why] = context.facts.error["facts"]["rejected"]
    assert why["code"] == "CAPABILITY_MISSING"
    assert "beta1" in why["reason"]
    assert (cluster.target.vms, context.facts.residue) == ({}, [])
    assert "locking" not in kinds(context)


@pytest.mark.parametrize("next_one", ["websocket", "tls"])
def test_next_listed_transport_goes_on_with_the_same_reservation(cluster, tmp_path, next_one):
    cluster.target.caps = []
    point = POINT if next_one == "tls" else {}
    options = plain(cluster, ["qemu-tcp", next_one], **{**point, "address": ADDRESS})
    context = run(cluster, tmp_path, **options)
    assert (context.facts.phase, context.facts.transport) == (Phase.COMPLETED, next_one)
    assert [each["code"] for each in context.facts.transports_rejected] == ["CAPABILITY_MISSING"]
    assert kinds(context).count("reserving") == 1


def test_it_is_taken_where_a_direct_transport_does_not_stand(cluster, tmp_path):
    cluster.unreachable.add("control")
    options = plain(cluster, ["tls", "qemu-tcp"], **{**POINT, "address": ADDRESS})
    context = run(cluster, tmp_path, **options)
    assert (context.facts.phase, context.facts.transport) == (Phase.COMPLETED, "qemu-tcp")


def test_token_without_the_right_reserves_nothing(cluster, tmp_path):
    cluster.target.rights = ["Sys.Incoming"]
    context = run(cluster, tmp_path, **plain(cluster))
    [why] = context.facts.error["facts"]["rejected"]
    assert why["code"] == "PRIVILEGE_MISSING"
    assert "reserving" not in kinds(context)


def test_reservation_goes_with_what_fails_before_the_lock(cluster, tmp_path):
    cluster.faults.lose_reply_of = "version"
    context = run(cluster, tmp_path, **plain(cluster))
    assert context.facts.phase is Phase.ROLLED_BACK
    assert "locking" not in kinds(context)
    assert [entry["kind"] for entry in context.facts.residue] == ["vm", "task"]  # what no token can take away


def patched():
    made = Cluster()
    made.target.caps = ["insecure-remote"]
    return made


@pytest.mark.parametrize(
    ("kind", "after", "taken"),
    [
        ("reserving", True, False),
        ("tunnel", False, True),
        ("tunnel", True, True),
        ("running", True, True),
        ("locking", True, True),
    ],
    ids=["before the POST", "the POST was answered", "and that is written", "it was asked", "before the lock"],
)
def test_worker_that_dies_between_the_reservation_and_the_lock_leaves_nothing_untold(tmp_path, kind, after, taken):
    """The next worker tells what Proxmox keeps of the tunnel, which takes root to remove; the source is untouched."""
    (tmp_path / "whole").mkdir()
    whole = patched()
    at = kinds(run(whole, tmp_path / "whole", **plain(whole))).index(kind)
    cluster = patched()
    assert run_with_crash(cluster, tmp_path, at, after, **plain(cluster))
    context = run(cluster, tmp_path, **plain(cluster))
    assert (context.facts.phase, cluster.qemu.state, cluster.source.lock) == (Phase.ROLLED_BACK, "running", "")
    assert bool(cluster.target.vms) is taken
    assert [entry["kind"] for entry in context.facts.residue] == (["vm", "task"] if taken else [])
    assert not cluster.target.task_running


def test_proof_that_grew_old_while_the_reservation_waited_starts_nothing(cluster, tmp_path):
    def wait(command):
        if command == "config":
            cluster.clock.sleep(900)

    cluster.faults.before = wait
    context = run(cluster, tmp_path, **plain(cluster))
    assert (context.facts.phase, context.facts.error["code"]) == (Phase.ROLLED_BACK, "NETWORK_NOT_PROVEN")
    assert cluster.target.plain_start == {}
    assert cluster.target.vms == {}


def test_stranger_that_ended_the_targets_qemu_is_told(cluster, tmp_path, monkeypatch):
    context = context_of(cluster, tmp_path, **plain(cluster))
    context.facts.target_vmid = 200
    cluster.target.vms[200] = {"lock": "migrate"}
    cluster.target.qemu = ""
    told = qemu_tcp.explain(context, "ram")
    assert "port scan" in told.message
    cluster.target.qemu = "inmigrate"
    assert qemu_tcp.explain(context, "ram") is None
    cluster.target.qemu = ""
    context.stopped_at = 1.0  # the guest stands still: nobody is asked
    assert qemu_tcp.explain(context, "ram") is None


def test_disk_whose_listener_is_gone_tells_why(cluster, tmp_path):
    context = context_of(cluster, tmp_path, **plain(cluster))
    context.facts.target_vmid = 200
    context.listeners = cluster_listeners()

    class Dead:
        def wait_listening(self, deadline):
            raise PumpFailed("gone", object="scsi0", side=qemu_tcp.Side.TARGET)

    object.__setattr__(context.world, "open_plain", lambda *_a: (Dead(), ""))
    with pytest.raises(PumpFailed):  # the target does not say that its QEMU is gone
        qemu_tcp.open_stream(context, "scsi0", Kind.NBD)
    cluster.target.vms[200] = {"lock": "migrate"}
    with pytest.raises(qemu_tcp.TransferFailed, match="port scan"):
        qemu_tcp.open_stream(context, "scsi0", Kind.NBD)


def cluster_listeners():
    from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.replies import PlainStartReply

    return PlainStartReply(ADDRESS, 60000, 60001)


def test_no_rate_is_guessed_but_for_what_the_websocket_carries(cluster, tmp_path):
    context = context_of(cluster, tmp_path, **plain(cluster))
    assert context.stream_rate() is None
    assert context.stream_rate(Kind.IMPORT) is not None
