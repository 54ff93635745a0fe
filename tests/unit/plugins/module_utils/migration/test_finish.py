# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source is fenced first, by whatever works; then the kept copy is made harmless; then the lock is told."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from unit.fakes.migration_run import context_of
from unit.fakes.migration_world import Cluster

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.migration import finish
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import SourceLost
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.report import report
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Outcome
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import NodeCommandFailed

NET = "virtio=BC:24:11:7A:D2:F8,bridge=vmbr0"


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def context(cluster, tmp_path):
    context = context_of(cluster, tmp_path)
    context.remember("reserving", vmid=200)
    cluster.target.vms[200] = {"lock": "migrate"}
    return context


def refuse(*_arguments):
    raise NodeCommandFailed("no quorum", side=Side.SOURCE, object="VM 100")


def test_kept_copy_has_no_link_no_start_at_boot_and_a_word_in_its_notes(cluster, context):
    assert finish.fence(context) is Outcome.OK
    assert not cluster.qemu.alive
    assert cluster.source.options["onboot"] == "0"
    assert cluster.source.options["net0"].endswith("link_down=1")
    assert context.facts.migration_id in cluster.source.options["description"]
    assert context.facts.undo["net0"] == NET
    assert context.facts.undo["onboot"] is None


def test_fence_works_without_quorum_and_the_result_says_that_the_mark_is_missing(cluster, context):
    cluster.source.stop = cluster.source.set_options = refuse
    assert finish.fence(context) is Outcome.OK
    assert not cluster.qemu.alive
    begun = cluster.clock.now
    assert finish.cleanup(context) is Outcome.OK
    assert [warning["code"] for warning in context.facts.result["warnings"]] == ["NODE_COMMAND_FAILED"]
    assert cluster.clock.now - begun < 30


def test_mark_that_failed_at_the_fence_is_made_up_for_in_the_clean_up(cluster, context):
    write, cluster.source.set_options = cluster.source.set_options, refuse
    finish.fence(context)
    cluster.source.set_options = write
    finish.cleanup(context)
    assert "onboot: 0" in cluster.source.text
    assert "link_down=1" in cluster.source.text
    assert context.facts.migration_id in cluster.source.text
    assert context.facts.undo == {"net0": NET, "onboot": None, "description": ""}
    assert "warnings" not in context.facts.result


@pytest.mark.parametrize("notes", ["x" * 8150, "\N{SNOWMAN}" * 2720], ids=["letters", "bytes"])
def test_notes_that_are_full_keep_their_text_and_the_copy_is_harmless_all_the_same(cluster, context, notes):
    cluster.source.text += f"description: {quote(notes)}\n"
    finish.fence(context)
    finish.cleanup(context)
    assert set(cluster.source.options) == {"onboot", "net0"}
    warnings = report(context.facts)["warnings"]
    assert len(warnings) == 1
    assert "notes are full" in warnings[0]
    assert "beta1/200" in warnings[0]


def test_notes_that_are_refused_leave_the_copy_without_start_and_link(cluster, context):
    write = cluster.source.set_options
    cluster.source.set_options = lambda options: refuse() if "description" in options else write(options)
    finish.fence(context)
    finish.cleanup(context)
    assert set(cluster.source.options) == {"onboot", "net0"}
    assert len(report(context.facts)["warnings"]) == 1


def test_fence_that_does_not_stop_the_source_is_none(cluster, context):
    cluster.source.stop = refuse
    cluster.qemu.quit = lambda _arguments: None
    with pytest.raises(SourceLost) as caught:
        finish.fence(context)
    assert "qm stop 100 --skiplock" in caught.value.remedy
    assert cluster.source.options == {}


def test_second_fence_changes_nothing(cluster, context):
    finish.fence(context)
    cluster.source.options.clear()
    undo = dict(context.facts.undo)
    finish.fence(context)
    finish.cleanup(context)
    assert (cluster.source.options, context.facts.undo) == ({}, undo)


def test_lock_that_cannot_be_taken_off_is_residue(context):
    assert finish.cleanup(context) is Outcome.OK
    assert context.facts.residue == [{"kind": "lock", "node": "beta1", "vmid": 200, "lock": "migrate"}]


def test_target_that_does_not_answer_is_told_as_unknown(cluster, context):
    cluster.faults.api_down = True
    assert finish.cleanup(context) is Outcome.OK
    assert context.facts.residue[0]["lock"] == "unknown"
