# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches a guest from outside while it moves: the serial ports of both hosts on one clock.

    with Guest([(alpha1, 100), (beta1, 20000)]) as guest:
        guest.wait_heartbeats(5)
        ... the migration ...
        guest.wait_heartbeats(50, host="beta1")
        print(guest.switch(), guest.violations(), guest.check_records(image_paths(beta1, 20000).values()))

The gap is measured by arrival times on this machine, never by the guest's own clocks: those stand still while it is
paused (lab.md 3). A loaded machine makes gaps without any migration: report the worst one before the switch beside it.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .hosts import Host
from .records import RecordCheck, check_image

__all__ = ["Guest", "GuestTimeout", "Heartbeat", "Switch", "Transcript", "qmp_status"]

POLL = 0.02  # seconds between two looks for a serial socket
BOOT_TIMEOUT = 180.0  # seconds; a guest boots in 3 s on a quiet machine, in a minute beside ten others
HEARTBEAT = re.compile(r"HB (\d+) (\d+) (\d+)")
ACKNOWLEDGE = re.compile(r"ACK (\d+) (\d+)")
LATE = 2  # heartbeats whose characters may be under way in UART and socket at the switch (lab.md 3)


class GuestTimeout(Exception):
    """What was waited for did not come."""


@dataclass(frozen=True)
class Heartbeat:
    """One heartbeat: arrival time (monotonic seconds of this machine), number, host, the guest's own clock (ms)."""

    at: float
    seq: int
    host: str
    guest_ms: int


@dataclass(frozen=True)
class Switch:
    """The change of hosts as the heartbeats show it. Gaps in milliseconds."""

    source: str
    target: str
    gap_ms: float
    last_seq: int
    first_seq: int
    worst_before_ms: float
    at: float

    @property
    def missing(self) -> int:
        """Heartbeat numbers that never arrived at the seam."""
        return self.first_seq - self.last_seq - 1


@dataclass
class Transcript:
    """What the serial ports said. Pure: fed with bytes and times, so it is tested without a socket."""

    heartbeats: list[Heartbeat] = field(default_factory=list)
    acknowledges: list[tuple[float, int, int, str]] = field(default_factory=list)
    lines: list[tuple[float, str, str]] = field(default_factory=list)
    _rest: dict[str, bytes] = field(default_factory=dict)
    _fresh: dict[str, bool] = field(default_factory=dict)

    def connected(self, host: str) -> None:
        """A port was opened: what comes first may be the second half of a line."""
        self._fresh[host] = True

    def feed(self, at: float, host: str, data: bytes) -> None:
        """Bytes from a host's port."""
        *whole, rest = (self._rest.get(host, b"") + data).split(b"\n")
        self._rest[host] = rest
        for raw in whole:
            text = raw.decode("ascii", "replace").strip("\r\0")
            fresh = self._fresh.pop(host, False)
            if not self._take(at, host, text) and not (fresh and self._join(at, host, text)):
                self.lines.append((at, host, text))

    def _join(self, at: float, host: str, text: str) -> bool:
        """A line that was split by the switch: its first half came out of the other host."""
        halves = [old.decode("ascii", "replace") for name, old in self._rest.items() if name != host and old]
        return any(self._take(at, host, half + text) for half in halves)

    def _take(self, at: float, host: str, text: str) -> bool:
        if match := HEARTBEAT.fullmatch(text):
            self.heartbeats.append(Heartbeat(at, int(match[1]), host, int(match[2])))
        elif match := ACKNOWLEDGE.fullmatch(text):
            self.acknowledges.append((at, int(match[1]), int(match[2]), host))
        else:
            return False
        return True

    def acknowledged(self) -> dict[int, int]:
        """Disk number to the highest acknowledged record, over all hosts."""
        found: dict[int, int] = {}
        for _, disk, seq, _ in self.acknowledges:
            found[disk] = max(found.get(disk, 0), seq)
        return found

    def gaps(self, since: float = 0.0, until: float = float("inf")) -> list[tuple[float, float]]:
        """(milliseconds, when it ended) between successive arrivals of any heartbeat."""
        times = [beat.at for beat in self.heartbeats if since <= beat.at <= until]
        return [((later - earlier) * 1000, later) for earlier, later in zip(times, times[1:])]

    def worst_gap_ms(self, since: float = 0.0, until: float = float("inf")) -> float:
        """The longest silence in a span of time."""
        return max((gap for gap, _ in self.gaps(since, until)), default=0.0)

    def write_gap_ms(self, since: float = 0.0, until: float = float("inf"), disk: int | None = None) -> float:
        """The longest time without an acknowledged write, of the worst disk or of one."""
        worst = 0.0
        for number in {each for _, each, _, _ in self.acknowledges} if disk is None else {disk}:
            times = [at for at, each, _, _ in self.acknowledges if each == number and since <= at <= until]
            worst = max([worst, *((later - earlier) * 1000 for earlier, later in zip(times, times[1:]))])
        return worst

    def switches(self) -> list[Switch]:
        """Every change of hosts, in order."""
        found = []
        for before, after in zip(self.heartbeats, self.heartbeats[1:]):
            if before.host != after.host:
                found.append(
                    Switch(
                        before.host,
                        after.host,
                        (after.at - before.at) * 1000,
                        before.seq,
                        after.seq,
                        self.worst_gap_ms(until=before.at),
                        after.at,
                    )
                )
        return found

    def violations(self) -> list[str]:
        """Signs of two running copies or of a guest that was set back; a reboot (it starts at 1 again) is none.

        A guest counts on; so each number arrives once, and what arrives from the target is above all of the source.
        """
        found, seen = [], {}
        highest = 0
        for beat in self.heartbeats:
            if beat.seq == 1:
                seen, highest = {}, 0
            if beat.seq in seen:
                found.append("heartbeat %d came from %s and from %s" % (beat.seq, seen[beat.seq], beat.host))
            elif beat.seq < highest:
                found.append("heartbeat %d of %s came after %d" % (beat.seq, beat.host, highest))
            elif highest and beat.seq > highest + 1 + LATE and beat.host != self._host_of(highest):
                found.append("heartbeats %d to %d are missing" % (highest + 1, beat.seq - 1))
            seen[beat.seq] = beat.host
            highest = max(highest, beat.seq)
        return found

    def _host_of(self, seq: int) -> str:
        return next((beat.host for beat in reversed(self.heartbeats) if beat.seq == seq), "")


