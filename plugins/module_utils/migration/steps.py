# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Which function is the step of which phase. The machine runs them; the table (``states``) orders them."""

from __future__ import annotations

from typing import Mapping

from . import commit, finish, mirroring, precopy, prepare, rollback, switchover
from .machine import Step
from .states import Phase

__all__ = ["STEPS"]

STEPS: Mapping[Phase, Step] = {
    Phase.PREFLIGHT: prepare.lock,
    Phase.LOCKED: prepare.reserve,
    Phase.RESERVED: prepare.allocate,
    Phase.ALLOCATED: prepare.listen,
    Phase.LISTENING: prepare.begin,
    Phase.MIRRORING: mirroring.mirror,
    Phase.PRECOPY: precopy.precopy,
    Phase.SWITCHOVER: switchover.switchover,
    Phase.COMMITTING: commit.commit,
    Phase.HOLD: commit.read_back,
    Phase.COMMITTED: finish.fence,
    Phase.CLEANUP: finish.cleanup,
    Phase.ROLLBACK: rollback.rollback,
}
