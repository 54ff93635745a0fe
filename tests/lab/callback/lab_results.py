# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes what a play's tasks returned to a file, beside the usual output: how the demo and tests read results."""

from __future__ import annotations

import json
import os

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: lab_results
type: aggregate
short_description: Results of the collection's modules as JSON lines
description: Appends one line per result of a crosscluster task and one with the statistics to the file of LAB_RESULTS.
"""


class CallbackModule(CallbackBase):
    """Results to $LAB_RESULTS, one JSON object per line."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "lab_results"
    CALLBACK_NEEDS_ENABLED = True

    def _append(self, record: dict) -> None:
        path = os.environ.get("LAB_RESULTS")
        if path:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record, default=str) + "\n")

    def _result(self, kind: str, result) -> None:
        action = str(result._task.action)
        if action.startswith("crosscluster.migration.") or kind != "ok":
            self._append(
                {
                    "kind": kind,
                    "host": result._host.get_name(),
                    "action": action,
                    "task": result._task.get_name(),
                    "result": result._result,
                }
            )

    def v2_runner_on_ok(self, result) -> None:
        self._result("ok", result)

    def v2_runner_on_failed(self, result, ignore_errors=False) -> None:
        self._result("failed", result)

    def v2_runner_on_unreachable(self, result) -> None:
        self._result("unreachable", result)

    def v2_playbook_on_stats(self, stats) -> None:
        hosts = {host: stats.summarize(host) for host in stats.processed}
        self._append(
            {
                "kind": "stats",
                "hosts": hosts,
                "changed": sum(each["changed"] for each in hosts.values()),
                "failed": sum(each["failures"] + each["unreachable"] for each in hosts.values()),
            }
        )
