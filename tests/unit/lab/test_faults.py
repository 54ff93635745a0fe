# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fault files: matching and counting."""

from __future__ import annotations

from pathlib import Path

from lab import faults


def test_counts_down_and_goes(tmp_path: Path) -> None:
    root = str(tmp_path)
    faults.set(root, "reply_drop", command="resume", count=2)
    assert faults.take("reply_drop", root, command="version") is None
    assert faults.find("reply_drop", root, command="resume")
    assert faults.take("reply_drop", root, command="resume")
    assert faults.take("reply_drop", root, command="resume")
    assert faults.take("reply_drop", root, command="resume") is None


def test_keys_a_fault_does_not_name_do_not_matter(tmp_path: Path) -> None:
    root = str(tmp_path)
    faults.set(root, "kill_qemu", name="other", when="before")
    assert faults.take("kill_qemu", root, command="start", vmid=100, when="before")
    assert faults.take("kill_qemu", root, command="start", vmid=100, when="after") is None
    faults.clear(root, "other")
    assert faults.find("kill_qemu", root) is None
