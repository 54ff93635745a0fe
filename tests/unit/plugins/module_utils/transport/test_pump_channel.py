# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pump's channel: it never blocks, and the end of the worker is noticed."""

from __future__ import annotations

import json
import os

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import SettingsInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import EventName
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.pump_channel import PumpChannel


class Worker:
    """The other ends of both pipes."""

    def __init__(self) -> None:
        their_in, self.commands = os.pipe()
        self.events, their_out = os.pipe()
        self.channel = PumpChannel(their_in, their_out)

    def say(self, data: bytes) -> None:
        os.write(self.commands, data)


@pytest.fixture
def worker():
    worker = Worker()
    worker.say(b"settings\n")
    assert worker.channel.first_line() == b"settings"
    return worker


def test_commands_come_line_by_line(worker):
    worker.say(b'{"command": "cut"}\n{"comm')
    assert worker.channel.commands() == [{"command": "cut"}]
    worker.say(b'and": "rate"}\n')
    assert worker.channel.commands() == [{"command": "rate"}]
    assert worker.channel.commands() == []
    assert not worker.channel.is_orphaned()


def test_end_of_stdin_is_the_end_of_the_worker(worker):
    os.close(worker.commands)
    assert worker.channel.commands() == []
    assert worker.channel.is_orphaned()


@pytest.mark.parametrize("noise", [b"[]\n", b"noise\n"])
def test_noise_is_not_our_worker(worker, noise):
    worker.say(noise)
    assert worker.channel.commands() == []
    assert worker.channel.is_orphaned()


def test_another_parent_is_the_end_of_the_worker(monkeypatch, worker):
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert worker.channel.is_orphaned()


def test_no_settings_are_an_error():
    worker = Worker()
    os.close(worker.commands)
    with pytest.raises(SettingsInvalid):
        worker.channel.first_line()


def test_statistics_are_dropped_while_the_worker_does_not_read(worker):
    for number in range(100_000):
        worker.channel.tell_stats({"sent": number})
    worker.channel.tell(EventName.ENDED, {"reason": "cut"})
    data = b""
    while b"ended" not in data:
        data += os.read(worker.events, 65536)
        worker.channel.close()
    lines = [json.loads(line) for line in data.splitlines()]
    assert len(lines) < 10_000
    assert lines[-1]["reason"] == "cut"


def test_events_for_nobody_are_no_error(worker):
    os.close(worker.events)
    worker.channel.tell(EventName.LISTENING, {})
    worker.channel.close()
