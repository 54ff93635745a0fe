# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One crash case on real QEMU: make a VM, strike at the moment, look, run the play again, look again, and once more.

What is asked of every case: never two running copies; the verdict is one the catalogue allows; every acknowledged
record is on the owner's disk; what is left on the target is nothing with root there, and exactly what the result says
without; the play run again ends as the catalogue says, and a third time changes nothing.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from e2e.controller import Controller, Play, PlayFailed, Run
from e2e.direct import assert_nobody_listens, insecure, over
from e2e.moves import EAGER, ENDS, Mover
from e2e.runner import RunnerPlay
from e2e.sides import STORAGES, Side

from lab import faults
from lab.vms import Disk

from .blows import BLOWS, JournalWatch, lab_fault, supervisors, wait_for
from .catalogue import Case
from .judge import Findings, judge_residue, look
from .unsynced import Tracer, wait_unsynced

MOMENT_TIMEOUT = 180.0  # seconds from the start of the play to the moment
PLAY_TIMEOUT = 240.0
WORKER_GONE = 5.0  # seconds without any process of it: whoever would have started it again is gone as well
HOLD_TIMEOUT = 40.0  # seconds in which a hold may find its proof, once both sides answer
FINAL_TIMEOUT = 75.0  # safety 6.1: an end is reached within 60 s after both sides answer
# Blows to a process or a connection that goes on while they are on their way.
LANDS_LATE = {
    "kill_worker", "stop_worker", "cut_control", "kill_controller", "interrupt_controller", "terminate_controller",
    "cancel_runner", "kill_target_qemu", "add_ha", "silence_ram", "fill_journal",
}  # fmt: skip
# Nobody is left who could clean up or tell; the next run does.
CONTROLLER_BLOWS = {"kill_controller", "interrupt_controller", "terminate_controller", "cancel_runner"}
# What each setting of a case is when the play is run again with nothing in its way.
UNHINDERED: dict[str, Any] = {
    "migrate_vm_limits": {},
    "migrate_vm_controller_timeout": "120 s",
    "migrate_vm_disks": {"default": "fast"},
    "migrate_vm_nics": {"default": "vmbr0"},
}
POOL_FIRST = 20000  # the lab's pool of beta


@dataclass
class Scene:
    """Everything a blow can reach."""

    mover: Mover
    case: Case
    target_root: bool
    play: Play | RunnerPlay | None = None
    supervisors: list[int] = field(default_factory=list)
    tracer: Tracer | None = None

    @property
    def source(self) -> Side:
        return self.mover.source

    @property
    def target(self) -> Side:
        return self.mover.target

    @property
    def source_host(self) -> Any:
        return self.mover.source_host

    @property
    def target_host(self) -> Any:
        return self.mover.target_host

    @property
    def target_vmid(self) -> int:
        return self.mover.target_vmid


@dataclass
class Verdict:
    """A row of build/crash.json."""

    case: str
    target_root: bool
    expected: str
    got: str = ""
    ok: bool = False
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def row(self) -> dict[str, Any]:
        got = self.got + (": " + "; ".join(self.wrong) if self.wrong else "")
        return {
            "case": self.case, "target_root": self.target_root, "expected": self.expected, "got": got, "ok": self.ok,
            "seconds": round(self.seconds, 1),
        }  # fmt: skip


