# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trees below the hosts that are not the machine itself."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from lab import trees


def test_machine_itself_needs_no_tree() -> None:
    assert trees.lower(trees.HostType.SELF) == Path("/")


def test_tree_is_kept_for_a_calendar_week() -> None:
    names = [trees._name(datetime.date(2026, 11, day)) for day in (16, 22, 23)]
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("trixie-2026-47-")


def test_tree_that_is_there_is_not_made_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(trees, "_make", lambda _: pytest.fail("made again"))
    wanted = tmp_path / trees._name(datetime.date.today())
    wanted.mkdir()
    assert trees.tree(tmp_path) == wanted


def test_missing_tool_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(trees.shutil, "which", lambda _: None)
    with pytest.raises(trees.TreeError, match="mmdebstrap"):
        trees.tree(tmp_path)
