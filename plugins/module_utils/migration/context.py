# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What a step works with: the world, the facts, the plan, the journal, the tunnel and the pumps of one migration.

Steps change nothing by hand: ``note`` writes a fact to the journal and takes it into ``facts``; ``pause`` waits and
meanwhile serves the pumps, the control channel and the callers' wishes.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Callable, Dict, FrozenSet, Optional, Tuple

from ..errors import CrossclusterError, Side
from ..proxmox.errors import CommandRefused
from ..proxmox.replies import PlainStartReply
from ..transport import pacing
from ..transport.interface import Kind, PumpEnd
from .errors import MigrationError, TargetUnexpected, TransferFailed
from .history import Facts
from .journal import Journal
from .meeting_point import DIRECT
from .plan import Plan
from .progress import Progress
from .requests import Requests
from .spec import Limits, Spec
from .states import ABORTABLE, Phase, reached
from .world import Export, Incoming, Pump, Tunnel, World

__all__ = ["Context"]

_SLICE = 0.2  # seconds; how soon an abort, a lost pump or a lost channel is seen
_LISTEN_TIMEOUT = 15.0  # seconds for a pump to stand: TCP, TLS, upgrade, greeting
_PERSISTENCE = 4  # tries of a refused command; each waited 10 s for the config lock (mtunnel-protocol 4.1)
_LOG = logging.getLogger(__name__)


