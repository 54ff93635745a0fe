# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab answers as the recorded Proxmox VE did: one replay per recording, each on a lab of its own.

The lists are those of `make test`; every file is replayed by `python tests/conformance/run.py`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Iterator

import pytest

CAPTURES = Path(__file__).parent / "captures"
# The main job stands on these: tunnel, import, switchover, lost resume, every command, the stock source's order.
MAIN = [
    "client-websocket-online", "client-offline-disk-import", "client-switchover-early-nbdstop",
    "abnormal-resume-then-cut-fin", "commands-9.2.6", "remote-migrate-online", "remote-migrate-multidisk-online",
    "remote-migrate-tpm-online",
]  # fmt: skip
# Replayed in a few seconds each: frames, refusals, locks, losses.
QUICK = [
    "abnormal-before-quit", "abnormal-before-resume", "abnormal-cancel-before-switch",
    "abnormal-abort-after-early-nbdstop", "bad-frame-collateral", "commands-9.1.10", "config-non-ascii-escaped",
    "config-non-ascii-percent", "config-removed-9.2.6", "config-sections-dropped", "disk-import-control-lost",
    "disk-import-errors", "foreign-lock-change-9.2.6", "frame-ping-close", "frame-split-line", "frame-text",
    "frame-unmasked", "http-mtunnel-errors", "lost-after-disk", "lost-after-start", "lost-after-version",
    "permissions-commands", "pipelining-and-array", "quit-arguments-9.1.10", "quit-arguments-9.2.6", "root-ticket",
    "storage-and-config-key-errors",
    "remote-migrate-post-errors", "remote-migrate-capability-missing", "remote-migrate-online-delete",
    "remote-migrate-tunnel-killed", "client-insecure-online", "insecure-parallel-ports",
]  # fmt: skip

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]


@pytest.fixture(scope="session")
def lab_possible() -> Iterator[None]:
    """Root, network namespaces and QEMU; what a killed run left is removed first and nothing is left behind."""
    if os.geteuid() != 0 or not shutil.which("qemu-system-x86_64"):
        pytest.skip("the lab needs root and qemu-system-x86_64")
    from conformance.world import clear_debris

    clear_debris()
    yield
    clear_debris()


@pytest.mark.parametrize("name", [*MAIN, *QUICK])
def test_replay(name: str, lab_possible: None) -> None:
    from conformance.replay import replay

    outcome = replay(CAPTURES / f"{name}.jsonl")
    assert outcome.passed, "\n".join(str(mismatch) for mismatch in outcome.mismatches)


def test_every_deviation_has_a_reason_and_a_file() -> None:
    from conformance.replay import deviations

    for path in CAPTURES.glob("*.jsonl"):
        for entry in deviations(path.stem):
            assert entry["reason"].strip()
            assert entry["match"].strip()
