# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress: a whole line per VM at least every ten seconds, wherever the output goes."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import time

import ansible_runner
import pytest

from lab.vms import Disk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SLOW = {"bandwidth": "4 MiB/s"}
DISKS = [Disk("scsi0", "fast", 64, "raw", fill_mib=40)]
LONGEST_SILENCE = 15.0  # seconds between two lines: ten, and what a loaded machine needs to print one
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def progress_lines(vm, text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(vm.name + " ") and "%" in line]


def assert_right(vm, lines: list[str]) -> None:
    assert len(lines) >= 2
    assert max(len(line) for line in lines) <= 120
    assert all(vm.source_host.inventory_host in line or vm.source_host.name in line for line in lines)
    assert any("mirroring" in line for line in lines), lines


@pytest.mark.measuring
def test_file_gets_whole_lines_in_time(mover):
    vm = mover().create(DISKS)
    play = vm.controller.start("migrate", extra=vm.extra(move_limits=SLOW))
    seen, moments = 0, []
    while play.process.poll() is None:
        count = len(progress_lines(vm, play.output()))
        if count > seen:
            seen = count
            moments.append(time.monotonic())
        time.sleep(0.1)
    run = play.wait().expect(0)
    assert_right(vm, progress_lines(vm, run.output))
    assert "\x1b" not in run.output
    assert max(later - earlier for earlier, later in zip(moments, moments[1:])) <= LONGEST_SILENCE


def test_terminal_gets_the_same_lines(mover):
    vm = mover().create(DISKS)
    _output, record = vm.controller.files()
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        vm.controller.argv("migrate", extra=vm.extra(move_limits=SLOW)),
        env=vm.controller.environment(record, TERM="xterm", COLUMNS="200"),
        stdin=follower, stdout=follower, stderr=follower, start_new_session=True, close_fds=True,
    )  # fmt: skip
    os.close(follower)
    data = b""
    try:
        while chunk := os.read(leader, 65536):
            data += chunk
    except OSError:
        pass  # the terminal's other end is closed: the play has ended
    assert process.wait(60) == 0, data.decode()
    assert_right(vm, progress_lines(vm, COLOURS.sub("", data.decode(errors="replace").replace("\r\n", "\n"))))


def test_runner_gets_one_event_a_line(mover, tmp_path):
    vm = mover().create(DISKS)
    _output, record = vm.controller.files()
    result = ansible_runner.run(
        private_data_dir=str(tmp_path),
        playbook="crosscluster.migration.migrate",
        inventory=str(vm.lab.inventory),
        extravars=vm.extra(move_limits=SLOW),
        envvars={key: value for key, value in vm.controller.environment(record).items() if key.isupper()},
        quiet=True,
    )
    assert result.status == "successful", result.stdout.read()
    events = [event for event in result.events if event["event"] == "verbose"]
    lines = [COLOURS.sub("", event["stdout"]) for event in events if event["stdout"]]
    assert_right(vm, [line for line in lines if line.startswith(vm.name + " ")])
    assert all("\n" not in line.strip() for line in lines if line.startswith(vm.name + " "))
