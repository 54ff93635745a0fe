# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The form in which state, result and errors leave the worker (DESIGN 3, "Result")."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from ..errors import sentence
from .history import Facts
from .states import FINAL, Phase

__all__ = ["report"]


def report(facts: Facts, progress: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
    """State and result of a migration, as JSON.

    Args:
        facts: From the journal.
        progress: Snapshot of the running worker; None when no worker runs.
    """
    spec = facts.spec
    result = facts.result
    rejected = list(facts.transports_rejected)
    return {
        "migration_id": facts.migration_id,
        "phase": facts.phase.value,
        "finished": facts.phase in FINAL,
        "guarantee": "crosscluster",
        "name": facts.name,
        "uuid": facts.uuid,
        "source": {"vmid": facts.vmid, "state": facts.source_state or None, "lock": _source_lock(facts)},
        "target": {
            "node": spec.target.node if spec else None,
            "vmid": facts.target_vmid,
            "upid": facts.upid,
            "volumes": [v.volid for v in facts.volumes.values() if v.volid],
        },
        "transport": facts.transport,
        "transports_rejected": rejected,
        "bytes": result.get("bytes", 0),
        "duration_s": _duration(facts),
        "downtime_ms": result.get("downtime_ms"),
        "pause_ms": result.get("pause_ms"),
        "attempts": facts.attempts,
        "residue": list(facts.residue),
        "warnings": [
            *(f"transport {each['transport']} is not used: {each['reason']} [{each['code']}]" for each in rejected),
            *(_warning(warning) for warning in result.get("warnings", [])),
        ],
        "proof": dict(facts.proof),
        "run_state": facts.running.get("run_state"),
        "commit_intent": facts.intents > 0,
        "source_fenced": facts.source_fenced,
        "forward": facts.forward,
        "error": facts.error if facts.phase is not Phase.COMPLETED else None,
        "limits": facts.limits.to_dict(),
        "progress": dict(progress or {}),
    }


def _warning(told: Mapping[str, Any]) -> str:
    """A warning as Ansible shows it at the end of a task."""
    return sentence(f"{told.get('object')}: {told.get('message')}", str(told.get("code")), told.get("remedy") or "")


def _source_lock(facts: Facts) -> Optional[str]:
    return "migrate" if facts.lock_taken and not facts.unlocked else None


def _duration(facts: Facts) -> Optional[int]:
    if facts.ended_at is None:
        return None
    return round(facts.ended_at - (facts.triggered_at or facts.opened_at))
