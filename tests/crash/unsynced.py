# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Catches a worker between the write of a journal record and its fsync: strace stops it behind each of its writes.

While it stands there the journal is read: is its last record the wanted one, the worker never gets to its fsync, else
it is let go on. Nothing depends on how fast anybody looks. Only the main thread, which writes the journal, is traced;
the pumps are not.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Iterator

from e2e.sides import journal_records

from .blows import WORKER, JournalWatch, processes

WRITE = re.compile(r"write\(\d+<([^>]*)>")
STOPPED = "--- stopped by SIGSTOP ---"
END_TIMEOUT = 10.0  # seconds until strace has noticed that its process is dead


class Tracer:
    """strace on one process. The process is stopped from the beginning, so that nothing is missed."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._stands = True
        os.kill(pid, signal.SIGSTOP)
        self._strace = subprocess.Popen(
            ["strace", "-y", "-e", "trace=write", "-e", "inject=write:signal=SIGSTOP", "-p", str(pid)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip

    def writes(self, timeout: float) -> Iterator[str]:
        """The file of each write, while the process stands behind it; it goes on when the next is asked for."""
        assert self._strace.stderr is not None
        limit = threading.Timer(timeout, self._strace.kill)
        limit.start()
        try:
            written = ""
            for line in self._strace.stderr:
                match = WRITE.match(line)
                written = match[1] if match else written
                if line.strip() == STOPPED:
                    self._stands = True
                    yield written
                    self._go_on()
        finally:
            limit.cancel()

    def ended(self) -> bool:
        """Whether the process is dead: then strace ends by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._strace.wait(END_TIMEOUT)
            self._stands = False
        return not self._stands

    def close(self) -> None:
        """Nothing is traced and nobody stands still any more."""
        if self._strace.poll() is None:
            self._strace.terminate()
            self._strace.wait()
        if self._stands:
            self._go_on()
        if self._strace.stderr is not None:
            self._strace.stderr.close()

    def _go_on(self) -> None:
        self._stands = False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)


def attach(scene: Any, watch: JournalWatch, deadline: float) -> Tracer | None:
    """A tracer of the process that will write the case's record; None when the play ended before there was one.

    A worker is left alone until its first record: nothing needs it before, and its start under strace is slow.
    """
    kind = scene.case.moment.kind
    words = f"{WORKER} {'start' if kind == 'opened' else 'run'} "
    while time.monotonic() < deadline and scene.play.poll() is None:
        if kind in ("opened", "worker") or any(record["kind"] == "worker" for record in watch.records()):
            for pid in processes(scene.source_host, words):
                with contextlib.suppress(ProcessLookupError):
                    return Tracer(pid)
        time.sleep(0.002)
    return None


def wait_unsynced(scene: Any, watch: JournalWatch, timeout: float) -> bool:
    """Wait until the writer of the case's record stands between its write and its fsync; False if it never came."""
    deadline = time.monotonic() + timeout
    scene.tracer = attach(scene, watch, deadline)
    if scene.tracer is None:
        return False
    for name in scene.tracer.writes(deadline - time.monotonic()):
        records = _records(scene, watch, name)
        if records and scene.case.moment.matches(records[-1]):
            scene.supervisors = [scene.tracer.pid]
            return True
    return False


def _records(scene: Any, watch: JournalWatch, name: str) -> list[dict[str, Any]]:
    """The journal, when it is what was written; the one with the first record gets its name only when it is whole."""
    if name.endswith("/journal.new"):
        return journal_records(Path(scene.source_host.path(name)))
    return watch.records() if name.endswith("/journal") else []