class Trial:
    """One case with or without root on the target."""

    def __init__(self, lab: Any, controller: Controller, case: Case, target_root: bool) -> None:
        self.case, self.target_root = case, target_root
        self.scene = Scene(Mover(lab, controller), case, target_root)
        self.verdict = Verdict(case.name, target_root, case.expected(target_root))
        self._heal: list[Callable[[], Any]] = []
        self._patched = contextlib.ExitStack()

    def run(self) -> Verdict:
        """Run it; whatever goes wrong is in the verdict."""
        started = time.monotonic()
        try:
            self._run()
        except (AssertionError, PlayFailed, OSError, RuntimeError) as error:
            self.verdict.wrong.append(f"{type(error).__name__}: {str(error)[-1500:]}")
        except Exception as error:
            self.verdict.wrong.append(f"unexpected {type(error).__name__}: {error}")
        finally:
            self._clean()
        self.verdict.ok = not self.verdict.wrong
        self.verdict.seconds = time.monotonic() - started
        return self.verdict

    # -- the play --------------------------------------------------------------------------------------------------

    def settings(self, hindered: bool = True) -> dict[str, Any]:
        """Extra variables: the clusters with or without root on the target, and what the case wants if hindered."""
        extra = over(self.scene.mover, self.case.transport)
        clusters = extra["crosscluster_clusters"]
        clusters["beta"]["target_root"] = self.target_root
        wanted = dict(self.case.settings)
        wanted.pop("_vmid", None)
        token = wanted.pop("_token", None)
        if hindered and token:
            clusters["beta"]["api_token_secret"] = token
        if not hindered:
            wanted = {key: UNHINDERED[key] for key in wanted}
        place = {"move_vmid": "pool"} if self._uses_pool() else {}
        return {**extra, **place, **wanted}

    def start(self) -> Play | RunnerPlay:
        controller = self.scene.mover.controller
        if self.case.blow == "cancel_runner":
            return RunnerPlay(controller, "migrate", self.settings())
        return controller.start("migrate", extra=self.settings())

    def again(self) -> Run:
        """The same play once more, with nothing of the case in its way."""
        extra = self.settings(hindered=False)
        return self.scene.mover.controller.run("migrate", extra=extra, timeout=PLAY_TIMEOUT)

    # -- the order of things ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        scene, case = self.scene, self.case
        if self._uses_pool():
            scene.mover.target_vmid = next_free(scene.target_host)
        scene.mover.create([Disk("scsi0", "fast", 64, "raw", fill_mib=24)], memory=96, guest_words=EAGER)
        if case.transport == "qemu-tcp":
            self._patched.enter_context(insecure(scene.target_host))
        for fault in case.faults:
            lab_fault(scene, **fault)
        if case.moment is None:
            self._strike()
        self._watch = JournalWatch(scene.source_host)
        scene.play = self.start()
        if case.moment is not None:
            self._wait_and_strike()
        first = self._end_of_the_first_play()
        self._end_blow()
        phase = "" if self.verdict.expected == "R" else self._settle()
        findings = self._judge(first, phase)
        self._second_and_third(findings)

    def _uses_pool(self) -> bool:
        """What a lost channel leaves without root there keeps its number, so only another one can be taken then."""
        return not self.target_root and self.case.settings.get("_vmid") != "same"

    def _strike(self) -> None:
        heal = BLOWS[self.case.blow](self.scene, **self.case.values)
        if heal is not None:
            self._heal.append(heal)

    def _wait_and_strike(self) -> None:
        play = self.scene.play
        if self.case.moment.unsynced:
            came = wait_unsynced(self.scene, self._watch, MOMENT_TIMEOUT)
        else:
            came = wait_for(self.scene, self._watch, MOMENT_TIMEOUT)
        if not came:
            raise PlayFailed(f"the moment {self.case.moment} never came:\n{play.output()[-3000:]}")
        self._strike()
        if not self.case.moment.unsynced:
            self.verdict.expected = self._expected_where_it_struck()
        elif self.case.blow != "kill_worker":
            self.scene.tracer.close()  # it goes on, and meets what was done
        elif not self.scene.tracer.ended():
            self.verdict.wrong.append("the worker outlived its end")

    def _expected_where_it_struck(self) -> str:
        """On a loaded machine a blow may land behind its moment; what it may lead to depends on where it landed."""
        planned = self.case.expected(self.target_root)
        kinds = {record.get("kind") for record in self._watch.records()}
        if self.case.blow not in LANDS_LATE or planned not in ("S", "S/T", "S/T/H"):
            return planned
        if "COMMITTED" in kinds:
            return "T"
        if "COMMIT_INTENT" in kinds:
            return "S/T" if self.target_root else "S/T/H"
        return planned

    def _end_of_the_first_play(self) -> Run:
        return self.scene.play.wait(PLAY_TIMEOUT)

    def _end_blow(self) -> None:
        while self._heal:
            self._heal.pop()()

    def _settle(self) -> str:
        """The phase in which the move came to rest; a worker that is gone for good leaves it where it is."""
        started = alive_at = time.monotonic()
        while True:
            phase = self.scene.mover.phase
            now = time.monotonic()
            if supervisors(self.scene.source_host):
                alive_at = now
            patience = HOLD_TIMEOUT if phase == "hold" else FINAL_TIMEOUT
            if phase in ENDS or now - started > patience or now - alive_at > WORKER_GONE:
                return phase
            time.sleep(0.2)

    def _judge(self, first: Run, phase: str) -> Findings:
        if self.verdict.expected == "R":
            return self._judge_refusal(first)
        findings = look(self.scene.source, self.scene.target)
        findings = self._tell_apart(findings, first, phase)
        self.verdict.got = findings.verdict
        if findings.verdict not in self.verdict.expected.split("/"):
            self.verdict.wrong.append(f"expected {self.verdict.expected} (phase {phase})\n{first.output[-2500:]}")
        if findings.verdict == "S":
            self.verdict.wrong += findings.wrong
            if self.case.blow not in CONTROLLER_BLOWS:
                self.verdict.wrong += judge_residue(self.scene.target, self._told(first), self.target_root)
        self._judge_guest(findings)
        return findings

    def _tell_apart(self, findings: Findings, first: Run, phase: str) -> Findings:
        """Words for what processes alone do not show: lost on the target, and a hold whose QEMU is gone."""
        if phase == "lost" or "TARGET_LOST" in first.codes:
            return Findings("LT", [])
        if phase == "hold":
            return Findings("H", [])
        return Findings("L") if findings.verdict == "L?" else findings

    def _untold(self, wrong: list[str], run: Run) -> list[str]:
        """Without root on the target a lock that nobody can take away any more is told, and that is all that can be."""
        told = not self.target_root and any(item.get("kind") == "lock" for item in self._told(run).get("residue") or [])
        return [item for item in wrong if not (told and item.startswith("target locked"))]

    def _judge_refusal(self, first: Run) -> Findings:
        self.verdict.got = "R" if first.status and not self.scene.mover.records() else "not refused"
        if self.verdict.got != "R":
            self.verdict.wrong.append(f"not refused before a write:\n{first.output[-2500:]}")
        self.scene.mover.assert_stayed()
        return Findings("R")

    def _told(self, run: Run) -> dict[str, Any]:
        """What the play said is left; where it ended before that was known, what the journal says (migration_info)."""
        told = [result for result in run.results() if result.get("residue")]
        if told:
            return told[-1]
        recorded = [record["objects"] for record in self._watch.records() if record.get("kind") == "residue"]
        return {"residue": recorded[-1] if recorded else []}

    def _judge_guest(self, findings: Findings) -> None:
        guest, mover = self.scene.mover.guest, self.scene.mover
        owner = {"T": mover.target, "S": mover.source, "L": mover.source}.get(findings.verdict)
        if findings.verdict in ("T", "S"):
            guest.wait_heartbeats(10, host=owner.host.name, timeout=30.0)
        self.verdict.wrong += guest.violations()
        if owner is not None:
            self.verdict.wrong += mover.check_records(owner).bad

    def _second_and_third(self, findings: Findings) -> None:
        mover = self.scene.mover
        if findings.verdict == "L":
            mover.source_host.run(["qm", "unlock", str(mover.vmid)], check=False)
            mover.source_host.run(["qm", "start", str(mover.vmid)])
            mover.guest.wait_heartbeats(5)
        if self._uses_pool() and findings.verdict in ("S", "L"):
            self._take_next_number()
        second = self.again()
        ended = look(mover.source, mover.target)
        after = ended.verdict
        if self.case.second != "T":
            return
        if second.status or after != "T":
            self.verdict.wrong.append(f"run again: status {second.status}, {after}:\n{second.output[-2500:]}")
            return
        self.verdict.wrong += [f"second run: {each}" for each in self._untold(ended.wrong, second)]
        mover.guest.wait_heartbeats(5, host=mover.target_host.name, timeout=30.0)
        self.verdict.wrong += [f"second run: {each}" for each in mover.guest.violations()]
        self.verdict.wrong += [f"second run: {each}" for each in mover.check_records(mover.target).bad]
        if self.case.transport != "websocket":
            assert_nobody_listens(mover)
        third = self.again()
        if third.status or third.changed:
            self.verdict.wrong.append(f"third run: status {third.status}, changed {third.changed}")

    def _take_next_number(self) -> None:
        """What is left keeps its number; the next move takes the next, and the guest is watched there too."""
        mover = self.scene.mover
        number = next_free(mover.target_host)
        if number != mover.target_vmid:
            mover.retire_target()
            mover.target_vmid = number
            mover.guest.add_place(mover.target_host, number)

    def _clean(self) -> None:
        if self.scene.tracer is not None:
            self.scene.tracer.close()
        for heal in self._heal:
            heal()
        if self.scene.play is not None and self.scene.play.poll() is None:
            self.scene.play.kill()
        for host in (self.scene.source_host, self.scene.target_host):
            faults.clear(host.root)
        self._patched.close()
        self.scene.mover.destroy()


def next_free(host: Any) -> int:
    """The first number of the pool that no config and no image directory of the host has."""
    taken = {path.stem for path in Path(host.path(f"/etc/pve/nodes/{host.name}/qemu-server")).glob("*.conf")}
    for storage in STORAGES.values():
        images = Path(host.path(f"{storage}/images"))
        taken |= {path.name for path in images.iterdir()} if images.is_dir() else set()
    return next(number for number in range(POOL_FIRST, POOL_FIRST + 1000) if str(number) not in taken)
