# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A callback that writes every task result to a file, one JSON object a line; the tests read results from there."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: record
type: aggregate
short_description: Write task results to the file in RECORD_FILE
description: Used by the end-to-end tests only.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "record"
    CALLBACK_NEEDS_ENABLED = True

    def _write(self, **fields: Any) -> None:
        path = os.environ.get("RECORD_FILE")
        if path:
            with open(path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(fields, default=str) + "\n")

    def _result(self, event: str, result: Any) -> None:
        task = result._task
        self._write(
            event=event,
            host=result._host.get_name(),
            task=task.get_name(),
            action=task.action,
            result=dict(result._result),
        )

    def v2_runner_on_ok(self, result):
        self._result("ok", result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._result("ignored" if ignore_errors else "failed", result)

    def v2_runner_on_unreachable(self, result):
        self._result("unreachable", result)

    def v2_playbook_on_stats(self, stats):
        self._write(event="stats", hosts={host: stats.summarize(host) for host in stats.processed})
