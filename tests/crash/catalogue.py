# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The crash cases: what strikes, when, and the end states that the safety reference allows for it.

A case names a *moment* (a record of the journal, or a phase) and a *blow*. Verdicts are those of safety 6.1:

* ``S``  source running and unlocked, without traces of the move in its QEMU
* ``T``  target running, source QEMU gone, source config locked and kept
* ``H``  hold: neither runs, nothing deleted
* ``L``  the source process was lost by the blow itself; its disks count
* ``LT`` the target was lost after the commit; the source copy is kept and never resumed by itself
* ``R``  refused before any write

Knows nothing of how a blow is dealt (``blows``) or how the end is judged (``judge``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Iterator


@dataclass(frozen=True)
class Moment:
    """A record in the journal of the move: its kind, or the phase it enters. ``delay`` in seconds.

    ``unsynced``: when the record is written and its fsync is not yet begun.
    """

    kind: str = ""
    phase: str = ""
    delay: float = 0.0
    unsynced: bool = False

    def matches(self, record: dict[str, Any]) -> bool:
        if self.phase:
            return record.get("phase") == self.phase
        return str(record.get("kind", "")).lower() == self.kind.lower()


@dataclass(frozen=True)
class Case:
    """One crash. ``rooted`` and ``token`` are the verdicts allowed after the blow with and without ``target_root``.

    ``blow`` names a function of ``blows``; ``values`` are its arguments. ``faults`` of the lab are there from the
    beginning and wait for their command. ``second`` is the verdict after the play was run again. ``modes``: with and
    without ``target_root``.
    """

    name: str
    blow: str
    rooted: str
    token: str
    moment: Moment | None = None
    values: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    faults: tuple[dict[str, Any], ...] = ()
    transport: str = "websocket"
    second: str = "T"
    quick: bool = False
    modes: tuple[bool, ...] = (True, False)

    def expected(self, target_root: bool) -> str:
        return self.rooted if target_root else self.token


def at(kind: str, delay: float = 0.0) -> Moment:
    return Moment(kind=kind, delay=delay)


def entering(phase: str, delay: float = 0.0) -> Moment:
    return Moment(phase=phase, delay=delay)


# Every record that a good move writes, in its order, with the verdicts after the worker died just behind it.
# In COMMIT_INTENT the dead worker may or may not have sent `resume`: both ends are right, a mixture is not.
JOURNAL_POINTS = (
    ("opened", at("opened"), "S", "S"),
    ("worker", at("worker"), "S", "S"),
    ("running", at("running"), "S", "S"),
    ("locking", at("locking"), "S", "S"),
    ("lock-taken", at("lock_taken"), "S", "S"),
    ("locked", entering("locked"), "S", "S"),
    ("reserving", at("reserving"), "S", "S"),
    ("tunnel", at("tunnel"), "S", "S"),
    ("reserved", entering("reserved"), "S", "S"),
    ("allocating", at("allocating"), "S", "S"),
    ("volume", at("volume"), "S", "S"),
    ("allocated", entering("allocated"), "S", "S"),
    ("config-sent", at("config_sent"), "S", "S"),
    ("starting", at("starting"), "S", "S"),
    ("listening", entering("listening"), "S", "S"),
    ("triggered", at("triggered"), "S", "S"),
    ("mirror", at("mirror"), "S", "S"),
    ("mirroring", entering("mirroring"), "S", "S"),
    ("precopy", entering("precopy"), "S", "S"),
    ("switchover", entering("switchover"), "S", "S"),
    ("commit-intent", at("COMMIT_INTENT"), "S/T", "S/T/H"),
    ("proof", at("proof"), "T", "T"),
    ("committed", at("COMMITTED"), "T", "T"),
    ("neutralising", at("neutralising"), "T", "T"),
    ("source-state", at("source_state"), "T", "T"),
    ("source-fenced", at("SOURCE_FENCED"), "T", "T"),
    ("result", at("result"), "T", "T"),
    ("completed", entering("completed"), "T", "T"),
)
# Before the fsync: what the worker wrote it alone knows of, nothing that the record is to make safe was begun. The next
# worker reads the record all the same, for the file outlives its writer, so the verdicts are those above; but there is
# one end less behind COMMIT_INTENT. `resume` was not sent: the target's task ends with the connection, its log proves
# it, and that proof needs no root. A guest that runs on the target was let run by a worker that did not write the
# intent; a hold has missed the proof. `opened` is written by the program that starts the worker, into a file without
# the journal's name: no move was begun.
UNSYNCED_VERDICTS = {"commit-intent": ("S", "S")}
QUICK_POINTS = {"precopy", "switchover", "commit-intent", "committed"}

# The control channel is cut behind each command of the order; what Proxmox then keeps: mtunnel-protocol 8.1.
CUT_COMMANDS = ("version", "disk", "config", "start", "nbdstop")
# What the target did with `resume` has to be read back, or asked for in another way.
LOST_RESUME = {"fault": "control_cut", "command": "resume", "when": "before", "count": 1}
CERTIFIED = {"tls", "qemu-tls"}  # transports that need certificates on both nodes
# A controller that is gone must be noticed soon enough for a test.
SHORT_LEASE = {"migrate_vm_controller_timeout": "8 s"}
# The move waits long enough in each phase for a blow to strike there.
SLOW = {"migrate_vm_limits": {"bandwidth": "6 MiB/s"}}


def worker_kills() -> Iterator[Case]:
    for name, moment, rooted, token in JOURNAL_POINTS:
        yield Case(f"worker-killed-at-{name}", "kill_worker", rooted, token, moment, quick=name in QUICK_POINTS)


def worker_kills_before_fsync() -> Iterator[Case]:
    """With and without root in turn: what the record says is the same as behind its fsync, which has both."""
    for number, (name, moment, *known) in enumerate(JOURNAL_POINTS):
        rooted, token = UNSYNCED_VERDICTS.get(name, known)
        modes = (True, False) if name in UNSYNCED_VERDICTS else (number % 2 == 0,)
        yield Case(
            f"worker-killed-before-fsync-of-{name}", "kill_worker", rooted, token, replace(moment, unsynced=True),
            modes=modes,
        )  # fmt: skip


def worker_stops() -> Iterator[Case]:
    yield Case(
        "worker-stopped-in-precopy-and-woken", "stop_worker", "S/T", "S/T", entering("precopy"), {"seconds": 12.0}
    )
    yield Case(
        "worker-stopped-beyond-intent-deadline-and-woken",
        "stop_worker",
        "S/T",
        "S/T/H",
        at("COMMIT_INTENT"),
        {"seconds": 30.0},
    )


def controller_losses() -> Iterator[Case]:
    early, late = entering("mirroring"), entering("committing")
    for name, blow in (
        ("killed", "kill_controller"),
        ("interrupted", "interrupt_controller"),
        ("ended", "terminate_controller"),
    ):
        yield Case(
            f"controller-{name}-before-switchover",
            blow,
            "S",
            "S",
            early,
            settings=SHORT_LEASE | SLOW,
            quick=name == "killed",
        )
        yield Case(f"controller-{name}-after-switchover", blow, "T", "T", late, settings=SHORT_LEASE)
    yield Case("runner-cancelled-before-switchover", "cancel_runner", "S", "S", early, settings=SHORT_LEASE | SLOW)
    yield Case("runner-cancelled-after-switchover", "cancel_runner", "T", "T", late, settings=SHORT_LEASE)


def channel_losses() -> Iterator[Case]:
    for command in CUT_COMMANDS:
        yield Case(
            f"control-cut-after-{command}", "lab_fault", "S", "S",
            values={"fault": "control_cut", "command": command, "when": "after", "count": 1}, quick=command == "start",
        )  # fmt: skip
    yield Case("control-cut-in-mirroring", "cut_control", "S", "S", entering("mirroring"), settings=SLOW)
    yield Case("control-cut-in-precopy", "cut_control", "S", "S", entering("precopy"), settings=SLOW)
    yield Case("control-cut-in-switchover", "cut_control", "S/T", "S/T/H", entering("switchover"))
    yield Case("control-cut-at-intent", "cut_control", "S/T", "S/T/H", at("COMMIT_INTENT"))
    yield Case("control-cut-in-cleanup", "cut_control", "T", "T", entering("cleanup"))
    yield Case("resume-cut-before-it-arrives", "lab_fault", "S/T", "S/H", values=LOST_RESUME)
    cut_after = {**LOST_RESUME, "when": "after"}
    yield Case("resume-sent-and-connection-cut", "lab_fault", "T", "T/H", values=cut_after, quick=True)
    yield Case(
        "unlock-cut",
        "lab_fault",
        "T",
        "T",
        values={"fault": "control_cut", "command": "unlock", "when": "after", "count": 1},
    )
    yield Case(
        "last-acknowledgement-lost", "silence_ram", "S", "S", entering("switchover"), quick=True,
    )  # fmt: skip


def api_losses() -> Iterator[Case]:
    yield Case(
        "tunnel-post-without-answer", "lab_fault", "S", "S", values={"fault": "http_no_answer", "count": 1}, quick=True
    )
    yield Case(
        "target-status-silent-in-hold", "silence_status", "T", "S/H", at("COMMIT_INTENT"), faults=(LOST_RESUME,)
    )  # fmt: skip


def process_losses() -> Iterator[Case]:
    for phase in ("mirroring", "precopy"):
        yield Case(f"source-qemu-killed-in-{phase}", "kill_source_qemu", "L", "L", entering(phase), settings=SLOW)
        yield Case(
            f"target-qemu-killed-in-{phase}",
            "kill_target_qemu",
            "S",
            "S",
            entering(phase),
            settings=SLOW,
            quick=phase == "precopy",
        )
    yield Case("source-qemu-killed-in-cleanup", "kill_source_qemu", "T", "T", entering("committed"))
    yield Case("target-qemu-killed-before-resume", "lab_fault", "S", "S/H",
               values={"fault": "kill_qemu", "command": "resume", "when": "before", "count": 1})  # fmt: skip
    killed = {"fault": "kill_qemu", "command": "resume", "when": "after", "count": 1}
    yield Case("target-qemu-killed-after-resume", "lab_fault", "LT/H", "LT/H", values=killed, second="LT/H")


def full_disks() -> Iterator[Case]:
    small = {"migrate_vm_disks": {"default": "slow"}}
    yield Case("target-disk-full", "fill_target", "S", "S", entering("allocated"), settings=small, quick=True)
    yield Case("journal-disk-full-before-reserving", "fill_journal", "S", "S", at("lock_taken"))
    yield Case("journal-disk-full-in-precopy", "fill_journal", "S", "S", entering("precopy"), settings=SLOW)


def changes_meanwhile() -> Iterator[Case]:
    yield Case("ha-resource-added-in-precopy", "add_ha", "S", "S", entering("precopy"), settings=SLOW, quick=True)
    yield Case("ha-resource-added-after-lock", "add_ha", "S", "S", at("lock_taken"))


def refusals() -> Iterator[Case]:
    yield Case("wrong-token", "nothing", "R", "R", settings={"_token": "00000000-0000-0000-0000-000000000000"})
    yield Case("vmid-taken", "take_vmid", "R", "R", settings={"_vmid": "same"})
    yield Case("unknown-storage", "nothing", "R", "R", settings={"migrate_vm_disks": {"default": "nowhere"}})
    yield Case("missing-bridge", "nothing", "R", "R", settings={"migrate_vm_nics": {"default": "vmbr99"}})


def direct_losses() -> Iterator[Case]:
    """Over ``tls``, at COMMIT_INTENT and behind it: both Proxmox's channel and ``control`` lead to the target.

    Root on the target is what the transport needs.
    """
    written = at("COMMIT_INTENT")
    unsent = replace(written, unsynced=True)  # the worker stands still until the blow was dealt: no `resume` has left
    delayed = {"fault": "command_delay", "command": "resume", "seconds": 4, "count": 1}
    killed = {"fault": "kill_qemu", "command": "resume", "count": 1}
    for name, blow, verdict, moment, more in (
        ("worker-killed-at-intent", "kill_worker", "S/T", written, {"quick": True}),
        ("worker-killed-before-resume-left", "kill_worker", "S", unsent, {}),
        ("worker-killed-with-resume-under-way", "kill_worker_in_resume", "T", written, {"faults": (delayed,)}),
        ("migration-network-silent-at-intent", "silence_migration_network", "T", unsent, {}),
        ("api-silent-at-intent", "silence_api", "T", unsent, {}),
        ("api-silent-with-resume-under-way", "silence_api", "T", written, {"faults": (delayed,), "quick": True}),
        ("everything-silent-for-a-while-at-intent", "silence_target", "S/T", unsent, {"values": {"seconds": 30.0}}),
        ("target-qemu-killed-at-intent", "kill_target_qemu", "S", unsent, {}),
        ("target-qemu-killed-and-resume-lost", "kill_target_qemu", "S", unsent, {"faults": (LOST_RESUME,)}),
        ("target-qemu-killed-after-resume", "lab_fault", "LT/H", None,
         {"values": {**killed, "when": "after"}, "second": "LT/H"}),
        ("incoming-killed-at-intent", "kill_incoming", "T", unsent, {}),
        ("incoming-killed-and-resume-lost", "kill_incoming", "S", unsent, {"faults": (LOST_RESUME,)}),
        ("pumps-killed-and-resume-lost", "kill_pumps", "T", unsent, {"faults": (LOST_RESUME,)}),
        ("relays-killed-and-resume-lost", "kill_relays", "T", unsent, {"faults": (LOST_RESUME,)}),
    ):  # fmt: skip
        yield Case(f"tls-{name}", blow, verdict, verdict, moment, transport="tls", modes=(True,), **more)


def early_tunnel() -> Iterator[Case]:
    """``qemu-tcp`` asks the target what it can before the source is locked, and that takes the VMID."""
    for name, moment in (
        ("reserving", at("reserving")),
        ("tunnel", at("tunnel")),
        ("running", at("running")),
        ("locking", at("locking")),
    ):
        yield Case(
            f"qemu-tcp-worker-killed-at-{name}", "kill_worker", "S", "S", moment, transport="qemu-tcp", modes=(True,)
        )


def cases() -> list[Case]:
    """All cases, in the order in which they are run."""
    makers = (refusals, worker_kills, worker_kills_before_fsync, worker_stops, controller_losses, channel_losses,
              api_losses, process_losses, full_disks, changes_meanwhile, direct_losses, early_tunnel)  # fmt: skip
    return [case for maker in makers for case in maker()]


def quick_cases() -> list[tuple[Case, bool]]:
    """At most fourteen for `make test`, with and without root on the target in turn where a case has both."""
    quick = [case for case in cases() if case.quick][:14]
    return [(case, case.modes[number % len(case.modes)]) for number, case in enumerate(quick)]
