# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Child processes of the listening end: one per authenticated stream, one per request that takes time. An edge file.

Forked from a process without threads. A child keeps the descriptors it is given and closes all others; it dies with
its parent, so that nothing carries bytes that nobody watches over.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import socket
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

__all__ = ["Errand", "StreamChild", "fork"]

_PR_SET_PDEATHSIG = 1  # prctl(2)
_MAX_MESSAGE = 65536
_MAX_RESULT = 1 << 20
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded before any fork


def fork(keep: Sequence[int], run: Callable[[], None]) -> int:
    """The process id of a child that runs ``run`` with no other descriptors than ``keep`` and the standard three."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _LIBC.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
        _close_all_but(keep)
        gc.disable()  # nothing of the parent's may be finalized here
        run()
        status = 0
    finally:
        os._exit(status)


def _close_all_but(keep: Sequence[int]) -> None:
    kept = {0, 1, 2, *keep}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):  # the one that lists
                os.close(int(name))


class StreamChild:
    """A process that carries one stream.

    Args:
        name: Of the stream.
        plane: What is between the workers.
        now: Clock value, seconds.
        keep: Descriptors of the child.
        run: What it does with its end of the channel.
        opaque: Nothing but QEMU's own TLS may flow in it.
    """

    def __init__(
        self,
        name: str,
        plane: str,
        now: float,
        keep: Sequence[int],
        run: "Callable[[ParentChannel], None]",
        opaque: bool = False,
    ) -> None:
        self.name = name
        self.plane = plane
        self.opaque = opaque
        self.since = now
        self.was_opened = False  # its socket was asked for
        self.end: Mapping[str, Any] = {"reason": "died", "clean": False, "detail": ""}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = ours
        channel = ParentChannel(theirs)
        self.pid = fork([*keep, theirs.fileno()], lambda: _carry(run, channel))
        theirs.close()
        ours.setblocking(False)

    def fileno(self) -> int:
        """The channel, for a poll loop."""
        return self._channel.fileno()

    def hear(self) -> Optional[Dict[str, Any]]:
        """The next thing that it says: a question, or empty for nothing yet; None when it has ended."""
        try:
            data = self._channel.recv(_MAX_MESSAGE)
        except (BlockingIOError, InterruptedError):
            return {}
        except OSError:
            return None
        try:
            message = json.loads(data)
        except ValueError:  # nothing more, or what it never says: it hears strangers, and may have been taken over
            return None
        if not isinstance(message, dict):
            return None
        if isinstance(message.get("end"), dict):
            self.end = {**self.end, **message["end"]}
            return {}
        return message

    def answer(self, message: Mapping[str, Any]) -> None:
        """The answer to a question."""
        with contextlib.suppress(OSError):  # it has died; its channel says so in a moment
            self._channel.send(json.dumps(dict(message)).encode("ascii"))

    def bury(self) -> None:
        """Its end, if it has not come to one, and its resources."""
        self._channel.close()
        _end(self.pid)


class ParentChannel:
    """The child's end of the channel: questions with an answer each, and the last word."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def ask(self, timeout: float, **question: Any) -> Dict[str, Any]:
        """Ask the parent; raises OSError when it does not answer within ``timeout`` seconds."""
        self._socket.settimeout(timeout)
        self._socket.send(json.dumps(question).encode("ascii"))
        answer = json.loads(self._socket.recv(_MAX_MESSAGE) or b"null")
        if not isinstance(answer, dict):
            raise ConnectionResetError("the parent is gone")
        return answer

    def tell_end(self, reason: str, clean: bool, detail: str) -> None:
        """How the stream ended."""
        end = {"reason": reason, "clean": clean, "detail": detail[:1000]}
        with contextlib.suppress(OSError):
            self._socket.send(json.dumps({"end": end}).encode("ascii"))


def _carry(run: Callable[[ParentChannel], None], channel: ParentChannel) -> None:
    try:
        run(channel)
    except Exception as error:  # the last door of this process
        channel.tell_end("died", False, f"{type(error).__name__}: {error}")


class Errand:
    """A request that takes time, in a process group of its own: its commands end with it.

    Args:
        run: Gives the result, JSON.
        deadline: Clock value by which it has ended, seconds.
    """

    def __init__(self, run: Callable[[], Mapping[str, Any]], deadline: float) -> None:
        self.deadline = deadline
        self._result: List[bytes] = []
        self._length = 0
        self._pipe, theirs = os.pipe()
        self.pid = fork([theirs], lambda: _deliver(theirs, run))
        os.close(theirs)
        os.set_blocking(self._pipe, False)

    def fileno(self) -> int:
        """The pipe of the result, for a poll loop."""
        return self._pipe

    def hear(self) -> bool:
        """Read on; True when it has ended."""
        try:
            data = os.read(self._pipe, _MAX_MESSAGE)
        except (BlockingIOError, InterruptedError):
            return False
        self._result.append(data)
        self._length += len(data)
        return not data or self._length > _MAX_RESULT

    def result(self) -> Optional[Dict[str, Any]]:
        """What came of it; None when it ended without a word."""
        try:
            result = json.loads(b"".join(self._result))
        except ValueError:
            return None
        return result if isinstance(result, dict) else None

    def bury(self) -> None:
        """Its end, if it has not come to one, and its resources."""
        os.close(self._pipe)
        _end(self.pid, group=True)


def _deliver(descriptor: int, run: Callable[[], Mapping[str, Any]]) -> None:
    os.setpgid(0, 0)
    data = json.dumps(dict(run())).encode("ascii")
    while data:
        data = data[os.write(descriptor, data) :]


def _end(pid: int, group: bool = False) -> None:
    with contextlib.suppress(ProcessLookupError):
        if group:
            os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
