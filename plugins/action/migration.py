# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the task ``migration`` that runs on the controller: check, start, and print a line while it moves.

Knows how to ask again and how to print. Does not know what a phase means, and computes nothing. The migration itself
hangs on nothing here: when this process ends, the worker on the source node notices that nobody asks any more.
"""

from __future__ import annotations

import os
import time
from typing import Any, Dict, Mapping, Optional

from ansible.errors import AnsibleConnectionFailure
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.crosscluster.migration.plugins.module_utils.arguments import (
    ABORTED,
    SECRET,
    broken_rule,
    migration_arguments,
    wrong_shape,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.progress import line

display = Display()

UNREACHABLE_LIMIT = 900.0  # seconds the source node may be out of reach before the task gives up
PAUSE = 3.0  # seconds between two attempts to reach it
SHOWN_LENGTH = 200  # characters of a reason in a line


class ActionModule(ActionBase):
    """Runs the module ``migration`` once, and then again with its lease until the move has ended."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        """See the module of the same name."""
        parent = os.getppid()
        super().run(tmp, task_vars)
        arguments = plain(self._task.args)
        refusal = check(arguments)
        if refusal:
            return failure(refusal)
        task_vars = task_vars or {}
        first = self._ask(arguments, task_vars)
        waits = not (self._task.check_mode or arguments.get("state") == ABORTED or arguments.get("lease"))
        if not waits or ended(first) or not as_bool(arguments.get("wait", True)):
            return first
        return self._watch(first, arguments["source"], task_vars, parent)

    def _watch(
        self, result: Dict[str, Any], source: Mapping[str, Any], task_vars: Dict[str, Any], parent: int
    ) -> Dict[str, Any]:
        """Prints and asks again until the move has ended; ends at once when the play does (ansible-tooling 5)."""
        changed, reached = bool(result.get("changed")), time.monotonic()
        # What the user asked for; later calls carry the lease alone, and would show defaults for all the rest.
        asked = {"invocation": result["invocation"]} if "invocation" in result else {}
        while os.getppid() == parent:
            if "progress" in result:
                vm, node = self._names(task_vars)
                self._show(line(result.get("name") or vm, node, {**result["progress"], "phase": result.get("phase")}))
            if ended(result):
                shown = {} if result.get("failed") else asked
                return {**result, **shown, "changed": changed or bool(result.get("changed"))}
            lease = result["lease"]
            try:
                result = self._ask({"source": source, "lease": lease}, task_vars)
                reached = time.monotonic()
            except AnsibleConnectionFailure as error:
                if time.monotonic() - reached > UNREACHABLE_LIMIT:
                    raise
                vm, node = self._names(task_vars)
                self._show(f"{vm} on {node}: out of reach, the move goes on: {str(error)[:SHOWN_LENGTH]}")
                time.sleep(PAUSE)
        return failure("the play has ended")

    def _ask(self, arguments: Mapping[str, Any], task_vars: Dict[str, Any]) -> Dict[str, Any]:
        """One run of the module on the source node."""
        return self._execute_module(
            module_name="crosscluster.migration.migration", module_args=dict(arguments), task_vars=task_vars
        )

    def _names(self, task_vars: Mapping[str, Any]) -> tuple[str, str]:
        """What the person who reads calls the VM, and the node it moves from."""
        vm = str(task_vars.get("inventory_hostname", "?"))
        return vm, str(self._task.delegate_to or vm)

    @staticmethod
    def _show(text: str) -> None:
        # display() and not warning(): a warning waits for the end of the task (ansible-tooling 5).
        display.display(" ".join(text.split()))


def check(arguments: Dict[str, Any]) -> Optional[str]:
    """Why the arguments cannot be used, without quoting any; puts the secret of the environment in."""
    spec = migration_arguments()
    wrong = wrong_shape(spec, arguments)
    if wrong:
        return wrong
    validated = ArgumentSpecValidator(spec).validate(arguments)
    secret = validated.validated_parameters.get(SECRET)
    if validated.error_messages:
        message = str(validated.error_messages[0])
        return message.replace(str(secret), "(the secret)") if secret else message
    if secret and arguments.get("state") != ABORTED and not arguments.get("lease"):
        arguments[SECRET] = secret
    return broken_rule(validated.validated_parameters)


def ended(result: Mapping[str, Any]) -> bool:
    """Whether there is nothing left to ask for."""
    return bool(result.get("failed")) or bool(result.get("finished", True)) or "lease" not in result


def as_bool(value: object) -> bool:
    """The value of a boolean option that may still be text."""
    return str(value).lower() in ("true", "yes", "on", "1", "y", "t")


def failure(message: str) -> Dict[str, Any]:
    """A result of a task that could not begin."""
    return {
        "failed": True,
        "msg": message,
        "message": message,
        "code": "OPTION_INVALID",
        "side": "controller",
        "object": "options",
    }


def plain(value: Any) -> Any:
    """The value in types of Python alone; ansible-core >= 2.19 hands out tagged ones (ansible-tooling 6)."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value
