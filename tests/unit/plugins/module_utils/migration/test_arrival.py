# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What at the target counts as the VM, and what only has its uuid."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from unit.fakes.migration_run import OPTIONS, spec_of
from unit.fakes.migration_world import UUID, Cluster

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.migration import arrival
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import (
    MigrationLost,
    Recorded,
    Split,
    TargetNotRunning,
    TargetResidue,
    VmAmbiguous,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.history import Facts
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Phase
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import (
    ApiUnreachable,
    PrivilegeMissing,
    VmAbsent,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.target_api import VmResource, VmStatus

ID = "a" * 32
OTHER_UUID = UUID.replace("7", "8")
RUNNING = VmStatus("running", "running", "", True)
STOPPED = VmStatus("stopped", "stopped", "", False)
PAUSED = VmStatus("running", "paused", "", True)
BUSY = VmStatus("running", "running", "", False)
WAITING = VmStatus("running", "inmigrate", "migrate", True)
LOADED = VmStatus("running", "paused", "migrate", True)
KEPT = VmStatus("stopped", "stopped", "migrate", False)
MARK = f"notes\ncrosscluster {ID}: committed to alpha1/100"
ELSEWHERE = {"target": dict(OPTIONS["target"], api_host="g1")}


@dataclass
class Vm:
    node: str
    status: object
    config: dict


class Target:
    """The API of the target cluster: a VM is found on its own node only."""

    def __init__(self):
        self.vms = {}
        self.listed = []
        self.errors = []

    def add(self, vmid, status, uuid=UUID, name="web01", node="beta1", description=""):
        self.vms[vmid] = Vm(node, status, {"smbios1": f"uuid={uuid}", "description": description})
        self.listed.append(VmResource(vmid, node, name, "running"))

    def _vm(self, vmid, node):
        for error in self.errors:
            raise error
        if vmid not in self.vms or self.vms[vmid].node != (node or "beta1"):
            raise VmAbsent("absent", object=f"VM {vmid}", status=500)
        return self.vms[vmid]

    def vm_status(self, vmid, timeout=None, node=None):
        status = self._vm(vmid, node).status
        return status.pop(0) if isinstance(status, list) else status

    def vm_config(self, vmid, node=None):
        return self._vm(vmid, node).config

    def vm_resources(self):
        return self.listed


@pytest.fixture
def target():
    return Target()


@pytest.fixture
def source():
    return Cluster().source


def find(source, target, facts=None, ended=(), spec=None):
    return arrival.find(spec or spec_of(), UUID, source, target, facts, ended)


def completed(run_state="running", vmid=200, **options):
    return Facts(
        migration_id=ID,
        spec=spec_of(**options),
        uuid=UUID,
        phase=Phase.COMPLETED,
        target_vmid=vmid,
        running={"run_state": run_state},
    )


def rolled_back(vmid, **options):
    residue = [{"kind": "vm", "vmid": vmid}]
    return Facts(migration_id=ID, spec=spec_of(**options), phase=Phase.ROLLED_BACK, target_vmid=vmid, residue=residue)


# Found by its uuid


@pytest.mark.parametrize("facts", [None, completed()], ids=["no journal", "journal"])
def test_vm_that_runs_there_has_arrived(source, target, facts):
    source.qemu.alive = False
    target.add(200, RUNNING)
    assert find(source, target, facts) == arrival.Arrival(200, "beta1", facts is not None, False)


def test_vm_is_found_by_its_name_under_another_number(source, target):
    source.qemu.alive = False
    target.add(300, RUNNING)
    assert find(source, target).vmid == 300


def test_vm_is_found_on_whatever_node_of_the_cluster_it_is(source, target):
    source.qemu.alive = False
    target.add(200, RUNNING, node="beta2")
    assert find(source, target, completed()).node == "beta2"


def test_vm_of_the_same_number_on_another_node_is_another_vm(source, target):
    source.qemu.alive = False
    target.add(200, RUNNING, uuid=OTHER_UUID, node="beta2")
    with pytest.raises(VmAmbiguous):
        find(source, target, completed())


def test_vm_of_the_same_name_and_another_uuid_is_another_vm(source, target):
    target.add(300, RUNNING, uuid=OTHER_UUID)
    assert find(source, target) is None


def test_two_vms_of_the_uuid_are_ambiguous(source, target):
    target.add(300, RUNNING)
    target.add(301, RUNNING)
    with pytest.raises(VmAmbiguous):
        find(source, target)


def test_vm_that_the_token_may_not_see_is_another_vm(source, target):
    target.add(300, RUNNING)
    target.errors = [PrivilegeMissing("no", object="VM 300", status=403)]
    assert find(source, target) is None


def test_answer_that_does_not_come_is_no_answer(source, target):
    target.add(300, RUNNING)
    target.errors = [ApiUnreachable("down", object="api")]
    with pytest.raises(ApiUnreachable):
        find(source, target)


def test_number_of_a_move_to_another_cluster_means_nothing_here(source, target):
    source.qemu.alive = False
    target.add(200, RUNNING, uuid=OTHER_UUID, name="db01")
    assert find(source, target, completed(**ELSEWHERE)) is None


# Whether it runs there


@pytest.mark.parametrize("status", [STOPPED, PAUSED, LOADED, WAITING, BUSY])
def test_moved_vm_that_does_not_run_there_is_told(source, target, status):
    source.qemu.alive = False
    target.add(200, status)
    with pytest.raises(TargetNotRunning):
        find(source, target, completed())


def test_monitor_that_was_busy_is_asked_again(source, target):
    source.qemu.alive = False
    target.add(200, [BUSY, RUNNING])
    assert find(source, target, completed()).vmid == 200


@pytest.mark.parametrize(("run_state", "status"), [("paused", PAUSED), ("stopped", STOPPED)])
def test_vm_that_its_owner_had_off_or_paused_has_arrived_so(source, target, run_state, status):
    source.qemu.alive = False
    target.add(200, status)
    assert find(source, target, completed(run_state)).vmid == 200


def test_moved_vm_that_is_nowhere_is_told(source, target):
    source.qemu.alive = False
    with pytest.raises(TargetNotRunning):
        find(source, target, completed())


def test_vm_that_came_home_may_be_moved_again(source, target):
    assert find(source, target, completed()) is None


@pytest.mark.parametrize("facts", [None, completed()], ids=["no journal", "journal"])
@pytest.mark.parametrize("node", ["beta1", "beta2"])
def test_two_running_copies_are_told(source, target, facts, node):
    target.add(200, RUNNING, node=node)
    with pytest.raises(Split):
        find(source, target, facts)


# What an earlier attempt left


@pytest.mark.parametrize("status", [WAITING, LOADED])
@pytest.mark.parametrize("alive", [True, False], ids=["source runs", "source is gone"])
def test_what_an_attempt_left_is_not_the_vm(source, target, status, alive):
    source.qemu.alive = alive
    target.add(200, status)
    for ended in [[rolled_back(200)], []]:
        with pytest.raises(TargetResidue):
            find(source, target, ended[-1] if ended else None, ended)


def test_what_an_attempt_left_under_another_number_does_not_count(source, target):
    target.add(300, WAITING)
    assert find(source, target, None, [rolled_back(300)]) is None


def test_what_somebody_unlocked_since_is_looked_at_again(source, target):
    source.qemu.alive = False
    target.add(300, RUNNING)
    assert find(source, target, None, [rolled_back(300)]).vmid == 300


def test_number_with_residue_is_not_used_again(target):
    target.add(200, STOPPED, uuid="")
    with pytest.raises(TargetResidue) as caught:
        arrival.check_residue(spec_of(), target, [rolled_back(200)])
    assert caught.value.facts["residue"] == [{"kind": "vm", "vmid": 200}]
    arrival.check_residue(spec_of(), target, [rolled_back(200, **ELSEWHERE)])
    target.listed.clear()
    target.vms.clear()
    arrival.check_residue(spec_of(), target, [rolled_back(200)])


# The way back: the source copy of the way there was kept


def test_kept_copy_under_another_number_does_not_stand_in_the_way(source, target):
    target.add(300, KEPT, description=MARK)
    assert find(source, target) is None


def test_kept_copy_under_the_number_asked_for_is_to_be_removed(source, target):
    target.add(200, KEPT, description=MARK)
    with pytest.raises(TargetResidue) as caught:
        find(source, target)
    assert "qm unlock 200; qm destroy 200" in caught.value.remedy


@pytest.mark.parametrize(
    ("status", "description", "error"),
    [(KEPT, "notes", TargetResidue), (STOPPED, MARK, TargetResidue), (RUNNING, MARK, Split)],
    ids=["no mark", "unlocked", "started"],
)
def test_only_what_is_marked_stopped_and_locked_is_a_kept_copy(source, target, status, description, error):
    target.add(300, status, description=description)
    with pytest.raises(error):
        find(source, target)


# A loss, until somebody has decided


def lost():
    error = MigrationLost("lost", side=Side.TARGET, object="VM 200")
    return Facts(migration_id=ID, spec=spec_of(), phase=Phase.LOST, target_vmid=200, error=error.to_dict())


def test_loss_does_not_count_once_the_source_runs_and_the_target_is_gone(source, target):
    assert find(source, target, lost()) is None


@pytest.mark.parametrize("undecided", ["source is off", "source is locked", "target is there", "another target"])
def test_loss_stays_until_somebody_has_decided(source, target, undecided):
    spec = spec_of(**ELSEWHERE) if undecided == "another target" else spec_of()
    source.qemu.alive = undecided != "source is off"
    source.lock = "migrate" if undecided == "source is locked" else ""
    if undecided == "target is there":
        target.add(200, STOPPED)
    with pytest.raises(Recorded) as caught:
        find(source, target, lost(), spec=spec)
    assert caught.value.code == "TARGET_LOST"
