# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: may change at any time.
"""What every module does around its one call: results out, errors out, nothing secret in either.

Knows Ansible's way of answering. Does not know what is being done. The only place in ``module_utils`` that reaches
``exit_json`` and ``fail_json``.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, NoReturn

from ansible.module_utils.basic import AnsibleModule

from .arguments import INCOMING_KEY, broken_rule
from .errors import CrossclusterError, sentence
from .migration.errors import NotFound, TooLate
from .migration.spec import Spec
from .migration.states import ABORTABLE, Phase

__all__ = ["FaceModule", "abort", "advance", "error_result", "forward", "inform", "poll", "printable", "run"]

Body = Callable[[Dict[str, Any]], Dict[str, Any]]

POLL_WAIT = 7.0  # seconds; with the time a connection takes, a line of progress comes at least every 10 s
LONGEST_WAIT = 60.0  # seconds; also what the worker allows for one answer
ROUNDS = 30  # answers to wait for; each comes when the phase changes, or after LONGEST_WAIT

# Options that steer the face itself and are no part of what is to be moved where.
_FACE_OPTIONS = ("target_api_token_secret", INCOMING_KEY, "state", "wait", "lease", "forward")


class FaceModule(AnsibleModule):
    """An AnsibleModule whose failures never echo arguments.

    A token under a misspelt option name is not known as a secret, and ansible-core up to 2.21 returns it in
    ``invocation`` when the validation fails (ansible-tooling 6).
    """

    def fail_json(self, msg: str, **kwargs: Any) -> NoReturn:
        """As its parent, without the arguments."""
        kwargs.setdefault("invocation", {"module_args": "not shown when a task fails"})
        super().fail_json(msg, **kwargs)
        raise SystemExit(1)  # never reached: fail_json ends the process


def run(module: AnsibleModule, body: Body) -> NoReturn:
    """Calls ``body`` with the module's parameters and ends the module with its result or its error."""
    rule = broken_rule(module.params) if "target" in module.params else None
    if rule:
        module.fail_json(msg=rule, code="OPTION_INVALID", side="controller", object="options", message=rule)
    try:
        result = printable(body(module.params))
    except CrossclusterError as error:
        module.fail_json(**printable(error_result(error)))
    # As a result key of their own ansible-core takes them no more; it puts them there itself and shows them.
    for warning in result.pop("warnings", ()):
        module.warn(warning)
    if isinstance(result.get("error"), Mapping):
        _fail(module, result)
    result.pop("error", None)
    module.exit_json(**result)
    raise SystemExit(0)  # never reached: exit_json ends the process


def _fail(module: AnsibleModule, result: Dict[str, Any]) -> NoReturn:
    """Ends the module for a migration that ended badly: the error's fields on top of the result's."""
    error = dict(result.pop("error"))
    merged = {**result, **{key: value for key, value in error.items() if value not in (None, "")}}
    merged["msg"] = sentence(str(error.get("message", "")), str(error.get("code", "")), str(error.get("remedy", "")))
    module.fail_json(**merged)
    raise SystemExit(1)  # never reached


def error_result(error: CrossclusterError) -> Dict[str, Any]:
    """The result keys of an error: ``code side object message remedy facts``, and ``msg`` for people."""
    return {"msg": sentence(error.message, error.code, error.remedy), **error.to_dict()}


