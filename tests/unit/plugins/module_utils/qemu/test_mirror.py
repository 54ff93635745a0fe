# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mirror values: what the captures of a real source show, and the state of the jobs."""

from __future__ import annotations

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.qemu import mirror
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.errors import QmpInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.mirror import BlockJob, Job
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.status import Version

RUNNING = {
    "auto-finalize": True, "io-status": "ok", "device": "j", "auto-dismiss": False, "busy": False, "len": 328704,
    "offset": 262144, "status": "ready", "paused": False, "speed": 0, "ready": True, "type": "mirror",
    "actively-synced": True,
}  # fmt: skip


def test_node_keeps_sparse_disks_sparse_and_never_reconnects():
    node = mirror.add_node("n", "/run/x/scsi0.sock", "drive-scsi0")
    assert (node["detect-zeroes"], node["discard"], node["reconnect-delay"]) == ("on", "unmap", 0)
    assert node["server"] == {"type": "unix", "path": "/run/x/scsi0.sock"}


def test_mirror_copies_in_the_background_and_waits_for_dismissal():
    arguments = mirror.start("j", "drive-scsi0", "n")
    assert (arguments["sync"], arguments["copy-mode"], arguments["auto-dismiss"]) == ("full", "background", False)
    assert "speed" not in arguments
    assert mirror.start("j", "d", "n", speed=5)["speed"] == 5


def test_mirror_ends_without_force():
    assert mirror.end("j") == {"device": "j", "force": False}


@pytest.mark.parametrize("mirrors", range(1, 13))
def test_mirrors_together_leave_room_for_the_ram_stream(mirrors):
    assert mirror.buffer_size(mirrors) * mirrors <= 12 * 1024 * 1024
    assert mirror.buffer_size(mirrors) <= mirror.BUFFER_SIZE


@pytest.mark.parametrize(
    ("version", "can"), [((7, 2, 22), False), ((8, 1, 5), False), ((8, 2, 0), True), ((11, 1, 3), True)]
)
def test_copy_mode_changes_from_qemu_8_2_on(version, can):
    assert mirror.supports_copy_mode_change(Version(*version)) is can


def test_block_job_knows_what_remains():
    job = BlockJob.parse_all([RUNNING])["j"]
    assert (job.remaining, job.ready, job.actively_synced, job.error) == (66560, True, True, None)


def test_block_job_of_an_old_qemu_knows_nothing_of_sync():
    old = {key: value for key, value in RUNNING.items() if key != "actively-synced"}
    assert BlockJob.parse(old).actively_synced is None


def test_job_concludes_with_its_error():
    job = Job.parse_all([{"id": "j", "type": "mirror", "status": "concluded", "error": "Input/output error"}])["j"]
    assert job.is_concluded
    assert job.error == "Input/output error"


@pytest.mark.parametrize(
    "raw", [None, {}, [1], [{"device": "j"}], [{**RUNNING, "len": "1"}], [{**RUNNING, "offset": -1}]]
)
def test_malformed_jobs_are_refused(raw):
    with pytest.raises(QmpInvalid):
        BlockJob.parse_all(raw)


def test_remaining_commands_name_job_and_node():
    assert mirror.write_blocking("j") == {"id": "j", "type": "mirror", "copy-mode": "write-blocking"}
    assert mirror.set_speed("j", None) == {"device": "j", "speed": 0}
    assert (mirror.dismiss("j"), mirror.delete_node("n")) == ({"id": "j"}, {"node-name": "n"})
