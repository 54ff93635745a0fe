# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What the records of a journal say: the facts of one migration.

``Facts.apply`` is the only reader of records, so a restarted worker knows exactly what the first one knew when it
wrote the last whole line. Everything that is not in here is read back from the two sides (safety 5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Optional

from ..errors import Side
from .errors import JournalUnreadable
from .journal import FORMAT
from .spec import Limits, Spec
from .states import FINAL, Phase

__all__ = ["Facts", "TargetVolume", "fold"]


@dataclass(frozen=True)
class TargetVolume:
    """A volume of the target that this migration created (``volid``) or may have created (``volid`` None)."""

    key: str
    storage: str
    volid: Optional[str]
    drive: Optional[str]  # drive string for the target's config


@dataclass
class Facts:
    """The facts of one migration, as far as the journal tells them."""

    migration_id: str = ""
    spec: Optional[Spec] = None
    spec_digest: str = ""
    worker_digest: str = ""
    name: str = ""
    uuid: str = ""
    controls: int = 0  # how many names of the stream `control` were used; each is good for one connection
    stood: bool = False  # the direct streams stood: somebody listens on the target for this migration
    phase: Phase = Phase.PREFLIGHT
    opened_at: float = 0.0
    triggered_at: Optional[float] = None
    ended_at: Optional[float] = None
    limits: Limits = field(default_factory=Limits)
    transport: str = ""
    transports_rejected: List[Dict[str, Any]] = field(default_factory=list)
    running: Dict[str, Any] = field(default_factory=dict)  # run state, machine, cpu, mtus, digest, versions
    locking: bool = False  # the lock may be ours
    lock_taken: bool = False
    unlocked: bool = False
    target_vmid: Optional[int] = None
    volumes_before: Optional[List[str]] = None  # of that VMID on the mapped storages, None: could not be listed
    upid: Optional[str] = None
    volumes: Dict[str, TargetVolume] = field(default_factory=dict)
    config_sent: bool = False
    started: bool = False
    attempts: int = 0
    mirrors: Dict[str, Dict[str, str]] = field(default_factory=dict)  # key -> {job, node}
    qemu_tls: bool = False  # the source's QEMU may have TLS settings of ours
    intents: int = 0
    committed: bool = False
    forward: bool = False  # in hold: the target is recovered as root, nothing leads back any more
    source_fenced: bool = False
    undo: Dict[str, Any] = field(default_factory=dict)
    source_state: str = ""
    guest_off: bool = False
    residue: List[Dict[str, Any]] = field(default_factory=list)
    proof: Dict[str, Any] = field(default_factory=dict)
    result: Dict[str, Any] = field(default_factory=dict)
    error: Optional[Dict[str, Any]] = None

    @property
    def final(self) -> bool:
        """Whether the migration has ended, one way or the other."""
        return self.phase in FINAL

    @property
    def vmid(self) -> int:
        """VMID of the source VM."""
        return self.spec.vmid if self.spec else 0

    def apply(self, record: Dict[str, Any]) -> None:
        """Take one record in."""
        reader = getattr(self, "_on_" + str(record.get("kind")).lower(), None)
        if reader is not None:
            reader(record)
        if "phase" in record:
            self._enter(Phase(record["phase"]), record)

    def _enter(self, phase: Phase, record: Dict[str, Any]) -> None:
        # A milestone that is entered a second time (a new attempt) starts with a silent target again.
        if phase is Phase.ALLOCATED and self.started:
            self.attempts += 1
            self.mirrors.clear()
        self.phase = phase
        if record.get("error"):
            self.error = record["error"]
        if phase in FINAL:
            self.ended_at = record.get("time")

    def _on_opened(self, record: Dict[str, Any]) -> None:
        if record.get("format") != FORMAT:
            raise JournalUnreadable(
                f"journal format {record.get('format')!r} is not {FORMAT}", side=Side.SOURCE, object="journal"
            )
        self.migration_id = record["migration_id"]
        self.spec = Spec.restore(record["spec"])
        self.spec_digest = record["spec_digest"]
        self.worker_digest = record.get("worker_digest", "")
        self.name = record.get("name", "")
        self.uuid = record["uuid"]
        self.opened_at = record.get("time", 0.0)
        self.limits = self.spec.limits
        self.transport = record.get("transport", "")
        self.transports_rejected = record.get("transports_rejected", [])

    def _on_transport(self, record: Dict[str, Any]) -> None:
        self.transport = record["transport"]
        self.transports_rejected = record["rejected"]

    def _on_control(self, record: Dict[str, Any]) -> None:
        self.controls = record["number"]

    def _on_standing(self, _record: Dict[str, Any]) -> None:
        self.stood = True

    def _on_triggered(self, record: Dict[str, Any]) -> None:
        self.triggered_at = record["at"]

    def _on_limits(self, record: Dict[str, Any]) -> None:
        self.limits = Limits.restore(record["limits"])

    def _on_running(self, record: Dict[str, Any]) -> None:
        self.running.update(record["facts"])

    def _on_locking(self, _record: Dict[str, Any]) -> None:
        self.locking = True

    def _on_not_locked(self, _record: Dict[str, Any]) -> None:
        self.locking = False

    def _on_guest_off(self, _record: Dict[str, Any]) -> None:
        self.guest_off = True

    def _on_lock_taken(self, _record: Dict[str, Any]) -> None:
        self.lock_taken = True

    def _on_unlocked(self, _record: Dict[str, Any]) -> None:
        self.unlocked = True

    def _on_reserving(self, record: Dict[str, Any]) -> None:
        self.target_vmid = record["vmid"]
        self.volumes_before = record.get("volumes_before")

    def _on_not_reserved(self, _record: Dict[str, Any]) -> None:
        self.target_vmid = None

    def _on_tunnel(self, record: Dict[str, Any]) -> None:
        self.upid = record["upid"]

    def _on_allocating(self, record: Dict[str, Any]) -> None:
        self.volumes[record["key"]] = TargetVolume(record["key"], record["storage"], None, None)

    def _on_volume(self, record: Dict[str, Any]) -> None:
        self.volumes[record["key"]] = TargetVolume(
            record["key"], record["storage"], record["volid"], record.get("drive")
        )

    def _on_config_sent(self, _record: Dict[str, Any]) -> None:
        self.config_sent = True

    def _on_starting(self, _record: Dict[str, Any]) -> None:
        self.started = True

    def _on_mirror(self, record: Dict[str, Any]) -> None:
        self.mirrors[record["key"]] = {"job": record["job"], "node": record["node"]}

    def _on_qemu_tls(self, _record: Dict[str, Any]) -> None:
        self.qemu_tls = True

    def _on_commit_intent(self, _record: Dict[str, Any]) -> None:
        self.intents += 1

    def _on_committed(self, _record: Dict[str, Any]) -> None:
        self.committed = True

    def _on_forward(self, _record: Dict[str, Any]) -> None:
        self.forward = True

    def _on_source_fenced(self, _record: Dict[str, Any]) -> None:
        self.source_fenced = True

    def _on_neutralising(self, record: Dict[str, Any]) -> None:
        self.undo = record["undo"]

    def _on_source_state(self, record: Dict[str, Any]) -> None:
        self.source_state = record["state"]

    def _on_residue(self, record: Dict[str, Any]) -> None:
        self.residue = record["objects"]

    def _on_proof(self, record: Dict[str, Any]) -> None:
        self.proof.update(record["proof"])

    def _on_result(self, record: Dict[str, Any]) -> None:
        self.result.update(record["result"])

    def _on_error(self, record: Dict[str, Any]) -> None:
        self.error = record["error"]


def fold(records: Iterable[Dict[str, Any]]) -> Facts:
    """The facts after all ``records``.

    Raises:
        JournalUnreadable: a record does not have the fields of its kind.
    """
    facts = Facts()
    for record in records:
        try:
            facts.apply(record)
        except (KeyError, TypeError, ValueError) as error:
            raise JournalUnreadable(
                f"journal record {record.get('kind')!r} cannot be read: {error!r}", side=Side.SOURCE, object="journal"
            ) from error
    return facts
