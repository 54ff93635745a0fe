# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back, step by step; repeatable, touching only what is ours."""

from __future__ import annotations

import subprocess

import pytest
from unit.fakes.migration_run import context_of
from unit.fakes.migration_world import Cluster

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import rollback
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Outcome


@pytest.fixture
def cluster():
    return Cluster()


def context_in(cluster, tmp_path, run_state="running"):
    context = context_of(cluster, tmp_path)
    context.remember("running", facts={"run_state": run_state})
    context.remember("locking")
    cluster.source.lock = "migrate"
    return context


def test_foreign_jobs_and_nodes_are_left_alone(cluster, tmp_path):
    context = context_in(cluster, tmp_path)
    context.remember("mirror", key="scsi0", job="crosscluster-scsi0", node="crosscluster-scsi0")
    cluster.qemu.jobs = {name: {"status": "running", "error": None} for name in ("crosscluster-scsi0", "backup")}
    cluster.qemu.nodes = ["crosscluster-scsi0", "other"]
    rollback.rollback(context)
    assert (list(cluster.qemu.jobs), cluster.qemu.nodes) == (["backup"], ["other"])


@pytest.mark.parametrize("state", ["paused", "postmigrate", "finish-migrate"])
def test_source_that_does_not_run_by_itself_is_continued(cluster, tmp_path, state):
    cluster.qemu.state = state
    rollback.rollback(context_in(cluster, tmp_path))
    assert cluster.qemu.state == "running"


@pytest.mark.parametrize("state", ["shutdown", "io-error", "guest-panicked"])
def test_guest_that_is_off_or_broken_is_not_touched(cluster, tmp_path, state):
    cluster.qemu.state = state
    context = context_in(cluster, tmp_path)
    rollback.rollback(context)
    assert cluster.qemu.state == state
    assert context.facts.source_state == state


def test_vm_that_its_owner_paused_stays_paused(cluster, tmp_path):
    cluster.qemu.state = "paused"
    rollback.rollback(context_in(cluster, tmp_path, "paused"))
    assert cluster.qemu.state == "paused"


def test_source_whose_qemu_is_gone_is_unlocked_and_reported_stopped(cluster, tmp_path):
    cluster.qemu.alive = False
    context = context_in(cluster, tmp_path)
    assert rollback.rollback(context) is Outcome.OK
    assert (context.facts.source_state, cluster.source.lock) == ("stopped", "")


def test_active_migration_is_cancelled_and_waited_for(cluster, tmp_path):
    cluster.qemu.migration, cluster.qemu.state = "pre-switchover", "finish-migrate"
    rollback.rollback(context_in(cluster, tmp_path))
    assert (cluster.qemu.migration, cluster.qemu.state) == ("cancelled", "running")


def test_lock_is_given_back_only_when_it_was_asked_for(cluster, tmp_path):
    context = context_of(cluster, tmp_path)
    cluster.source.lock = "backup"
    rollback.rollback(context)
    assert cluster.source.lock == "backup"


def test_unreachable_target_is_listed_from_the_journal_and_the_source_goes_on(cluster, tmp_path):
    context = context_in(cluster, tmp_path)
    context.remember("reserving", vmid=200)
    context.remember("volume", key="scsi0", storage="fast", volid="fast:200/vm-200-disk-0.raw")
    cluster.faults.api_down = True
    assert rollback.rollback(context) is Outcome.OK
    assert [(entry["kind"], entry["verified"]) for entry in context.facts.residue] == [("vm", False), ("volume", False)]
    assert cluster.source.lock == ""


def test_volume_that_was_there_before_is_never_listed_as_ours(cluster, tmp_path):
    context = context_in(cluster, tmp_path)
    context.remember("reserving", vmid=200, volumes_before=["fast:200/vm-200-disk-9.raw"])
    context.remember("allocating", key="scsi0", storage="fast")
    cluster.target.volumes = ["fast:200/vm-200-disk-9.raw", "fast:200/vm-200-disk-0.raw"]
    rollback.rollback(context)
    assert [entry.get("volid") for entry in context.facts.residue] == ["fast:200/vm-200-disk-0.raw"]


def test_residue_names_its_cause_and_commands_guarded_by_the_uuid(cluster, tmp_path):
    context = context_in(cluster, tmp_path)
    context.remember("reserving", vmid=200)
    context.remember("error", error={"code": "CHANNEL_LOST"})
    cluster.target.vms[200] = {"lock": "migrate"}
    rollback.rollback(context)
    error = context.facts.error
    assert (error["code"], error["facts"]["cause"]["code"]) == ("TARGET_RESIDUE", "CHANNEL_LOST")
    assert context.facts.uuid in error["remedy"]


