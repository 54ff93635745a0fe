# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a migration against the fakes, with a worker that can die at any write of its journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Optional

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.context import Context
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import JournalUnwritable
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.history import fold
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.journal import FORMAT, Journal
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.machine import Machine
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.progress import Progress
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.requests import Requests
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.spec import Spec
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Phase
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.steps import STEPS

from .migration_world import UUID, Cluster, Crash, replies_side

OPTIONS: Dict[str, Any] = {
    "source": {"vmid": 100},
    "target": {"api_host": "b1", "node": "beta1", "api_user": "mig@pve", "api_token_id": "move", "vmid": "200"},
    "disks": {"default": "fast"},
    "nics": {"default": "vmbr0"},
}

# Where an incoming worker of the target listens.
POINT: Dict[str, Any] = {
    "migration_id": "ab" * 16,
    "address": "192.0.2.2",
    "port": 60100,
    "peer_name": "b1",
    "own_name": "a1",
    "planes": ["tls", "tcp"],
    "domain": "lab",
}


class CrashingJournal(Journal):
    """Dies before or after its n-th record; or has no room from then on."""

    crash_at: Optional[int] = None
    crash_after = False
    full_from: Optional[int] = None

    def record(self, kind: str, **fields: Any) -> Dict[str, Any]:
        number = len(self.records)
        if self.full_from is not None and number >= self.full_from:
            raise JournalUnwritable("No space left on device", side=replies_side(), object="journal")
        if number == self.crash_at and not self.crash_after:
            raise Crash
        entry = super().record(kind, **fields)
        if number == self.crash_at:
            raise Crash
        return entry


def spec_of(**options: Any) -> Spec:
    """The spec of the tests."""
    return Spec.from_options({**OPTIONS, **options})


def open_journal(path: Path, spec: Spec) -> CrashingJournal:
    """A journal with its first record."""
    journal = CrashingJournal(str(path / "journal"))
    if not journal.records:
        journal.record(
            "opened",
            format=FORMAT,
            migration_id="a" * 32,
            spec=spec.to_dict(),
            spec_digest=spec.digest,
            uuid=UUID,
            name="web01",
            transport=spec.transports[0],
            phase="preflight",
            time=1.0,
        )
    return journal


def context_of(cluster: Cluster, path: Path, goal: Phase = Phase.COMPLETED, **options: Any) -> Context:
    """What one worker process works with; the journal of an earlier one is read."""
    spec = spec_of(**options)
    journal = open_journal(path, spec)
    facts = fold(journal.records)
    requests = Requests(facts.spec or spec, cluster.clock.monotonic)
    if goal is not Phase.PREFLIGHT:
        requests.advance(goal, "lease", None)
    return Context(cluster.world(), journal, facts, requests, Progress())


def run(cluster: Cluster, path: Path, **options: Any) -> Context:
    """One worker from start to end."""
    context = context_of(cluster, path, **options)
    Machine(context, STEPS).run(restarted=len(context.journal.records) > 1)
    context.journal.close()
    return context


def after_intent(context: Context, happen: Callable[[], None]) -> None:
    """Something happens between the first COMMIT_INTENT and what follows it."""
    note = context.note

    def noted(kind: str, **fields: Any) -> None:
        note(kind, **fields)
        if kind == "COMMIT_INTENT" and context.facts.intents == 1:
            happen()

    context.note = noted


def run_with_crash(cluster: Cluster, path: Path, at: int, after: bool, **options: Any) -> bool:
    """A worker that dies at its ``at``-th record; whether it came so far."""
    context = context_of(cluster, path, **options)
    context.journal.crash_at, context.journal.crash_after = at, after
    try:
        Machine(context, STEPS).run()
    except Crash:
        cluster.worker_dies()
        return True
    finally:
        context.journal.close()
    return False
