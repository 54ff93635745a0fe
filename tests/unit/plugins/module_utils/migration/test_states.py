# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of the state table: nothing forgotten, nothing twice, no way to the commit without a record."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import states
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import (
    ABORTABLE,
    FINAL,
    MILESTONES,
    NEXT,
    OUTCOMES,
    RULES,
    Outcome,
    Phase,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.steps import STEPS

AFTER_INTENT = {Phase.COMMITTING, Phase.HOLD, Phase.COMMITTED, Phase.CLEANUP}


def test_no_phase_and_outcome_stands_twice():
    assert len(NEXT) == len(RULES)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in FINAL], ids=lambda phase: phase.value)
def test_phase_has_a_rule_for_every_outcome_of_its_step_and_for_a_restart(phase):
    assert {rule.outcome for rule in RULES if rule.phase is phase} == OUTCOMES[phase] | {Outcome.RESTARTED}


def test_every_phase_that_is_not_final_has_a_step():
    assert set(STEPS) == set(Phase) - FINAL


def test_final_phases_lead_nowhere():
    assert [rule for rule in RULES if rule.phase in FINAL] == []


def test_every_path_to_committing_carries_the_intent():
    assert {rule.record for rule in RULES if rule.then is Phase.COMMITTING} == {"COMMIT_INTENT"}


def test_only_proof_leads_back_after_the_intent():
    back = {
        (rule.phase, rule.outcome, rule.record)
        for rule in RULES
        if rule.phase in AFTER_INTENT and rule.then is Phase.ROLLBACK
    }
    assert back == {(Phase.HOLD, Outcome.NEVER_RAN, "NEVER_RAN")}


def test_committed_is_entered_only_with_its_record():
    assert {rule.record for rule in RULES if rule.then is Phase.COMMITTED and rule.phase is not Phase.COMMITTED} == {
        "COMMITTED"
    }


def test_target_is_unlocked_only_behind_the_fence():
    assert {
        (rule.phase, rule.record) for rule in RULES if rule.then is Phase.CLEANUP and rule.phase is not Phase.CLEANUP
    } == {(Phase.COMMITTED, "SOURCE_FENCED")}


def test_everything_before_the_intent_falls_back_to_rollback():
    early = set(Phase) - FINAL - AFTER_INTENT - {Phase.ROLLBACK}
    for rule in RULES:
        if rule.phase in early and rule.outcome in (
            Outcome.FAILED,
            Outcome.UNKNOWN,
            Outcome.ABORTED,
            Outcome.RESTARTED,
        ):
            assert rule.then is Phase.ROLLBACK


def test_abort_acts_exactly_before_the_intent():
    assert set(Phase) - FINAL - AFTER_INTENT - {Phase.ROLLBACK} == ABORTABLE


def test_every_rule_cites_its_source():
    assert [rule for rule in RULES if not rule.cites] == []


def test_milestones_are_reached_in_order():
    for earlier, later in zip(MILESTONES, MILESTONES[1:]):
        assert states.reached(later, earlier)
        assert not states.reached(earlier, later)


@given(st.lists(st.sampled_from([outcome for outcome in Outcome if outcome is not Outcome.RESTARTED]), max_size=40))
def test_any_walk_enters_committed_only_behind_an_intent(outcomes):
    phase, intents = Phase.PREFLIGHT, 0
    for outcome in outcomes:
        if outcome not in OUTCOMES.get(phase, ()):
            continue
        rule = states.rule(phase, outcome)
        intents += rule.record == "COMMIT_INTENT"
        phase = rule.then
        if phase in (Phase.COMMITTING, Phase.COMMITTED, Phase.CLEANUP, Phase.COMPLETED, Phase.HOLD, Phase.LOST):
            assert intents
