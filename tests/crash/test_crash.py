# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The crash cases that `make test` runs; `make crash` runs all of them."""

from __future__ import annotations

import pytest

from crash.catalogue import CERTIFIED, cases, quick_cases
from crash.run import Trial

pytestmark = [pytest.mark.crash, pytest.mark.timeout(420)]


@pytest.mark.parametrize(
    ("case", "target_root"),
    quick_cases(),
    ids=lambda value: value.name if hasattr(value, "name") else ("rooted" if value else "token"),
)
def test_crash_ends_as_the_safety_reference_says(request, lab, controller, case, target_root):
    if case.transport in CERTIFIED:
        request.getfixturevalue("certificates")
    verdict = Trial(lab, controller, case, target_root).run()
    assert verdict.ok, verdict.row()


def test_catalogue_names_are_unique():
    names = [case.name for case in cases()]
    assert len(names) == len(set(names))
