# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A target QEMU is armed while it waits, at once or not at all."""

from __future__ import annotations

import pytest
from unit.fakes.tls_monitor import NODES, TlsMonitor

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import CrossclusterError, Side
from ansible_collections.crosscluster.migration.plugins.module_utils.migration import incoming_tls

PATH = "/run/qemu-server/117_nbd.migrate"


def arm(qemu, nbd=PATH, exports=tuple(NODES)):
    return incoming_tls.arm(qemu, directory="/pki/lab", peer_name="a1", nbd=nbd, exports=list(exports))


def refusal(qemu, **options):
    with pytest.raises(CrossclusterError) as caught:
        arm(qemu, **options)
    return caught.value


def test_everything_is_armed():
    qemu = TlsMonitor()
    assert arm(qemu) == {"exports": list(NODES)}
    assert sorted(qemu.objects) == ["crosscluster-authz", "crosscluster-tls"]
    assert qemu.parameters["tls-authz"] == "crosscluster-authz"
    assert qemu.server["tls-creds"] == "crosscluster-tls"


def test_repeated_request_begins_anew():
    qemu = TlsMonitor()
    assert arm(qemu) == arm(qemu)


def test_vm_without_disks_has_no_server():
    qemu = TlsMonitor()
    arm(qemu, nbd=None, exports=())
    assert "nbd-server-start" not in qemu.commands


@pytest.mark.parametrize("state", ["running", "paused"])
def test_qemu_with_a_guest_is_not_touched(state):
    qemu = TlsMonitor(state)
    assert refusal(qemu).code == "ATTACH_REFUSED"
    assert qemu.commands == ["query-status"]


@pytest.mark.parametrize("command", ["object-add", "migrate-set-parameters", "nbd-server-start", "block-export-add"])
def test_half_of_it_is_taken_back(command):
    qemu = TlsMonitor()
    qemu.fails[command] = "no"
    error = refusal(qemu)
    assert error.side is Side.TARGET
    assert (qemu.objects, qemu.parameters["tls-creds"]) == ({}, "")


def test_disarmed_qemu_has_nothing_of_ours():
    qemu = TlsMonitor()
    arm(qemu)
    qemu.state = "running"
    assert incoming_tls.disarm(qemu) == {}
    assert (qemu.objects, qemu.parameters["tls-creds"]) == ({}, "")


def test_qemu_that_has_ended_needs_no_disarming():
    qemu = TlsMonitor()
    qemu.alive = False
    assert incoming_tls.disarm(qemu) == {}
    assert refusal(qemu).code == "INCOMING_FAILED"


def test_qemu_that_keeps_it_is_told():
    qemu = TlsMonitor()
    arm(qemu)
    qemu.fails["object-del"] = "in use"
    with pytest.raises(CrossclusterError, match="in use"):
        incoming_tls.disarm(qemu)
