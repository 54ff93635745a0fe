# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The state machine of a migration: one table.

A *phase* says what has been reached. The step of a phase (``steps``) reports an *outcome*; the table alone says
which phase follows and which word the journal gets, fsynced, before anything of the next phase happens. Worker,
restarted worker, simulator and documentation read this table; no other file assigns a phase.

Theory of operation (safety 3, 4):

* Before COMMIT_INTENT every outcome but OK leads to ROLLBACK: the source runs (I3).
* COMMIT_INTENT is the only door to COMMITTING, and it is in the journal before ``resume`` is sent (I2).
* After COMMIT_INTENT an unknown leads to HOLD, where both sides are read back. Out of HOLD lead three proofs: the
  target runs (forward), the target never ran and cannot any more (back, I4), or the target is loaded, locked,
  paused and ``resume`` was never sent (a fresh COMMIT_INTENT).
* The source is fenced (COMMITTED) before the target is unlocked (CLEANUP) (I12).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Dict, FrozenSet, Mapping, Tuple

__all__ = [
    "ABORTABLE",
    "FINAL",
    "MILESTONES",
    "NEXT",
    "OUTCOMES",
    "RULES",
    "WRITTEN_FIRST",
    "Outcome",
    "Phase",
    "Rule",
    "reached",
    "rule",
]


class Phase(enum.Enum):
    """Where a migration stands; the value is what journal, result and progress show (DESIGN 9)."""

    PREFLIGHT = "preflight"
    LOCKED = "locked"
    RESERVED = "reserved"
    ALLOCATED = "allocated"
    LISTENING = "listening"
    MIRRORING = "mirroring"
    PRECOPY = "precopy"
    SWITCHOVER = "switchover"
    COMMITTING = "committing"
    COMMITTED = "committed"
    CLEANUP = "cleanup"
    COMPLETED = "completed"
    ROLLBACK = "rollback"
    ROLLED_BACK = "rolled_back"
    HOLD = "hold"
    LOST = "lost"


class Outcome(enum.Enum):
    """What a step reports."""

    OK = "ok"
    OFFLINE = "offline"  # the VM is stopped: nothing to mirror, all volumes were imported
    NOT_SYNCED = "not_synced"  # a mirror was not in step at the switchover; the target must listen anew (DESIGN 5.5)
    FAILED = "failed"
    UNKNOWN = "unknown"  # no reply in time: never treated as failed (safety I7)
    ABORTED = "aborted"  # abort asked for, lease lost or deadline passed
    RESTARTED = "restarted"  # the worker died in this phase and was started again
    TARGET_RUNS = "target_runs"  # observed with QMP-derived fields (pve-cli 5)
    NEVER_RAN = "never_ran"  # positive proof only (safety I4)
    STILL_LOADED = "still_loaded"  # resume was never sent, the channel lives, the target is loaded and paused
    TARGET_LOST = "target_lost"  # the target may have run and is gone


@dataclass(frozen=True)
class Rule:
    """``outcome`` of the step of ``phase`` leads to ``then``; ``record`` is fsynced first."""

    phase: Phase
    outcome: Outcome
    then: Phase
    record: str = "phase"
    cites: str = ""


_P, _O = Phase, Outcome


def _before_intent() -> Tuple[Rule, ...]:
    """Every phase before COMMIT_INTENT falls back to ROLLBACK on anything but success (safety I3)."""
    onward = (
        (_P.PREFLIGHT, _P.LOCKED),
        (_P.LOCKED, _P.RESERVED),
        (_P.RESERVED, _P.ALLOCATED),
        (_P.ALLOCATED, _P.LISTENING),
        (_P.LISTENING, _P.MIRRORING),
        (_P.MIRRORING, _P.PRECOPY),
        (_P.PRECOPY, _P.SWITCHOVER),
    )
    rules = [Rule(phase, _O.OK, then, cites="DESIGN 5") for phase, then in onward]
    for phase in [phase for phase, _then in onward] + [_P.SWITCHOVER]:
        for outcome in (_O.FAILED, _O.UNKNOWN, _O.ABORTED, _O.RESTARTED):
            rules.append(Rule(phase, outcome, _P.ROLLBACK, cites="safety I3"))
    return tuple(rules)


