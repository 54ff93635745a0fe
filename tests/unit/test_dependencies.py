# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collections that ours depends on: what is tried here lies in the range that galaxy.yml promises."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = runpy.run_path(str(ROOT / "tests" / "dependencies.py"), run_name="dependencies")


def numbers(text):
    return tuple(int(part) for part in text.split("."))


@pytest.mark.parametrize("name", TOOL["wanted"]())
def test_version_that_is_tried_is_in_the_range(name):
    least, below = re.fullmatch(r">=([0-9.]+),<([0-9.]+)", TOOL["wanted"]()[name]).groups()
    assert numbers(least) <= numbers(TOOL["version"](ROOT / ".build/links", name)) < numbers(below)
