# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A switchover that is called off because a disk is behind, and the second attempt (DESIGN 5.5) with its own streams.

QEMU < 8.2 only: newer ones keep their disks in step.
"""

from __future__ import annotations

import re

import pytest

from e2e.direct import assert_nobody_listens, incoming_logs, over
from e2e.test_direct_bounds import MIB, held_back
from e2e.test_guard import phase, until
from lab.network import Segment
from lab.vms import Disk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

# Half the downtime at the measured rate, which the bandwidth bounds: more than 1 MiB is too much.
LIMITS = {"bandwidth": "20 MiB/s", "downtime": "100 ms"}
PLACE, WRITTEN = 40, 171  # MiB from the beginning of the disk; the byte that is written there
BEHIND = 8  # MiB that are written while the guest stands still
SLOW_LINK = 8.0  # Mbit/s: so much is not caught up while the reply is held back
HELD_BACK = 3.0  # seconds


def put_behind(vm, play):
    """Sectors of the disk change that its guest never looks at; the mirror has to carry them, and looks ten times/s."""
    vm.target_host.shape(SLOW_LINK, Segment.MIGRATION)
    command = f'qemu-io drive-scsi0 "write -P {WRITTEN} {PLACE}M {BEHIND}M"'
    assert not vm.source.qmp("human-monitor-command", **{"command-line": command}), "it was not written"
    until(lambda: missing(vm) > BEHIND * MIB / 2, "the disk that is behind", play)


def missing(vm):
    """Bytes that the mirror has not carried."""
    (job,) = vm.source.qmp("query-block-jobs")
    return job["len"] - job["offset"]


def times_in(vm, name):
    return [record.get("phase") for record in vm.records()].count(name)


def test_second_attempt_has_streams_and_tls_of_its_own(mover, certificates):
    vm = mover().create([Disk(fill_mib=16)])
    before = incoming_logs(vm.target_host)
    play = vm.controller.start("migrate", extra=over(vm, "qemu-tls", move_limits=LIMITS))
    until(lambda: phase(vm) == "mirroring", "the mirror", play)
    asked = held_back(vm, "version", HELD_BACK)
    until(asked, "the switchover", play)
    put_behind(vm, play)
    until(lambda: times_in(vm, "listening") == 2, "the second attempt", play)
    vm.target_host.unshape(Segment.MIGRATION)
    result = play.wait().expect(0).result()
    assert (result["phase"], result["transport"], result["residue"]) == ("completed", "qemu-tls", [])
    vm.assert_moved()
    vm.assert_guest_went_on()
    (log,) = (text for name, text in incoming_logs(vm.target_host).items() if name not in before)
    streams = re.findall(r"stream (\S+) stands", log)
    assert sorted(streams) == ["control", "disk/scsi0", "disk/scsi0.2", "ram", "ram.2"]
    assert not vm.target.qmp("query-migrate-parameters").get("tls-creds")
    assert vm.target.image(vm.target.config["scsi0"].split(",")[0]).read_bytes()[PLACE * MIB] == WRITTEN
    assert_nobody_listens(vm)
