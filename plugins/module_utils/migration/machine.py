# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The one executor of the state table: runs the step of the phase and lets the table say what follows.

Knows when a step may wait for the caller's goal, how an error becomes an outcome, and that a phase on the way
forward counts only once the journal has it. Does not know what a step does.
"""

from __future__ import annotations

import logging
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from ..errors import CrossclusterError, Side
from .context import Context
from .errors import Aborted, Interrupted, JournalUnwritable, MigrationError
from .states import ABORTABLE, WRITTEN_FIRST, Outcome, Phase, rule

__all__ = ["RETRY_PAUSES", "Machine", "Step"]

Step = Callable[[Context], Outcome]

# Seconds between two tries of a step that stays in its phase (hold, clean-up): quick first, then patient.
RETRY_PAUSES = (1.0, 2.0, 5.0, 10.0)

# An error of these codes says nothing about what the other side did: never treated as failed (safety I7).
_UNKNOWN_CODES = frozenset({"REPLY_TIMEOUT", "CHANNEL_LOST", "TUNNEL_POISONED", "API_OUTCOME_UNKNOWN", "QMP_TIMEOUT"})

_LOG = logging.getLogger(__name__)


class Machine:
    """Runs one migration from its present phase to a final one."""

    def __init__(self, context: Context, steps: Mapping[Phase, Step]) -> None:
        self.context = context
        self._steps = steps
        self._tries = 0

    def run(self, restarted: bool = False) -> None:
        """Execute the table; ``restarted`` says that a worker died in the present phase."""
        facts = self.context.facts
        if restarted and not facts.final:
            self._follow(Outcome.RESTARTED, None)
        while not facts.final:
            self._follow(*self._report())
        self.context.release()

    def _report(self) -> Tuple[Outcome, Optional[Dict[str, Any]]]:
        """Run the step of the phase, after the caller wants to go on."""
        context = self.context
        phase = context.facts.phase
        try:
            context.await_goal()
            return self._steps[phase](context), None
        except Aborted as error:
            return (Outcome.ABORTED if phase in ABORTABLE else Outcome.FAILED), error.to_dict()
        except CrossclusterError as error:
            _LOG.warning("%s: %s", phase.value, error, exc_info=not isinstance(error, MigrationError))
            outcome = Outcome.UNKNOWN if error.code in _UNKNOWN_CODES else Outcome.FAILED
            return outcome, error.to_dict()
        except Exception as error:  # a defect of ours must end in the table, not in a dead worker
            _LOG.exception("%s: unexpected error", phase.value)
            return Outcome.FAILED, _defect(phase, error).to_dict()

    def _follow(self, outcome: Outcome, error: Optional[Dict[str, Any]]) -> None:
        """Write down and enter the phase that the table names."""
        context = self.context
        present = context.facts.phase
        following = rule(present, outcome)
        if following.then is present:
            self._stay(error)
            return
        self._tries = 0
        context.stuck_since = context.stuck_error = None
        if following.then is Phase.ROLLBACK and error is None and context.facts.error is None:
            error = _interrupted(present, context.facts.vmid).to_dict()
        entry: Dict[str, Any] = {"phase": following.then.value, "outcome": outcome.value}
        if error is not None:
            entry["error"] = error
        try:
            context.note(following.record, **entry)
        except JournalUnwritable as unwritable:
            if following.then in WRITTEN_FIRST and outcome is not Outcome.FAILED:
                self._follow(Outcome.FAILED, unwritable.to_dict())
                return
            # Backwards and behind the commit the journal is behind, never ahead: a restart repeats the step.
            _LOG.error("going on without the journal: %s", unwritable)
            context.remember(following.record, **entry)
        _LOG.info("%s --%s--> %s", present.value, outcome.value, following.then.value)
        context.announce()

    def _stay(self, error: Optional[Dict[str, Any]]) -> None:
        """The step is tried again in the same phase; the journal already tells where we are."""
        context = self.context
        if context.stuck_since is None:
            context.stuck_since = context.world.clock.monotonic()
        if error is not None:
            context.stuck_error = error
            context.announce()
        pause = RETRY_PAUSES[min(self._tries, len(RETRY_PAUSES) - 1)]
        self._tries += 1
        context.rest(pause)


def _interrupted(phase: Phase, vmid: int) -> Interrupted:
    return Interrupted(
        f"the migration was interrupted in the phase {phase.value} and taken back",
        side=Side.SOURCE,
        object=f"VM {vmid}",
        remedy="Run the play again",
    )


def _defect(phase: Phase, error: Exception) -> MigrationError:
    return MigrationError(
        f"internal error in phase {phase.value}: {type(error).__name__}",
        side=Side.SOURCE,
        object="worker",
        remedy="See worker.log in /var/lib/crosscluster/migrations and report it",
    )