RULES: Tuple[Rule, ...] = (
    *_before_intent(),
    Rule(_P.PRECOPY, _O.NOT_SYNCED, _P.ALLOCATED, cites="DESIGN 5.5"),
    Rule(_P.SWITCHOVER, _O.NOT_SYNCED, _P.ALLOCATED, cites="DESIGN 5.5"),
    Rule(_P.LISTENING, _O.OFFLINE, _P.COMMITTING, record="COMMIT_INTENT", cites="mtunnel-protocol 7.5"),
    Rule(_P.SWITCHOVER, _O.OK, _P.COMMITTING, record="COMMIT_INTENT", cites="safety I2"),
    Rule(_P.COMMITTING, _O.OK, _P.COMMITTED, record="COMMITTED", cites="safety I2"),
    Rule(_P.COMMITTING, _O.FAILED, _P.HOLD, cites="safety I4"),
    Rule(_P.COMMITTING, _O.UNKNOWN, _P.HOLD, cites="safety I4, I7"),
    Rule(_P.COMMITTING, _O.RESTARTED, _P.HOLD, cites="safety I4"),
    Rule(_P.HOLD, _O.TARGET_RUNS, _P.COMMITTED, record="COMMITTED", cites="safety 5"),
    Rule(_P.HOLD, _O.NEVER_RAN, _P.ROLLBACK, record="NEVER_RAN", cites="safety I4"),
    Rule(_P.HOLD, _O.STILL_LOADED, _P.COMMITTING, record="COMMIT_INTENT", cites="safety I2, 5"),
    Rule(_P.HOLD, _O.TARGET_LOST, _P.LOST, record="TARGET_LOST", cites="safety 6.1 LT"),
    Rule(_P.HOLD, _O.FAILED, _P.HOLD, cites="safety 6.1 H"),
    Rule(_P.HOLD, _O.UNKNOWN, _P.HOLD, cites="safety 6.1 H"),
    Rule(_P.HOLD, _O.RESTARTED, _P.HOLD, cites="safety 6.1 H"),
    Rule(_P.COMMITTED, _O.OK, _P.CLEANUP, record="SOURCE_FENCED", cites="safety I12"),
    Rule(_P.COMMITTED, _O.FAILED, _P.COMMITTED, cites="safety I12"),
    Rule(_P.COMMITTED, _O.UNKNOWN, _P.COMMITTED, cites="safety I12"),
    Rule(_P.COMMITTED, _O.RESTARTED, _P.COMMITTED, cites="safety I12"),
    Rule(_P.CLEANUP, _O.OK, _P.COMPLETED, cites="DESIGN 5.8"),
    Rule(_P.CLEANUP, _O.FAILED, _P.CLEANUP, cites="safety RG3"),
    Rule(_P.CLEANUP, _O.UNKNOWN, _P.CLEANUP, cites="safety RG3"),
    Rule(_P.CLEANUP, _O.RESTARTED, _P.CLEANUP, cites="safety RG3"),
    Rule(_P.ROLLBACK, _O.OK, _P.ROLLED_BACK, cites="safety I3, I6"),
    Rule(_P.ROLLBACK, _O.FAILED, _P.ROLLBACK, cites="safety RG3"),
    Rule(_P.ROLLBACK, _O.UNKNOWN, _P.ROLLBACK, cites="safety RG3"),
    Rule(_P.ROLLBACK, _O.RESTARTED, _P.ROLLBACK, cites="safety RG3"),
)

NEXT: Mapping[Tuple[Phase, Outcome], Rule] = {(rule.phase, rule.outcome): rule for rule in RULES}

FINAL: FrozenSet[Phase] = frozenset({Phase.COMPLETED, Phase.ROLLED_BACK, Phase.LOST})

# An abort acts in these phases; later it is TOO_LATE, in ROLLBACK it is under way already (DESIGN 3).
ABORTABLE: FrozenSet[Phase] = frozenset(rule.phase for rule in RULES if rule.outcome is Outcome.ABORTED)

# Milestones of the spec in the order in which a migration reaches them (DESIGN 9).
MILESTONES: Tuple[Phase, ...] = (Phase.RESERVED, Phase.ALLOCATED, Phase.LISTENING, Phase.COMPLETED)

_FAILURES = frozenset({Outcome.FAILED, Outcome.UNKNOWN})
_EARLY = _FAILURES | {Outcome.OK, Outcome.ABORTED}

# What the step of each phase can report; RESTARTED is reported by the worker itself, for every phase.
OUTCOMES: Mapping[Phase, FrozenSet[Outcome]] = {
    Phase.PREFLIGHT: _EARLY,
    Phase.LOCKED: _EARLY,
    Phase.RESERVED: _EARLY,
    Phase.ALLOCATED: _EARLY,
    Phase.LISTENING: _EARLY | {Outcome.OFFLINE},
    Phase.MIRRORING: _EARLY,
    Phase.PRECOPY: _EARLY | {Outcome.NOT_SYNCED},
    Phase.SWITCHOVER: _EARLY | {Outcome.NOT_SYNCED},
    Phase.COMMITTING: _FAILURES | {Outcome.OK},
    Phase.HOLD: _FAILURES | {Outcome.TARGET_RUNS, Outcome.NEVER_RAN, Outcome.STILL_LOADED, Outcome.TARGET_LOST},
    Phase.COMMITTED: _FAILURES | {Outcome.OK},
    Phase.CLEANUP: _FAILURES | {Outcome.OK},
    Phase.ROLLBACK: _FAILURES | {Outcome.OK},
}

_ORDER: Dict[Phase, int] = {
    phase: position
    for position, phase in enumerate(
        (
            Phase.PREFLIGHT,
            Phase.LOCKED,
            Phase.RESERVED,
            Phase.ALLOCATED,
            Phase.LISTENING,
            Phase.MIRRORING,
            Phase.PRECOPY,
            Phase.SWITCHOVER,
            Phase.COMMITTING,
            Phase.HOLD,
            Phase.COMMITTED,
            Phase.CLEANUP,
            Phase.COMPLETED,
        )
    )
}

# A phase on the way forward, COMMITTING included, is entered only once the journal has it (safety I2).
WRITTEN_FIRST: FrozenSet[Phase] = frozenset(phase for phase in _ORDER if _ORDER[phase] <= _ORDER[Phase.COMMITTING])


def rule(phase: Phase, outcome: Outcome) -> Rule:
    """The rule for an outcome in a phase.

    Raises:
        KeyError: the step reported an outcome that its phase does not have: a defect of ours.
    """
    return NEXT[(phase, outcome)]


def reached(phase: Phase, milestone: Phase) -> bool:
    """Whether ``phase`` lies at or behind ``milestone`` on the way forward."""
    return phase in _ORDER and _ORDER[phase] >= _ORDER[milestone]