UNIX = """
qm() {{
  if [ "$1" = config ]; then [ -e vm ] && cat vm; return; fi
  if [ "$1" = status ]; then [ -e runs ] || echo "status: stopped"; return; fi
  echo "qm $*" >>done
  if [ "$1" = destroy ]; then rm vm; fi
}}
pvesm() {{ echo "pvesm $*" >>done; }}
ls() {{ [ -e vm ] || [ -e elsewhere ]; }}
{commands}
"""
OURS = "lock: migrate\nname: web01\nsmbios1: base64=1,uuid={uuid}\n"
CLEAN_UP = ["qm stop 200 --skiplock", "pvesm free fast:200/vm-200-disk-0.raw", "qm destroy 200 --skiplock --purge"]


def typed(tmp_path, commands, config):
    """What a person who types the commands on the target node brings about."""
    for name in ("vm", "done"):
        (tmp_path / name).unlink(missing_ok=True)
    if config is not None:
        (tmp_path / "vm").write_text(config)
    script = UNIX.format(commands=commands.replace("/etc/pve", f"{tmp_path}/pve").replace("/run/", f"{tmp_path}/"))
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=False, capture_output=True)
    done = tmp_path / "done"
    return done.read_text().splitlines() if done.exists() else []


def left_behind(cluster, tmp_path, lock):
    """The commands that are printed; ``lock`` None: the VM itself is gone."""
    context = context_in(cluster, tmp_path)
    context.remember("reserving", vmid=200, volumes_before=[])
    context.remember("volume", key="scsi0", storage="fast", volid="fast:200/vm-200-disk-0.raw")
    cluster.target.volumes = ["fast:200/vm-200-disk-0.raw"]
    if lock is not None:
        cluster.target.vms[200] = {"lock": lock}
    rollback.rollback(context)
    (tmp_path / "pve" / "nodes" / "beta1").mkdir(parents=True)
    (tmp_path / "pve" / ".version").touch()
    return context.facts.error["remedy"].partition("as root on that node: ")[2], context.facts.uuid


def test_printed_commands_remove_what_is_ours(cluster, tmp_path):
    commands, uuid = left_behind(cluster, tmp_path, "migrate")
    assert typed(tmp_path, commands, OURS.format(uuid=uuid)) == CLEAN_UP


def test_printed_commands_free_nothing_of_a_vm_that_does_not_stop(cluster, tmp_path):
    commands, uuid = left_behind(cluster, tmp_path, "migrate")
    (tmp_path / "runs").touch()
    assert typed(tmp_path, commands, OURS.format(uuid=uuid)) == CLEAN_UP[:1]


@pytest.mark.parametrize("lock", ["create", "migrate", None])
@pytest.mark.parametrize(
    "config",
    [
        OURS.format(uuid="0" * 36),
        OURS.replace("lock: migrate\n", "").format(uuid="7ad2f857-bc18-4222-b836-574a1a2b4014"),
        "lock: create\nname: new\n",
    ],
    ids=["other uuid", "unlocked by somebody", "another one being created"],
)
def test_printed_commands_touch_nothing_of_a_number_that_has_another_owner(cluster, tmp_path, lock, config):
    commands, _uuid = left_behind(cluster, tmp_path, lock)
    (tmp_path / "elsewhere").touch()
    assert typed(tmp_path, commands, config) == []


def test_printed_commands_remove_a_vm_that_is_nothing_but_its_lock(cluster, tmp_path):
    commands, _uuid = left_behind(cluster, tmp_path, "create")
    assert typed(tmp_path, commands, "lock: create\n") == CLEAN_UP[1:]


def test_volume_whose_vm_is_gone_is_freed_unless_something_names_it_or_runs(cluster, tmp_path):
    commands, _uuid = left_behind(cluster, tmp_path, None)
    assert typed(tmp_path, commands, None) == CLEAN_UP[1:2]
    named = tmp_path / "pve" / "nodes" / "beta1" / "201.conf"
    named.write_text("scsi0: fast:200/vm-200-disk-0.raw,size=64M\n")
    assert typed(tmp_path, commands, None) == []
    named.unlink()
    (tmp_path / "qemu-server").mkdir()
    (tmp_path / "qemu-server" / "200.pid").touch()
    assert typed(tmp_path, commands, None) == []


def test_printed_commands_free_nothing_without_the_configuration_file_system(cluster, tmp_path):
    commands, _uuid = left_behind(cluster, tmp_path, None)
    (tmp_path / "pve" / ".version").unlink()
    assert typed(tmp_path, commands, None) == []


def test_commands_for_a_target_that_cannot_be_read_fit_whatever_is_there(cluster, tmp_path):
    cluster.faults.api_down = True
    commands, uuid = left_behind(cluster, tmp_path, None)
    assert typed(tmp_path, commands, OURS.format(uuid=uuid))[:3] == CLEAN_UP
    (tmp_path / "elsewhere").touch()
    assert typed(tmp_path, commands, OURS.format(uuid="0" * 36)) == []


def test_second_rollback_finds_nothing_to_do(cluster, tmp_path):
    context = context_in(cluster, tmp_path)
    rollback.rollback(context)
    commands = len(cluster.qemu.commands)
    assert rollback.rollback(context) is Outcome.OK
    assert "cont" not in cluster.qemu.commands[commands:]