class Context:
    """One migration, while a worker lives."""

    def __init__(self, world: World, journal: Journal, facts: Facts, requests: Requests, progress: Progress) -> None:
        self.world = world
        self.journal = journal
        self.facts = facts
        self.requests = requests
        self.progress = progress
        self.lock = threading.Lock()  # the control socket's threads read the facts
        self._plan: Optional[Plan] = None
        self.tunnel: Optional[Tunnel] = None
        self.caps: FrozenSet[str] = frozenset()  # what the target announced over it
        self.listeners: Optional[PlainStartReply] = None  # of the target's QEMU, in clear text
        self.pumps: Dict[str, Pump] = {}
        self.standing: Dict[str, Pump] = {}  # direct streams that stand and are not opened yet
        self.control_pump: Optional[Pump] = None
        self.control_name = ""  # of the stream `control`, once one was chosen
        self.incoming: Optional[Incoming] = None
        self.opaque_key = ""  # of the streams that QEMU encrypts itself; in memory and on the way to a pump only
        self.write_blocking = False
        self.bwlimit: Optional[int] = None  # bytes/s, the target's answer for the disks
        self.ram_limit: Optional[int] = None  # bytes/s, the target's answer for RAM
        self.totals: Dict[str, int] = {}  # bytes per stream as QEMU counts them, for the progress
        self.moved: Dict[str, int] = {}
        self._carried = 0  # bytes on the wire of streams that have ended
        self.proof: Dict[str, str] = {}
        # Moments on the monotonic clock of this process; another process has none of them.
        self.intent_at: Optional[float] = None
        self.checked_at: Optional[float] = None  # when the look at both sides began that the intent rests on
        self.stopped_at: Optional[float] = None
        self.waiting_since: Optional[float] = None
        self.stuck_since: Optional[float] = None  # since when a step is tried again and again in its phase
        self.stuck_error: Optional[Dict[str, Any]] = None  # why, as long as it is
        self.resume_sent = False  # and not answered by a proof that it was not executed
        self.resume_refusals = 0  # answers that nothing was executed and that it may be tried again
        self.resume_refused = False  # answered: the target QEMU was gone, so nothing was run by it
        self.resume_answered = False  # answered with success
        self.downtime_ms: Optional[int] = None
        self.pause_ms: Optional[int] = None
        self._flow = 0
        self._flow_mark: Tuple[int, float] = (0, 0.0)
        self.applied_limits: Optional[Limits] = None  # what QEMU and the streams were told

    @property
    def spec(self) -> Spec:
        """What was asked for."""
        if self.facts.spec is None:
            raise MigrationError("the journal has no spec", side=Side.SOURCE, object="journal")
        return self.facts.spec

    @property
    def plan(self) -> Plan:
        """What the preflight found; a restarted worker has none and needs none."""
        if self._plan is None:
            raise MigrationError("this worker has no plan", side=Side.SOURCE, object="worker")
        return self._plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._plan = plan

    @property
    def has_plan(self) -> bool:
        """Whether this worker made the preflight itself."""
        return self._plan is not None

    @property
    def target_vmid(self) -> int:
        """VMID at the target, once one was asked for."""
        if self.facts.target_vmid is None:
            raise MigrationError("no VMID was reserved", side=Side.TARGET, object="target")
        return self.facts.target_vmid

    @property
    def run_state(self) -> str:
        """``running``, ``paused`` or ``stopped``: how the owner had the VM."""
        return str(self.facts.running.get("run_state", ""))

    # Journal and facts

    def note(self, kind: str, **fields: Any) -> None:
        """Record a fact: in the journal (fsynced) first, then in ``facts``.

        Raises:
            JournalUnwritable: the fact does not count.
        """
        record = self.journal.record(kind, time=self.world.clock.wall(), **fields)
        self._take_in(record)

    def remember(self, kind: str, **fields: Any) -> None:
        """Take a fact in that the journal could not take."""
        self._take_in(dict(fields, kind=kind, time=self.world.clock.wall()))

    def note_or_remember(self, kind: str, **fields: Any) -> None:
        """A fact that must not stop the way back when the journal's disk is full."""
        try:
            self.note(kind, **fields)
        except MigrationError as error:
            _LOG.error("not in the journal: %s: %s", kind, error)
            self.remember(kind, **fields)

    def _take_in(self, record: Dict[str, Any]) -> None:
        with self.lock:
            self.facts.apply(record)
        if record["kind"] == "COMMIT_INTENT":
            self.intent_at = self.world.clock.monotonic()

    def facts_source_state(self, state: str) -> None:
        """How the source VM is left."""
        if self.facts.source_state != state:
            self.note_or_remember("source_state", state=state)

    def prove(self, **proof: Any) -> None:
        """What was read back at the commit, for the result."""
        self.proof.update(proof)
        self.note_or_remember("proof", proof=dict(self.proof))

    def warn(self, error: CrossclusterError) -> None:
        """Something that does not change the outcome, for the result."""
        warnings, warning = list(self.facts.result.get("warnings", [])), error.to_dict()
        if warning not in warnings:
            self.note_or_remember("result", result={"warnings": [*warnings, warning]})

    def measure_pause(self) -> None:
        """From STOP at the source to the answer of ``resume``."""
        if self.stopped_at is not None:
            self.pause_ms = int(1000 * (self.world.clock.monotonic() - self.stopped_at))

    def finish_result(self) -> None:
        """Numbers of the run, for the result."""
        if self.facts.result.get("bytes") is None:
            figures = {"bytes": self._carried, "downtime_ms": self.downtime_ms, "pause_ms": self.pause_ms}
            self.note_or_remember("result", result=figures)

    def announce(self) -> None:
        """Tell everybody who watches that something changed."""
        self.progress.announce(phase=self.facts.phase.value, transport=self.facts.transport)

    def arrived(self) -> None:
        """Everything is at the target: nothing is left to be counted."""
        self.totals = dict(self.moved)
        self.tell_progress(dirty_rate=None)

    def tell_progress(self, **values: Any) -> None:
        """Byte counts of all streams."""
        now = self.world.clock.monotonic()
        self.progress.moved(now, sum(self.moved.values()), sum(self.totals.values()), **values)

    # Waiting

    def serve(self) -> None:
        """Look at pumps, control channel and wishes once.

        Raises:
            Aborted: abort, lost lease or deadline, in a phase that can still be aborted.
            ChannelLost: the control channel is gone.
        """
        for pump in self.pumps.values():
            pump.poll_events()
        for name, pump in self.standing.items():
            pump.poll_events()
            if pump.ended is not None:
                raise _broke(name, pump.ended)
        if self.tunnel is not None:
            self.tunnel.tick()
        if self.facts.phase in ABORTABLE:
            self.requests.check()

    def pause(self, seconds: float) -> None:
        """Wait, serving."""
        clock = self.world.clock
        end = clock.monotonic() + seconds
        self.serve()
        while clock.monotonic() < end:
            clock.sleep(min(_SLICE, max(0.0, end - clock.monotonic())))
            self.serve()

    def rest(self, seconds: float) -> None:
        """Wait between two tries of a step that must not be disturbed by wishes."""
        self.world.clock.sleep(seconds)

    def await_goal(self) -> None:
        """At a milestone: wait until the caller wants to go on (or the lease ends)."""
        while self._at_goal():
            self.pause(_SLICE)

    def _at_goal(self) -> bool:
        phase = self.facts.phase
        return phase in ABORTABLE and phase is not Phase.PREFLIGHT and reached(phase, self.requests.goal)

    # Tunnel and streams

    @property
    def is_direct(self) -> bool:
        """Whether the bytes go from worker to worker."""
        return self.facts.transport in DIRECT

    @property
    def is_plain(self) -> bool:
        """Whether RAM and disks go to clear-text listeners of the target's QEMU."""
        return self.facts.transport == "qemu-tcp"

    def require_tunnel(self) -> Tunnel:
        """The control channel, sound.

        Raises:
            ChannelLost: by the tunnel itself when a command is sent; TargetUnexpected when there is none.
        """
        if self.tunnel is None:
            raise TargetUnexpected("there is no control channel", side=Side.TARGET, object="tunnel")
        return self.tunnel

    def persist(self, command: Callable[[], None]) -> bool:
        """A command that must not fail for a busy config lock: refused ones are tried again; whether it was done."""
        for attempt in range(_PERSISTENCE):
            try:
                command()
                return True
            except CommandRefused as error:
                _LOG.warning("%s (attempt %d of %d)", error, attempt + 1, _PERSISTENCE)
                self.rest(1.0)
            except CrossclusterError as error:
                _LOG.warning("%s", error)
                return False
        return False

    def open_websocket(self, name: str, kind: Kind, remote: str, export: Optional[Export] = None) -> Tuple[Pump, str]:
        """A pump with a ticket of its own, taken right before (mtunnel-protocol 3.2); ready for QEMU."""
        ticket = self.require_tunnel().ticket(remote)
        rate = None if kind is Kind.NBD else self.stream_rate(kind)
        pump, path = self.world.open_stream(name, kind, self.target_vmid, ticket, remote, rate, export)
        self.pumps[name] = pump
        if kind is not Kind.IMPORT:
            pump.wait_listening(self.world.clock.monotonic() + _LISTEN_TIMEOUT)
        return pump, path

    def drop_pumps(self) -> None:
        """End every byte stream at once."""
        for name in list(self.pumps):
            self.drop_pump(name)

    def drop_pump(self, name: str) -> None:
        """End one byte stream at once; what it carried is counted."""
        pump = self.pumps.pop(name)
        pump.kill()
        self._carried += pump.sent

    def require_incoming(self) -> Incoming:
        """The incoming worker of the target, by its control stream.

        Raises:
            TargetUnexpected: there is none.
        """
        if self.incoming is None:
            raise TargetUnexpected("there is no stream to the incoming worker", side=Side.TARGET, object="control")
        return self.incoming

    def drop_direct(self) -> None:
        """End what stands of the direct streams, and the way to the incoming worker."""
        if self.incoming is not None:
            self.incoming.close()
            self.incoming = None
        if self.control_pump is not None:
            self.control_pump.kill()
            self.control_pump = None
        self.control_name = ""
        for name in list(self.standing):
            self.standing.pop(name).kill()
        self.opaque_key = ""

    def close_tunnel(self) -> None:
        """Close the control channel; what the target keeps then is decided by what was sent before."""
        if self.tunnel is not None:
            self.tunnel.close()
            self.tunnel = None

    def release(self) -> None:
        """Let go of everything this process holds."""
        self.drop_pumps()
        self.drop_direct()
        self.close_tunnel()
        self.world.source.release_migration_lock()
        self.announce()

    # Rates (DESIGN, tunnel-performance 3.5)

    def disk_speed(self) -> Optional[int]:
        """Bytes/s for a mirror: acknowledged, so only asked-for limits bound it."""
        limits = [limit for limit in (self.requests.limits.bandwidth, self.bwlimit) if limit]
        return min(limits) if limits else None

    def measured_rate(self) -> int:
        """Bytes/s at which the mirrors were acknowledged; before that is known, what an unknown path gets."""
        measure = self._measure()
        return measure.rate if measure.rate > 0 else pacing.UNMEASURED_RATE

    def stream_rate(self, kind: Kind = Kind.RAM) -> Optional[int]:
        """Bytes/s for RAM or an import; None is no limit: what is not read is not sent, but for the websocket plane."""
        limit = self.ram_limit if self.ram_limit is not None else self.bwlimit
        if self.is_direct or (self.is_plain and kind is not Kind.IMPORT):
            return min((each for each in (self.requests.limits.bandwidth, limit) if each), default=None)
        others = self._disk_flow()
        return pacing.stream_rate(self.requests.limits.bandwidth, limit, self._measure(), others=others)

    def _disk_flow(self) -> int:
        """Bytes/s that the mirrors send at this moment: they share the target's worker with RAM."""
        now = self.world.clock.monotonic()
        sent = sum(pump.sent for name, pump in self.pumps.items() if name in self.facts.mirrors)
        before, at = self._flow_mark
        if now - at < 1.0:
            return self._flow
        self._flow = max(0, int((sent - before) / (now - at))) if at else 0
        self._flow_mark = (sent, now)
        return self._flow

    def _measure(self) -> pacing.Measure:
        return pacing.combine(
            pacing.Measure(pump.acknowledged, pump.busy_s, pump.acknowledged_rate)
            for name, pump in self.pumps.items()
            if name in self.facts.mirrors
        )


def _broke(name: str, end: PumpEnd) -> TransferFailed:
    return TransferFailed(
        f"the stream {name} to the target broke before it was used: {end.detail or end.reason.value}",
        side=Side.TARGET,
        object=name,
        remedy="Look at the network between the nodes and at the incoming worker of the target",
    )
