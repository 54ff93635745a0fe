# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo: two clusters, a real guest, the public playbook; shows what became of the guest, then plays it again.

    python -m lab.demo up      everything; the last line of its output is one JSON object
    python -m lab.demo down    removes every trace

It uses the collection installed from its tarball in build/collections and keeps all its state below build/demo.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from .harness import Guest, GuestTimeout, qmp_status
from .hosts import Host, HostError
from .instance import CHECKOUT, Lab, LabError, down, instances
from .network import NetworkError
from .plays import INSTALLED, Play, run_playbook
from .vms import Disk, create_vm, image_paths, read_config

__all__ = ["main"]

STATE = CHECKOUT / "build" / "demo"
LABS = STATE / "lab"
VMID, NAME = 100, "web01"
DISKS = [Disk("scsi0", "fast", 512, "raw", fill_mib=96), Disk("scsi1", "fast", 128, "qcow2", fill_mib=16)]
PLAY = {"move_vms": NAME, "move_to": "beta", "move_storage": "fast", "move_bridge": "vmbr0"}
SETTLED = 50  # heartbeats on the target before anything is judged
FAILURES = (HostError, LabError, NetworkError, GuestTimeout, OSError, RuntimeError)


@dataclass
class Report:
    """What the last line says; `ok` is worked out at the end."""

    setup_s: float = 0.0
    duration_s: float = 0.0
    heartbeat_gap_ms: int = -1
    downtime_ms: int = -1
    records_checked: int = 0
    records_bad: int = -1
    transport: str = ""
    second_run_changed: int = -1
    bytes: int = 0
    worst_gap_before_ms: int = -1
    play_s: float = 0.0
    total_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The object."""
        facts = {key: value for key, value in vars(self).items() if key != "problems"}
        return json.dumps({"ok": not self.problems, **facts, "problems": self.problems})


class Demo:
    """One run."""

    def __init__(self) -> None:
        self.started = float(os.environ.get("CROSSCLUSTER_DEMO_STARTED") or time.time())
        self.report = Report()

    def say(self, text: str) -> None:
        """A line for a person."""
        print("[%6.1f s] %s" % (time.time() - self.started, text), flush=True)

    def expect(self, holds: object, otherwise: str) -> None:
        """Note a problem unless something holds."""
        if not holds:
            self.report.problems.append(otherwise)
            self.say("PROBLEM: " + otherwise)

    def run(self) -> Report:
        """All of it, on a fresh lab that stays up."""
        remove(quiet=True)
        STATE.mkdir(parents=True)
        lab = Lab.up({"alpha": 1, "beta": 1}, state=LABS)
        source, target = lab.host("alpha1"), lab.host("beta1")
        self.say(
            "clusters alpha (%s) and beta (%s) are up: separate networks, storage and users"
            % (source.api_host, target.api_host)
        )
        with Guest([(source, VMID), (target, 0)]) as guest:
            self._boot(source, guest)
            self.report.setup_s = round(time.time() - self.started, 1)
            play = self._play(lab, source)
            if not self.report.problems:
                self._show_guest(guest, target, play)
                self._show_source(source, target)
                self._again(lab)
                self._still_running(guest, target)
        self.report.total_s = round(time.time() - self.started, 1)
        print(
            "\nThe lab stays up. Look around:  ssh -F %s/ssh_config beta1 qm list\n"
            "Remove it:                      make demo-down\n" % lab.directory
        )
        return self.report

    def _boot(self, source: Host, guest: Guest) -> None:
        create_vm(source, VMID, NAME, disks=DISKS, memory=192, guest_words="rate=2 set=16")
        self.say(
            "VM %d (%s) started on alpha: %s"
            % (VMID, NAME, ", ".join("%s %d MiB %s" % (disk.key, disk.size_mib, disk.format) for disk in DISKS))
        )
        guest.wait_heartbeats(5)
        guest.wait_acknowledged(25)
        self.say("the guest counts heartbeats and writes checksummed, fsynced records to both disks")

    def _play(self, lab: Lab, source: Host) -> Play:
        shown = " ".join("-e %s=%s" % pair for pair in PLAY.items())
        self.say("ansible-playbook playbooks/migrate.yml " + shown)
        sys.stdout.flush()
        play = run_playbook(lab, "migrate", PLAY, show=True)
        self.report.play_s = round(play.seconds, 1)
        self.expect(play.status == 0, "the play failed with %d" % play.status)
        if play.status:
            show_logs(source)
            return play
        results = play.results("migration")
        self.expect(results, "the play ran no migration")
        for result in results[-1:]:
            self.report.transport = str(result.get("transport"))
            self.report.duration_s = result.get("duration_s", -1)
            self.report.downtime_ms = result.get("downtime_ms", -1)
            self.report.bytes = total_bytes(result.get("bytes"))
            self.expect(result.get("phase") == "completed", "the migration ended as %s" % result.get("phase"))
        return play

    def _show_guest(self, guest: Guest, target: Host, play: Play) -> None:
        guest.wait_heartbeats(SETTLED, host=target.name)
        switch = guest.switch()
        self.report.heartbeat_gap_ms = round(switch.gap_ms)
        self.report.worst_gap_before_ms = round(switch.worst_before_ms)
        self.say("")
        self.say(
            "the guest goes on counting on beta: %d on alpha, then %d on beta, %.0f ms apart "
            "(worst gap without a move: %.0f ms)"
            % (switch.last_seq, switch.first_seq, switch.gap_ms, switch.worst_before_ms)
        )
        for violation in guest.violations():
            self.expect(False, violation)
        vmid = int(play.results("migration")[-1].get("target", {}).get("vmid", VMID))
        acknowledged = guest.acknowledged()
        found = guest.check_records(image_paths(target, vmid).values())
        self.report.records_checked, self.report.records_bad = found.checked, len(found.bad)
        self.say(
            "acknowledged writes: %s; checked on beta's disks: %d records, %d bad"
            % (
                ", ".join("disk %d up to %d" % pair for pair in sorted(acknowledged.items())),
                found.checked,
                len(found.bad),
            )
        )
        self.expect(found.checked and len(acknowledged) == len(DISKS), "not every disk was written to")
        for text in found.bad[:5]:
            self.expect(False, text)

    def _show_source(self, source: Host, target: Host) -> None:
        config = read_config(source, VMID)
        state, kept = (
            qmp_status(source, VMID),
            [path.name for path in image_paths(source, VMID).values() if path.exists()],
        )
        self.say(
            "on alpha VM %d is %s, locked (%s) and kept: %s, onboot %s"
            % (
                VMID,
                "stopped" if state == "absent" else state,
                config.get("lock"),
                ", ".join(kept),
                config.get("onboot", "-"),
            )
        )
        self.expect(state == "absent", "QEMU still runs on the source: " + state)
        self.expect(config.get("lock") == "migrate", "the source is not locked")
        self.expect(len(kept) == len(DISKS), "the source's disks are not kept")
        running = target.qemu_pids()
        self.say("on beta runs VM %s" % ", ".join(map(str, running)))
        self.expect(len(running) == 1, "beta runs %d QEMUs" % len(running))
        report = self.report
        self.say(
            "transport %s, %.1f MiB, %s s, downtime %s ms (QEMU's own figure)"
            % (report.transport, report.bytes / (1 << 20), report.duration_s, report.downtime_ms)
        )

    def _again(self, lab: Lab) -> None:
        self.say("the same play again:")
        again = run_playbook(lab, "migrate", PLAY, show=True)
        self.report.second_run_changed = again.changed
        self.expect(again.status == 0, "the second run failed with %d" % again.status)
        self.expect(again.changed == 0, "the second run changed %d" % again.changed)
        self.say("second run: changed=%d" % again.changed)

    def _still_running(self, guest: Guest, target: Host) -> None:
        guest.wait_heartbeats(5, host=target.name)
        for violation in guest.violations():
            self.expect(False, violation)


def total_bytes(value: object) -> int:
    """Bytes of a result: a number, or one per stream."""
    if isinstance(value, dict):
        return int(value["total"]) if "total" in value else sum(total_bytes(each) for each in value.values())
    return int(value) if isinstance(value, (int, float)) else 0


def show_logs(source: Host) -> None:
    """The ends of the workers' logs, when something went wrong."""
    for path in sorted(Path(source.path("/var/lib/crosscluster/migrations")).glob("*/worker.log")):
        print("--- %s\n%s" % (path.parent.name, path.read_text(errors="replace")[-4000:]), flush=True)


def remove(quiet: bool = False) -> None:
    """Every trace of the demo: its labs and build/demo."""
    for number in instances(LABS):
        down(number, state=LABS)
        if not quiet:
            print("lab %d removed" % number)
    shutil.rmtree(STATE, ignore_errors=True)


def main() -> int:
    """up or down."""
    action = sys.argv[1] if len(sys.argv) > 1 else "up"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if action == "down":
        remove()
        return 0
    if action != "up":
        print("usage: python -m lab.demo up|down", file=sys.stderr)
        return 2
    if not INSTALLED.is_dir():
        print("the collection is not installed in %s: run `make demo`" % INSTALLED, file=sys.stderr)
        return 2
    handle = os.open(CHECKOUT / "build", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another demo of this checkout is running", file=sys.stderr)
        return 2
    demo = Demo()
    try:
        demo.run()
    except FAILURES as error:
        demo.expect(False, "%s: %s" % (type(error).__name__, error))
    print(demo.report.line(), flush=True)
    return 1 if demo.report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
