# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a blow left behind: which side owns the VM, what else is there, and whether that is what the result says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from e2e.sides import Side

WAITING = {"inmigrate", "paused", "prelaunch", "postmigrate", "finish-migrate"}


@dataclass
class Findings:
    """A verdict letter with everything that speaks against calling it clean."""

    verdict: str
    wrong: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.verdict + (": " + "; ".join(self.wrong) if self.wrong else "")


def look(source: Side, target: Side, paused: bool = False) -> Findings:
    """Name the state of safety 6.1 that both sides are in.

    ``paused`` says that the owner had paused the VM, so that paused counts as its running state.
    """
    alive = {"paused", "running"} if paused else {"running"}
    here, there = source.run_state, target.run_state
    if here in alive and there == "running" and not paused:
        return Findings("SPLIT", ["both sides run"])
    if there in alive and here is None:
        return Findings("T", _traces_of_a_move_forward(source, target))
    if here in alive:
        return Findings("S", _traces_of_a_move_back(source))
    if here is None and there is None:
        return Findings(
            "L" if source.lock is None else "L?", [] if source.lock is None else [f"source locked {source.lock}"]
        )
    return Findings("H")


def _traces_of_a_move_forward(source: Side, target: Side) -> list[str]:
    wrong = []
    if source.lock != "migrate":
        wrong.append(f"source config has lock {source.lock} instead of migrate")
    if not source.config:
        wrong.append("source config is gone")
    if not source.volumes():
        wrong.append("source volumes are gone")
    if source.config.get("onboot", "0") != "0":
        wrong.append("kept source would start at boot")
    wrong += [
        f"kept source has {key} without link_down"
        for key, value in source.config.items()
        if key.startswith("net") and "link_down=1" not in value
    ]
    if target.lock:
        wrong.append(f"target locked {target.lock}")
    return wrong


def _traces_of_a_move_back(source: Side) -> list[str]:
    wrong = [f"source locked {source.lock}"] if source.lock else []
    wrong += [f"block job {job} left" for job in source.jobs()]
    wrong += [f"block node {node} left" for node in source.foreign_nodes()]
    return wrong


def residue_found(target: Side) -> list[str]:
    """What really lies on the target under this VMID."""
    found = [f"vm {target.vmid}"] if target.config_text is not None or target.qemu else []
    return sorted(found + [f"volume {volid}" for volid in target.volumes()])


def residue_told(result: dict[str, Any]) -> list[str]:
    """What the result says lies there; tasks are records and no objects."""
    told = []
    for item in result.get("residue") or []:
        kind = item.get("kind") or item.get("type")
        if kind in ("vm", "config", "vmid"):
            told.append(f"vm {item.get('vmid', item.get('object'))}")
        elif kind == "volume":
            told.append(f"volume {item.get('volid', item.get('object'))}")
    return sorted(set(told))


def judge_residue(target: Side, result: dict[str, Any], target_root: bool) -> list[str]:
    """Nothing is left with root on the target, and without it exactly what the result says."""
    found = residue_found(target)
    if target_root:
        return [f"left on the target: {item}" for item in found]
    told = residue_told(result)
    wrong = [f"not told: {item}" for item in found if item not in told]
    return wrong + [f"told but not there: {item}" for item in told if item not in found]
