# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The worker's side of a pump process: start it, hear it, steer it, end it. An edge file; never blocks long."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from typing import Any, Callable, List, Mapping, Optional, Sequence

from ..errors import Side
from .errors import PumpFailed
from .interface import EndReason, EventName, PumpEnd, PumpEvent, Settings

__all__ = ["PumpHandle"]

READ_SIZE = 65536  # bytes
MAX_LINE = 65536  # bytes of one event; ours are below 300
REAP_SECONDS = 1.0  # a pump that said its last word ends at once


class PumpHandle:
    """One running pump.

    Attributes:
        sent, received: bytes of the stream carried to and from the target.
        acknowledged: bytes known to have arrived (written to disk by the target for NBD).
        in_flight: bytes sent and not acknowledged.
        acknowledged_rate: bytes/s that the target took (NBD), 0 while nothing is known.
        busy_s: seconds in which written bytes were waiting for an answer (NBD).
        peer: direct transports: who is at the other end (name, address, local_address, cipher), None until it stands.
        announced: bytes that an import's header promised, once the pump has ended.
        draining: the local end has finished; what was sent is still on its way.
        ended: how it ended; None while it runs.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = settings.name
        self.kind = settings.kind
        self.process = process
        self.sent = self.received = self.acknowledged = self.in_flight = self.acknowledged_rate = 0
        self.busy_s = 0.0
        self.announced: Optional[int] = None
        self.peer: Optional[Mapping[str, Any]] = None
        self.listening = False
        self.draining = False
        self.ended: Optional[PumpEnd] = None
        self._clock = clock
        self._buffer = b""
        if process.stdin is None or process.stdout is None:
            raise ValueError("a pump needs pipes")
        self._commands, self._events = process.stdin, process.stdout
        os.set_blocking(self._commands.fileno(), False)
        os.set_blocking(self._events.fileno(), False)

    @classmethod
    def launch(
        cls,
        argv: Sequence[str],
        settings: Settings,
        secret: str,
        input_fd: Optional[int] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> PumpHandle:
        """Start a pump; it connects by itself, see :meth:`wait_listening`.

        Args:
            argv: The program, for example ``[sys.executable, "-I", "-B", "worker.pyz", "pump"]``.
            settings: What to carry; ``settings.input_fd`` must be ``input_fd``.
            secret: The token's secret; goes through the pipe only.
            input_fd: Descriptor the pump inherits; the caller closes its own copy afterwards.
            clock: Monotonic clock, seconds.
        """
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=() if input_fd is None else (input_fd,),
            cwd="/",
        )
        handle = cls(process, settings, clock)
        handle._write(settings.to_line(secret))
        return handle

    def fileno(self) -> int:
        """Descriptor to poll for events; after the end -1."""
        return -1 if self._events.closed else self._events.fileno()

    def poll_events(self) -> List[PumpEvent]:
        """What the pump has said since the last call; updates the attributes. Never blocks."""
        events: List[PumpEvent] = []
        while self.ended is None:
            try:
                data = os.read(self._events.fileno(), READ_SIZE)
            except (BlockingIOError, InterruptedError):
                break
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            if not data or len(self._buffer) > MAX_LINE:
                self._close(PumpEnd(EndReason.DIED, False, f"exit status {self._reap()}"))
                break
            events.extend(self._take(line) for line in lines)
        return events

    def wait_listening(self, deadline: float) -> None:
        """Wait until QEMU may connect (or the import flows).

        Args:
            deadline: Clock value, seconds.

        Raises:
            PumpFailed: PUMP_FAILED with ``facts.reason`` and ``facts.detail``.
        """
        self._wait_until(lambda: self.listening, deadline)

    def wait_standing(self, deadline: float) -> None:
        """Direct transports: wait until both ends are authenticated; :attr:`peer` says who is there.

        Args:
            deadline: Clock value, seconds.

        Raises:
            PumpFailed: PUMP_FAILED with ``facts.reason`` and ``facts.detail``.
        """
        self._wait_until(lambda: self.peer is not None, deadline)

    def failure(self, when: str) -> PumpFailed:
        """The end as an error."""
        end = self.ended or PumpEnd(EndReason.DIED, False)
        what = f"{end.reason.value}{': ' + end.detail if end.detail else ''}"
        return PumpFailed(
            f"The stream {self.name} does not stand: {end.detail}"
            if end.code
            else f"The stream {self.name} ended {when}: {what}",
            side=Side.TARGET,
            object=self.name,
            facts={"reason": end.reason.value, "detail": end.detail, "code": end.code},
        )

    def open(self, listen: Optional[str] = None) -> None:
        """Direct transports: the target's socket is there; :meth:`wait_listening` tells when QEMU may connect.

        Args:
            listen: Path of the UNIX socket for QEMU; None when the settings have it, and for an import.
        """
        self._command("open", {"listen": listen})

    def set_rate(self, rate: Optional[int]) -> None:
        """bytes/s; None is no limit."""
        self._command("rate", rate)

    def set_write_blocking(self) -> None:
        """From now on guest writes wait for the target: the answer rule holds."""
        self._command("write_blocking")

    def arm_switchover(self, seconds: float) -> None:
        """Cut after ``seconds`` unless disarmed: the guest stands still from now on."""
        self._command("arm", seconds)

    def disarm_switchover(self) -> None:
        """The switchover is over."""
        self._command("disarm")

    def cut(self) -> None:
        """Close both ends at once."""
        self._command("cut")

    def finish(self, deadline: float) -> PumpEnd:
        """Wait until the pump has ended by itself; kill it at ``deadline`` (clock value, seconds)."""
        while self.ended is None:
            if self._clock() >= deadline:
                self.kill()
                break
            self._wait(deadline)
        return self.ended or PumpEnd(EndReason.DIED, False)

    def kill(self) -> None:
        """End the process at once: the kernel closes its sockets, QEMU is free. Idempotent."""
        self.process.kill()
        self._close(PumpEnd(EndReason.DIED, False, "killed"))

    def _wait_until(self, reached: Callable[[], bool], deadline: float) -> None:
        while not reached():
            if self.ended is None and self._clock() >= deadline:
                self.kill()
            if self.ended is not None:
                raise self.failure("before its stream stood")
            self._wait(deadline)

    def _wait(self, deadline: float) -> None:
        poller = select.poll()
        poller.register(self._events, select.POLLIN)
        poller.poll(max(0.0, deadline - self._clock()) * 1000)
        self.poll_events()

    def _take(self, line: bytes) -> PumpEvent:
        try:
            event = PumpEvent.parse(line)
        except ValueError:
            event = PumpEvent(EventName.ENDED, {"reason": EndReason.DIED.value, "detail": "it said what is no event"})
        facts = event.facts
        for name in ("sent", "received", "acknowledged", "in_flight", "acknowledged_rate", "busy_s", "announced"):
            if name in facts:
                setattr(self, name, facts[name])
        if event.name is EventName.STANDING:
            self.peer = dict(facts.get("peer") or {})
        elif event.name is EventName.LISTENING:
            self.listening = True
        elif event.name is EventName.DRAINING:
            self.draining = True
        elif event.name is EventName.ENDED:
            reason = EndReason(facts.get("reason", EndReason.DIED.value))
            detail, code = (str(facts.get(name) or "") for name in ("detail", "code"))
            self._close(PumpEnd(reason, facts.get("clean") is True, detail, code))
        return event

    def _command(self, name: str, value: Any = None) -> None:
        """A pump that does not take a command is not to be relied on: it is killed, which cuts."""
        if self.ended is None and not self._write(json.dumps({"command": name, "value": value}).encode() + b"\n"):
            self.poll_events()
            self.kill()

    def _write(self, data: bytes) -> bool:
        try:
            return os.write(self._commands.fileno(), data) == len(data)
        except OSError:
            return False

    def _close(self, end: PumpEnd) -> None:
        if self.ended is None:
            self.ended = end
            self._reap()
            self._commands.close()
            self._events.close()

    def _reap(self) -> Optional[int]:
        try:
            return self.process.wait(REAP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