class Guest:
    """A guest watched at one or more places, each (host, VMID there). Ports that appear later are picked up.

    VMID 0 is whatever VM has a serial port on that host: for a target whose VMID is not known yet.
    """

    def __init__(self, places: Iterable[tuple[Host, int]]) -> None:
        self.transcript = Transcript()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._links: dict[str, socket.socket] = {}
        self._threads: list[threading.Thread] = []
        self.places: dict[str, tuple[Host, int]] = {}
        for host, vmid in places:
            self.add_place(host, vmid)

    def add_place(self, host: Host, vmid: int) -> None:
        """Watch one more host."""
        self.places[host.name] = (host, vmid)
        thread = threading.Thread(target=self._watch, args=(host, vmid), daemon=True, name="serial-" + host.name)
        thread.start()
        self._threads.append(thread)

    def _watch(self, host: Host, vmid: int) -> None:
        while not self._stop.is_set():
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                link.connect(host.path("/run/qemu-server/%s.serial0" % (vmid or _any_vmid(host))))
            except OSError:
                link.close()
                self._stop.wait(POLL)
                continue
            with link:
                self._links[host.name] = link
                self._read(link, host.name)
                self._links.pop(host.name, None)

    def _read(self, link: socket.socket, name: str) -> None:
        link.settimeout(0.2)
        with self._changed:
            self.transcript.connected(name)
        while not self._stop.is_set():
            try:
                data = link.recv(65536)
            except socket.timeout:
                continue
            except OSError:
                return
            if not data:
                return
            at = time.monotonic()
            with self._changed:
                self.transcript.feed(at, name, data)
                self._changed.notify_all()

    def close(self) -> None:
        """Let go of the ports."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2.0)

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- waiting and commands ----------------------------------------------------------------------------------

    def _wait(self, done, timeout: float, what: str) -> object:
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (found := done()):
                left = deadline - time.monotonic()
                if left <= 0:
                    last = [text for _, _, text in self.transcript.lines[-5:]]
                    raise GuestTimeout(
                        "no %s in %.0f s; heartbeats: %d, last lines: %r"
                        % (what, timeout, len(self.transcript.heartbeats), last)
                    )
                self._changed.wait(min(left, 0.5))
            return found

    def wait_heartbeats(self, count: int = 1, host: str = "", timeout: float = BOOT_TIMEOUT) -> None:
        """Wait for so many heartbeats from now on, of one host (by name) or any."""
        with self._changed:
            start = len(self.transcript.heartbeats)

        def enough() -> bool:
            fresh = self.transcript.heartbeats[start:]
            return sum(1 for beat in fresh if host in ("", beat.host)) >= count

        self._wait(enough, timeout, "%d heartbeats%s" % (count, host and " on " + host))

    def wait_line(self, pattern: str, timeout: float = 60.0, since: int = 0) -> str:
        """Wait for a line other than heartbeats and acknowledgements; since = index into transcript.lines."""

        def matching() -> str:
            return next((text for _, _, text in self.transcript.lines[since:] if re.search(pattern, text)), "")

        return str(self._wait(matching, timeout, "line %r" % pattern))

    def wait_acknowledged(self, more: int = 1, timeout: float = BOOT_TIMEOUT) -> dict[int, int]:
        """Wait until every known disk has so many more acknowledged records (at least one disk)."""
        with self._changed:
            start = self.transcript.acknowledged()

        def enough() -> bool:
            now = self.transcript.acknowledged()
            return bool(now) and all(now[disk] >= start.get(disk, 0) + more for disk in now)

        self._wait(enough, timeout, "acknowledged writes")
        return self.acknowledged()

    def send(self, command: str, host: str = "") -> None:
        """A serial command (worker.c), to the host the guest runs on or one by name."""
        link = self._links.get(host or self.current_host())
        if link is None:
            raise GuestTimeout("no serial port of %s is open" % (host or "the guest"))
        link.sendall(command.encode("ascii") + b"\n")

    def command(self, command: str, timeout: float = 10.0) -> str:
        """A serial command and its answer."""
        with self._changed:
            since = len(self.transcript.lines)
        self.send(command)
        return self.wait_line(r"^(OK %s|MARK |STATUS |POWEROFF|REBOOT)" % re.escape(command[0]), timeout, since)

    # -- what was seen -----------------------------------------------------------------------------------------

    def current_host(self) -> str:
        """Name of the host the last heartbeat came from."""
        with self._changed:
            return self.transcript.heartbeats[-1].host if self.transcript.heartbeats else ""

    def silent_for(self) -> float:
        """Seconds since the last heartbeat."""
        with self._changed:
            last = self.transcript.heartbeats[-1].at if self.transcript.heartbeats else float("-inf")
        return time.monotonic() - last

    def acknowledged(self) -> dict[int, int]:
        """Disk number to the highest acknowledged record so far."""
        with self._changed:
            return self.transcript.acknowledged()

    def switch(self) -> Switch:
        """The last change of hosts."""
        with self._changed:
            found = self.transcript.switches()
        if not found:
            raise GuestTimeout("the guest never changed hosts")
        return found[-1]

    def worst_gap_ms(self, since: float = 0.0, until: float = float("inf")) -> float:
        """The longest silence of the heartbeats in a span of time.monotonic()."""
        with self._changed:
            return self.transcript.worst_gap_ms(since, until)

    def write_gap_ms(self, since: float = 0.0, until: float = float("inf")) -> float:
        """The longest time without an acknowledged write, in a span of time.monotonic()."""
        with self._changed:
            return self.transcript.write_gap_ms(since, until)

    def violations(self) -> list[str]:
        """Signs that two copies ran; must be empty."""
        with self._changed:
            return self.transcript.violations()

    def check_records(self, paths: Iterable[Path | str]) -> RecordCheck:
        """Check images (of the running copy) against everything acknowledged so far; each disk must be found once."""
        acknowledged = self.acknowledged()
        found = RecordCheck()
        for path in paths:
            one = check_image(path, acknowledged)
            found.bad += ["disk %d is on two images" % disk for disk in one.disks if disk in found.disks]
            found.add(one)
        found.bad += ["no image holds disk %d" % disk for disk in acknowledged if disk not in found.disks]
        return found


def _any_vmid(host: Host) -> str:
    """VMID of a VM with a serial port on a host, "" if there is none."""
    places = Path(host.path("/run/qemu-server"))
    with contextlib.suppress(OSError):
        return next((path.stem for path in sorted(places.glob("*.serial0"))), "")
    return ""


def qmp_status(host: Host, vmid: int, timeout: float = 3.0) -> str:
    """query-status of a VM ("running", "paused", ...), "absent" without a QEMU. QMP serves one client: ask rarely."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as link:
        link.settimeout(timeout)
        try:
            link.connect(host.path("/run/qemu-server/%d.qmp" % vmid))
        except OSError:
            return "absent"
        stream = link.makefile("rw", encoding="utf-8")
        stream.readline()
        for command in ("qmp_capabilities", "query-status"):
            stream.write(json.dumps({"execute": command}) + "\n")
            stream.flush()
            while "event" in (answer := json.loads(stream.readline())):
                continue
        return answer["return"]["status"]
