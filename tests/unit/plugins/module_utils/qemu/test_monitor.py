# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The monitor's edge over a real UNIX socket whose other end is played by a thread."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any, Callable, List

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.errors import (
    QmpInvalid,
    QmpRefused,
    QmpTimeout,
    QmpUnreachable,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.monitor import Monitor

GREETING = b'{"QMP": {"version": {"qemu": {"major": 11, "minor": 1, "micro": 3}}, "capabilities": []}}\r\n'


class Qemu(threading.Thread):
    """One monitor; answers each command with what ``script`` returns for it (None: nothing)."""

    def __init__(self, path: Path, script: Callable[[dict], Any], greeting: bytes = GREETING) -> None:
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.script, self.greeting = script, greeting
        self.commands: List[str] = []
        self.start()

    def run(self) -> None:
        while True:
            try:
                connection, _address = self.listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb", buffering=0) as stream:
                stream.write(self.greeting)
                try:
                    for line in stream:
                        self.answer(stream, json.loads(line))
                except OSError:
                    continue

    def answer(self, stream: Any, command: dict) -> None:
        self.commands.append(command["execute"])
        if command["execute"] == "qmp_capabilities":
            stream.write(json.dumps({"return": {}, "id": command["id"]}).encode() + b"\n")
            return
        answer = self.script(command)
        for message in answer if isinstance(answer, list) else [answer]:
            if message is not None:
                stream.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q"


def reply(value: Any) -> Callable[[dict], Any]:
    return lambda command: {"return": value, "id": command["id"]}


def test_monitor_returns_the_value_of_a_command(path):
    qemu = Qemu(path, reply({"status": "running", "running": True}))
    assert Monitor(str(path)).run("query-status") == {"status": "running", "running": True}
    assert qemu.commands == ["qmp_capabilities", "query-status"]


def test_monitor_connects_anew_for_every_session(path):
    qemu = Qemu(path, reply({}))
    monitor = Monitor(str(path))
    monitor.run("stop")
    monitor.run("cont")
    assert qemu.commands == ["qmp_capabilities", "stop", "qmp_capabilities", "cont"]


def test_session_sees_replies_between_events(path):
    event = {"event": "JOB_STATUS_CHANGE", "data": {"id": "j"}, "timestamp": {"seconds": 1, "microseconds": 0}}
    Qemu(path, lambda command: [event, {"return": [], "id": command["id"]}])
    with Monitor(str(path)).session(time.monotonic() + 5) as qmp:
        assert qmp.execute("query-jobs") == []
        assert qmp.wait_event({"JOB_STATUS_CHANGE"}, time.monotonic() + 5).data == {"id": "j"}


def test_an_event_may_come_before_the_greeting(path):
    event = {"event": "JOB_STATUS_CHANGE", "data": {"id": "j"}, "timestamp": {"seconds": 1, "microseconds": 0}}
    Qemu(path, reply([]), greeting=json.dumps(event).encode() + b"\r\n" + GREETING)
    with Monitor(str(path)).session(time.monotonic() + 5) as qmp:
        assert qmp.execute("query-jobs") == []
        assert qmp.wait_event({"JOB_STATUS_CHANGE"}, time.monotonic()).data == {"id": "j"}


def test_session_waits_for_the_event_it_was_asked_for(path):
    events = [{"event": name, "timestamp": {"seconds": 1, "microseconds": 0}} for name in ("RESET", "STOP")]
    Qemu(path, lambda command: [{"return": {}, "id": command["id"]}, *events])
    with Monitor(str(path)).session(time.monotonic() + 5) as qmp:
        qmp.execute("stop")
        assert qmp.wait_event({"STOP"}, time.monotonic() + 5).name == "STOP"
        assert qmp.wait_event({"STOP"}, time.monotonic()) is None


def test_refusal_carries_class_and_words(path):
    error = {"class": "GenericError", "desc": "There's a migration process in progress"}
    Qemu(path, lambda command: {"error": error, "id": command["id"]})
    with pytest.raises(QmpRefused) as caught:
        Monitor(str(path)).run("migrate", {"uri": "unix:/x"})
    assert (caught.value.error_class, caught.value.description) == ("GenericError", error["desc"])


def test_silence_is_a_timeout(path):
    Qemu(path, lambda command: None)
    with pytest.raises(QmpTimeout):
        Monitor(str(path)).run("query-status", timeout=0.05)


def test_monitor_without_greeting_is_a_timeout(path):
    Qemu(path, reply({}), greeting=b"")
    with pytest.raises(QmpTimeout):
        Monitor(str(path)).run("query-status", timeout=0.05)


@pytest.mark.parametrize("exists", [False, True], ids=["no-socket", "nobody-listens"])
def test_dead_qemu_is_unreachable(path, exists):
    if exists:
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).bind(str(path))
    with pytest.raises(QmpUnreachable):
        Monitor(str(path)).run("query-status")


@pytest.mark.parametrize(
    "answer", [b'{"return": {}, "id": "crosscluster-99"}\n', b"noise\n", GREETING], ids=["order", "noise", "greeting"]
)
def test_answer_out_of_order_is_invalid(path, answer):
    Qemu(path, lambda command: answer)
    with pytest.raises(QmpInvalid):
        Monitor(str(path)).run("query-status")


def test_busy_monitor_is_a_timeout_not_a_failure(path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(0)
    others = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _count in range(3)]
    for other in others:
        other.setblocking(False)
        other.connect_ex(str(path))
    with pytest.raises(QmpTimeout):
        Monitor(str(path)).run("query-status", timeout=0.05)
