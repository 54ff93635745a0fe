# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The form of state and result."""

from __future__ import annotations

import json

from unit.fakes.migration_run import run
from unit.fakes.migration_world import Cluster

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.report import report


def test_result_of_a_completed_migration(tmp_path):
    result = report(run(Cluster(), tmp_path).facts)
    assert (result["phase"], result["finished"], result["error"]) == ("completed", True, None)
    assert result["target"]["vmid"] == 200
    assert result["target"]["volumes"] == ["fast:200/vm-200-disk-0.raw"]
    assert result["source"] == {"vmid": 100, "state": "stopped", "lock": "migrate"}
    assert (result["commit_intent"], result["source_fenced"], result["residue"]) == (True, True, [])
    assert result["downtime_ms"] == 30
    assert result["pause_ms"] >= 0
    assert "running" in result["proof"]["target"]


def test_result_of_a_failed_migration_names_the_error(tmp_path):
    cluster = Cluster()
    cluster.faults.refuse["start"] = "no"
    result = report(run(cluster, tmp_path).facts)
    assert (result["phase"], result["error"]["code"]) == ("rolled_back", "COMMAND_REFUSED")
    assert result["source"] == {"vmid": 100, "state": "running", "lock": None}


def test_warnings_are_sentences(tmp_path):
    cluster = Cluster()
    cluster.source.unlock = cluster.source.set_lock  # as somebody else's lock answers
    cluster.faults.refuse["start"] = "no"
    assert report(run(cluster, tmp_path).facts)["warnings"] == ["VM 100: locked [LOCK_FOREIGN]"]


def test_result_without_warnings_says_so(tmp_path):
    assert report(run(Cluster(), tmp_path).facts)["warnings"] == []


def test_result_is_json(tmp_path):
    assert json.loads(json.dumps(report(run(Cluster(), tmp_path).facts)))["transport"] == "websocket"