def printable(value: Any) -> Any:
    """The value with every text free of lone surrogates, which ansible-core >= 2.19 refuses (ansible-tooling 6)."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {str(printable(key)): printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable(item) for item in value]
    return value


def advance(engine: Any, parameters: Mapping[str, Any], milestone: str, check_mode: bool) -> Dict[str, Any]:
    """Asks the engine to bring the VM to ``milestone``, or in check mode what that would do.

    A milestone before the last one is waited for here; for the last one the action plugin waits.
    """
    spec = Spec.from_options({key: value for key, value in parameters.items() if key not in _FACE_OPTIONS})
    secret, key = parameters["target_api_token_secret"], parameters.get(INCOMING_KEY) or ""
    if check_mode:
        return _with_diff(engine.preview(spec, secret, key))
    result = _joined(engine.advance(spec, secret, milestone, key=key))
    # Whoever finds something left to do changes something, be it that another run had begun it.
    changed = bool(result["changed"]) or not result["finished"]
    while milestone != "completed" and not result["finished"]:
        result = poll(engine, result["lease"])
    return {**result, "changed": changed}


def poll(engine: Any, lease: str) -> Dict[str, Any]:
    """Waits for something to happen to the migration that ``lease`` (``<migration id>:<lease>``) belongs to."""
    migration_id, _colon, own = lease.partition(":")
    return _joined(engine.poll(migration_id, own, POLL_WAIT))


def abort(engine: Any, parameters: Mapping[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Ends the migration of the VM, or in check mode says whether there is one to end.

    Raises:
        CrossclusterError: TOO_LATE, once the migration that could not be ended has come to its own end.
    """
    vm = _vm(parameters)
    if check_mode:
        return _could_abort(engine, vm)
    try:
        return dict(engine.abort(**vm))
    except CrossclusterError as error:
        if error.code == TooLate.code:
            error.facts["phase"] = _end_of(engine, vm)
        raise


def forward(engine: Any, parameters: Mapping[str, Any], check_mode: bool) -> Dict[str, Any]:
    """Gives a migration in hold over to the target, or in check mode says whether that can be done."""
    vm = _vm(parameters)
    if not check_mode:
        return dict(engine.forward(**vm))
    result = dict(engine.info(**vm))
    return {**result, "error": None, "changed": result["phase"] == Phase.HOLD.value and not result["forward"]}


def _vm(parameters: Mapping[str, Any]) -> Dict[str, Any]:
    """The VM that is meant, as the engine is asked for it."""
    return {"vmid": parameters["source"]["vmid"], "uuid": parameters["source"].get("uuid")}


def _could_abort(engine: Any, vm: Mapping[str, Any]) -> Dict[str, Any]:
    try:
        result = dict(engine.info(**vm))
    except NotFound:
        return {"changed": False}
    # "finished" is also said of a migration that waits at a milestone.
    return {**result, "error": None, "changed": result["phase"] in {phase.value for phase in ABORTABLE}}


def _end_of(engine: Any, vm: Mapping[str, Any]) -> str:
    """The phase in which the migration ends, as far as that can be waited for."""
    result: Mapping[str, Any] = {}
    for _round in range(ROUNDS):
        result = engine.info(wait=LONGEST_WAIT, **vm)
        if result["finished"]:
            break
    return str(result.get("phase"))


def inform(engine: Any, parameters: Mapping[str, Any]) -> Dict[str, Any]:
    """What the engine knows of a migration; a migration that failed is no failure of looking at it."""
    source = parameters.get("source") or {}
    result = dict(
        engine.info(
            vmid=source.get("vmid"),
            uuid=source.get("uuid"),
            migration_id=parameters.get("migration_id"),
            wait=min(max(float(parameters["wait"]), 0.0), LONGEST_WAIT),
            journal=bool(parameters["journal"]),
        )
    )
    result.pop("lease", None)
    failure = result.pop("error", None)
    return {**result, "changed": False, **({"failure": failure} if failure else {})}


def _joined(result: Mapping[str, Any]) -> Dict[str, Any]:
    """The result with a lease that also names its migration, so that a caller has one thing to hand back."""
    joined = dict(result)
    if joined.get("lease"):
        joined["lease"] = f"{joined['migration_id']}:{joined['lease']}"
    return joined


def _with_diff(preview: Mapping[str, Any]) -> Dict[str, Any]:
    """The preview with the two configurations as Ansible's ``diff``."""
    result = dict(preview)
    before, after = result.pop("source_config", ""), result.pop("target_config", "")
    if after:
        result["diff"] = {
            "before": before,
            "after": after,
            "before_header": "configuration on the source",
            "after_header": "configuration on the target",
        }
    return result
