# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from unittest import mock

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.crosscluster.migration.plugins.action import migration as action

TOKEN = "4711-0815-token-of-the-target"
TARGET = {"api_host": "b1", "node": "b1", "api_user": "m@pve", "api_token_id": "move"}
WHOLE = {"source": {"vmid": 117}, "target": TARGET, "target_api_token_secret": TOKEN, "disks": {"default": "fast"}}


class Tagged(str):
    """Stands for the tagged strings of newer cores: a text whose type is not exactly str."""

    __slots__ = ()


def moving(phase, **more):
    return {"phase": phase, "finished": False, "changed": False, "lease": "id:L1", "progress": {}, **more}


def done(phase="completed", **more):
    return {"phase": phase, "finished": True, "changed": False, "progress": {}, **more}


@pytest.fixture
def world(monkeypatch):
    """The plugin with everything around it replaced: answers of the module, the display, the clock, the parent."""

    class World:
        def __init__(self):
            self.answers, self.asked, self.lines, self.now, self.parent = [], [], [], 0.0, 100
            self.check_mode = False

        def answer(self, **call):
            self.asked.append(call["module_args"])
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer() if callable(answer) else answer

        def run(self, arguments):
            task = mock.Mock(args=arguments, check_mode=self.check_mode, delegate_to="a1", async_val=0)
            plugin = action.ActionModule(task, mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
            plugin._execute_module = self.answer
            with mock.patch.object(action.ActionBase, "run", return_value={}):
                return plugin.run(task_vars={"inventory_hostname": "web01"})

        def sleep(self, seconds):
            self.now += seconds

    found = World()
    monkeypatch.setattr(action.display, "display", found.lines.append)
    monkeypatch.setattr(action.time, "monotonic", lambda: found.now)
    monkeypatch.setattr(action.time, "sleep", found.sleep)
    monkeypatch.setattr(action.os, "getppid", lambda: found.parent)
    monkeypatch.delenv("CROSSCLUSTER_TARGET_API_TOKEN_SECRET", raising=False)
    return found


def test_task_prints_a_line_for_each_answer_and_ends_with_the_last(world):
    world.answers = [moving("locked", changed=True), moving("mirroring"), done(downtime_ms=26)]
    result = world.run(dict(WHOLE))
    assert result["changed"] is True
    assert result["downtime_ms"] == 26
    assert [line.split(":")[0] for line in world.lines] == ["web01 on a1"] * 3
    assert [line.split()[3] for line in world.lines] == ["locked", "mirroring", "completed"]


def test_task_asks_again_with_the_lease_and_without_the_token(world):
    world.answers = [moving("locked"), done()]
    world.run(dict(WHOLE))
    assert world.asked[0]["target_api_token_secret"] == TOKEN
    assert world.asked[1] == {"source": {"vmid": 117}, "lease": "id:L1"}


@pytest.mark.parametrize(("failed", "expected"), [(False, "first"), (True, "last")])
def test_result_shows_what_was_asked_for_not_the_calls_that_only_watched(world, failed, expected):
    world.answers = [moving("locked", invocation="first"), done(invocation="last", failed=failed)]
    assert world.run(dict(WHOLE))["invocation"] == expected


def test_second_run_changes_nothing_and_prints_nothing(world):
    world.answers = [done()]
    assert world.run(dict(WHOLE))["changed"] is False
    assert world.lines == []


@pytest.mark.parametrize(
    "arguments",
    [
        {**WHOLE, "wait": False, "on_controller_loss": "continue"},
        {**WHOLE, "wait": Tagged("no"), "on_controller_loss": "continue"},
        {"source": {"vmid": 117}, "state": "aborted"},
        {"source": {"vmid": 117}, "lease": "id:L1"},
    ],
)
def test_task_that_shall_not_wait_asks_once(world, arguments):
    world.answers = [moving("locked")]
    assert world.run(arguments)["phase"] == "locked"
    assert len(world.asked) == 1


def test_check_mode_asks_once(world):
    world.check_mode = True
    world.answers = [{"changed": True, "lease": "id:L1", "finished": False}]
    assert world.run(dict(WHOLE))["changed"] is True
    assert len(world.asked) == 1


def test_failure_ends_the_task_at_once(world):
    world.answers = [moving("locked"), {"failed": True, "code": "TRANSFER_FAILED", "phase": "rolled_back"}]
    result = world.run(dict(WHOLE))
    assert result["code"] == "TRANSFER_FAILED"
    assert len(world.asked) == 2


def test_lost_connection_is_taken_up_again(world):
    lost = [AnsibleConnectionFailure("ssh: no route\nto host") for _attempt in range(3)]
    world.answers = [moving("precopy"), *lost, done()]
    assert world.run(dict(WHOLE))["phase"] == "completed"
    assert world.now == 3 * action.PAUSE
    assert [line for line in world.lines if "out of reach" in line and "\n" not in line]


def test_connection_that_stays_lost_ends_the_task(world):
    world.answers = [moving("precopy"), *[AnsibleConnectionFailure("gone")] * 1000]
    with pytest.raises(AnsibleConnectionFailure):
        world.run(dict(WHOLE))
    assert world.now > action.UNREACHABLE_LIMIT


def test_connection_that_fails_at_first_is_no_matter_of_patience(world):
    world.answers = [AnsibleConnectionFailure("gone")]
    with pytest.raises(AnsibleConnectionFailure):
        world.run(dict(WHOLE))


def test_task_ends_when_the_play_does(world):
    def orphaned():
        world.parent = 1
        return moving("mirroring")

    world.answers = [moving("locked"), orphaned, done()]
    assert world.run(dict(WHOLE))["failed"] is True
    assert len(world.asked) == 2


def test_tagged_values_become_plain_ones(world):
    world.answers = [done()]
    given = {**WHOLE, "disks": {Tagged("default"): Tagged("fast")}, "transports": (Tagged("websocket"),)}
    world.run({Tagged(name): value for name, value in given.items()})
    assert not isinstance(world.asked[0]["disks"]["default"], Tagged)
    assert not [name for name in world.asked[0]["disks"] if isinstance(name, Tagged)]
    assert world.asked[0]["transports"] == ["websocket"]
    assert world.asked[0]["source"] == {"vmid": 117}


def test_secret_is_taken_from_the_environment_of_the_controller(world, monkeypatch):
    monkeypatch.setenv("CROSSCLUSTER_TARGET_API_TOKEN_SECRET", TOKEN)
    world.answers = [done()]
    world.run({name: value for name, value in WHOLE.items() if name != "target_api_token_secret"})
    assert world.asked[0]["target_api_token_secret"] == TOKEN


def test_secret_is_not_sent_where_it_is_not_needed(world, monkeypatch):
    monkeypatch.setenv("CROSSCLUSTER_TARGET_API_TOKEN_SECRET", TOKEN)
    world.answers = [done("rolled_back")]
    world.run({"source": {"vmid": 117}, "state": "aborted"})
    assert TOKEN not in repr(world.asked)


@pytest.mark.parametrize(
    "arguments",
    [
        {**WHOLE, "target": TOKEN},
        {**WHOLE, "targt": {"token": TOKEN}},
        {**WHOLE, "target": {**TARGET, "api_token_secret": TOKEN}},
        {**WHOLE, "source": TOKEN},
        {**WHOLE, "wait": TOKEN},
        {**WHOLE, "state": TOKEN},
        {**WHOLE, "wait": False},
        {**WHOLE, "disks": {"scsi0": [TOKEN]}},
        {"source": {"vmid": 117}, "target": TARGET},
        {"source": {"vmid": 117}, "target": TARGET, "target_api_token_secrt": TOKEN},
        {},
    ],
)
def test_wrong_arguments_reach_no_node_and_show_no_token(world, arguments):
    result = world.run(arguments)
    assert result["failed"] is True
    assert result["code"] == "OPTION_INVALID"
    assert world.asked == []
    assert TOKEN not in repr(result)
