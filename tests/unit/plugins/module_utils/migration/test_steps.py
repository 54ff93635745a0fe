# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every step is there, under its phase's name or what the phase leads to."""

from __future__ import annotations

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import FINAL, Phase
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.steps import STEPS


def test_each_phase_has_one_step_of_its_own():
    assert set(STEPS) == set(Phase) - FINAL
    assert len(set(STEPS.values())) == len(STEPS)


def test_steps_are_documented_with_their_phase():
    for phase, step in STEPS.items():
        assert (step.__doc__ or "").startswith(phase.name + ":")
