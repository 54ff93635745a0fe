# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
import runpy
from pathlib import Path

TABLE = runpy.run_path(str(Path(__file__).resolve().parents[1] / "error_table.py"), run_name="error_table")


def test_table_of_error_codes_is_that_of_the_sources():
    listed = re.findall(r"^\| `([A-Z0-9_]+)` \|", TABLE["PAGE"].read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == list(TABLE["codes"]()), "cure: python tests/error_table.py"


def test_table_has_codes_of_classes_and_of_refusals():
    found = TABLE["codes"]()
    assert {"SPEC_DIFFERS", "HA_RESOURCE", "STORAGE_UNMAPPED", "VMID_TAKEN", "TUNNEL_TASK_RUNNING"} <= set(found)
    assert all(found.values())
