# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan: what changed since it was made, and what the target is told."""

from __future__ import annotations

import pytest
from unit.fakes.migration_run import spec_of
from unit.fakes.migration_world import CONFIG, Cluster

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import preflight


@pytest.fixture
def plan():
    cluster = Cluster()
    return preflight.look(spec_of(), cluster.source, cluster.qemu)


def test_our_own_lock_is_no_change(plan):
    assert not plan.differs((CONFIG + "lock: migrate\n").encode())


@pytest.mark.parametrize(
    "text",
    [
        CONFIG + "onboot: 1\n",
        CONFIG.replace("cores: 1", "cores: 2"),
        "#note\n" + CONFIG,
        CONFIG + "\n[PENDING]\ncores: 2\n",
    ],
    ids=["key", "value", "note", "pending"],
)
def test_every_other_change_is_seen(plan, text):
    assert plan.differs(text.encode())


def test_target_gets_its_own_volumes_and_bridges_and_the_same_uuid(plan):
    text = plan.target_config({"scsi0": "fast:200/vm-200-disk-0.raw,size=64M"})
    assert "scsi0: fast:200/vm-200-disk-0.raw,size=64M\n" in text
    assert "BC:24:11:7A:D2:F8" in text
    assert "local:" not in text


def test_preview_says_that_names_are_the_target_s_choice(plan):
    assert "fast:(new),format=raw" in plan.preview_config()
