# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import io
import json
from unittest import mock

import pytest
from ansible.module_utils import basic
from ansible.module_utils.common.text.converters import to_bytes

from ansible_collections.crosscluster.migration.plugins.module_utils import face
from ansible_collections.crosscluster.migration.plugins.module_utils.arguments import migration_arguments
from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import NotFound, TooLate

TOKEN = "4711-0815-token-of-the-target"
TARGET = {"api_host": "b1", "node": "b1", "api_user": "m@pve", "api_token_id": "move"}
WHOLE = {"source": {"vmid": 117}, "target": TARGET, "target_api_token_secret": TOKEN, "disks": {"default": "fast"}}


class FakeEngine:
    """Returns what it is told to, call after call, and remembers how it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = []

    def _answer(self, *call):
        self.calls.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def preview(self, spec, secret, key=""):
        return self._answer("preview", spec.vmid, secret)

    def advance(self, spec, secret, milestone, lease=None, wait=0.0, key=""):
        return self._answer("advance", spec.vmid, secret, milestone)

    def poll(self, migration_id, lease, wait):
        return self._answer("poll", migration_id, lease)

    def info(self, vmid=None, uuid=None, migration_id=None, wait=0.0, journal=False):
        return self._answer("info", vmid, uuid, migration_id, wait, journal)

    def abort(self, vmid=None, uuid=None):
        return self._answer("abort", vmid, uuid)


def state(phase, *, finished=False, changed=False, **more):
    lease = {} if finished else {"lease": "L1"}
    return {"migration_id": "ab" * 16, "phase": phase, "finished": finished, "changed": changed, **lease, **more}


def parameters(**more):
    given = {**WHOLE, "state": "completed", "wait": True, "lease": None, **more}
    return {name: given.get(name) for name in migration_arguments()}


def run_module(body, given, capsys, *, check_mode=False):
    arguments = {"ANSIBLE_MODULE_ARGS": {**given, "_ansible_check_mode": check_mode}}
    patches = (
        mock.patch.object(basic, "_ANSIBLE_ARGS", to_bytes(json.dumps(arguments))),
        mock.patch.object(basic, "_ANSIBLE_PROFILE", "legacy", create=True),
        mock.patch("sys.stdin", io.StringIO()),
    )
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        stack.enter_context(contextlib.suppress(SystemExit))
        module = face.FaceModule(argument_spec=migration_arguments(), supports_check_mode=True)
        face.run(module, body)
    printed = capsys.readouterr().out
    assert TOKEN not in printed
    return json.loads(printed)


def test_result_is_returned_as_it_is(capsys):
    result = run_module(lambda _parameters: {"changed": True, "phase": "completed"}, WHOLE, capsys)
    assert result["changed"] is True
    assert result["phase"] == "completed"


def test_error_has_its_fields_and_a_sentence(capsys):
    def body(_parameters):
        raise TooLate("it is too late", side=Side.SOURCE, object="VM 117", remedy="Wait for the end.")

    result = run_module(body, WHOLE, capsys)
    assert result["failed"] is True
    assert result["msg"] == "it is too late [TOO_LATE]. Wait for the end."
    assert {key: result[key] for key in ("code", "side", "object", "message", "remedy", "facts")} == {
        "code": "TOO_LATE",
        "side": "source",
        "object": "VM 117",
        "message": "it is too late",
        "remedy": "Wait for the end.",
        "facts": {},
    }


def test_migration_that_ended_badly_fails_with_its_result(capsys):
    error = {"code": "NOT_CONVERGING", "side": "source", "object": "VM 117", "message": "too fast", "remedy": ""}
    result = run_module(
        lambda _parameters: state("rolled_back", finished=True, residue=[{"kind": "vm"}], error=error), WHOLE, capsys
    )
    assert result["failed"] is True
    assert result["code"] == "NOT_CONVERGING"
    assert result["residue"] == [{"kind": "vm"}]
    assert result["msg"] == "too fast [NOT_CONVERGING]"


@pytest.mark.parametrize("error", [None, {"code": "ABORTED", "message": "asked for"}], ids=["ok", "failed"])
def test_warnings_are_given_to_ansible_and_stand_in_no_result_key(capsys, monkeypatch, error):
    """ansible-core 2.19 complains of a module that returns ``warnings`` itself."""
    told = []
    monkeypatch.setattr(face.FaceModule, "warn", lambda _module, text: told.append(text))
    result = run_module(
        lambda _p: state("completed", finished=True, warnings=["mind this"], error=error), WHOLE, capsys
    )
    assert told == ["mind this"]
    assert not result.get("deprecations")


def test_lone_surrogates_do_not_reach_the_controller(capsys):
    result = run_module(lambda _parameters: {"changed": False, "name": "w\udce4b", "raw": b"\xff"}, WHOLE, capsys)
    assert result["name"] == "w?b"


@pytest.mark.parametrize(
    "given",
    [
        {**WHOLE, "targt": {"token": TOKEN}},
        {**WHOLE, "target": TOKEN},
        {**WHOLE, "target": {**TARGET, "api_token_secret": TOKEN}},
        {"source": {"vmid": 117}, "target_api_token_secrt": TOKEN},
        {"source": TOKEN, "target_api_token_secret": TOKEN},
    ],
)
def test_token_is_not_echoed_when_the_arguments_are_wrong(given, capsys):
    result = run_module(lambda _parameters: {}, given, capsys)
    assert result["failed"] is True


def test_broken_rule_is_reported_before_anything_is_done(capsys):
    result = run_module(pytest.fail, {**WHOLE, "wait": False}, capsys)
    assert result["code"] == "OPTION_INVALID"


def test_advance_waits_for_a_milestone_and_counts_it_as_a_change():
    engine = FakeEngine(state("locked"), state("reserved"), state("allocated", finished=True))
    result = face.advance(engine, parameters(), "allocated", check_mode=False)
    assert result["phase"] == "allocated"
    assert result["changed"] is True
    assert engine.calls == [
        ("advance", 117, TOKEN, "allocated"),
        ("poll", "ab" * 16, "L1"),
        ("poll", "ab" * 16, "L1"),
    ]


def test_advance_does_not_wait_for_the_end():
    engine = FakeEngine(state("mirroring", changed=True))
    result = face.advance(engine, parameters(), "completed", check_mode=False)
    assert result["lease"] == "ab" * 16 + ":L1"


def test_advance_changes_nothing_when_the_milestone_is_reached():
    engine = FakeEngine(state("listening", finished=True))
    assert face.advance(engine, parameters(), "reserved", check_mode=False)["changed"] is False


def test_advance_only_looks_in_check_mode():
    engine = FakeEngine({"changed": True, "source_config": "a: 1\n", "target_config": "a: 2\n"})
    result = face.advance(engine, parameters(), "completed", check_mode=True)
    assert engine.calls == [("preview", 117, TOKEN)]
    assert (result["diff"]["before"], result["diff"]["after"]) == ("a: 1\n", "a: 2\n")
    assert "target_config" not in result


def test_abort_in_check_mode_says_whether_there_is_something_to_end():
    assert face.abort(FakeEngine(state("mirroring")), parameters(), check_mode=True)["changed"] is True
    assert face.abort(FakeEngine(state("completed", finished=True)), parameters(), check_mode=True)["changed"] is False
    unknown = NotFound("none", side=Side.SOURCE, object="VM 117")
    assert face.abort(FakeEngine(unknown), parameters(), check_mode=True) == {"changed": False}


def test_forward_in_check_mode_says_whether_there_is_something_to_give_over():
    held = state("hold", forward=False)
    assert face.forward(FakeEngine(held), parameters(forward=True), check_mode=True)["changed"] is True
    given = state("hold", forward=True)
    assert face.forward(FakeEngine(given), parameters(forward=True), check_mode=True)["changed"] is False
    moving = state("precopy", forward=False)
    assert face.forward(FakeEngine(moving), parameters(forward=True), check_mode=True)["changed"] is False


def test_abort_at_a_milestone_counts_as_something_to_end():
    engine = FakeEngine(state("reserved", finished=True))
    assert face.abort(engine, parameters(), check_mode=True)["changed"] is True


def test_abort_that_comes_too_late_waits_for_the_end_and_says_which():
    late = TooLate("it is too late", side=Side.SOURCE, object="VM 117")
    engine = FakeEngine(late, state("committing"), state("completed", finished=True))
    with pytest.raises(TooLate) as caught:
        face.abort(engine, parameters(), check_mode=False)
    assert caught.value.facts == {"phase": "completed"}


def test_inform_keeps_the_lease_to_itself_and_reports_a_failure_as_a_fact():
    answer = {**state("rolled_back", finished=True), "lease": "L1", "error": {"code": "ABORTED"}}
    engine = FakeEngine(answer)
    result = face.inform(engine, {"source": {"vmid": 117}, "migration_id": None, "wait": 900.0, "journal": True})
    assert engine.calls == [("info", 117, None, None, 60.0, True)]
    assert "lease" not in result
    assert "error" not in result
    assert result["failure"] == {"code": "ABORTED"}
