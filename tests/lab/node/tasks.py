# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks: ids, log files, a forked worker each, the status from the last log line (mtunnel-protocol 2.4, pve-cli 3)."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from dataclasses import dataclass
from typing import Callable, Dict, List, NoReturn, Optional, Sequence, Tuple

from .base import Die, Node, complain

__all__ = ["Interrupted", "Tasks", "Upid", "process_start", "status_of_line"]

LOG_DIRECTORY = "/var/log/pve/tasks"
UPID = re.compile(
    r"UPID:([a-zA-Z0-9][a-zA-Z0-9\-]*):([0-9A-F]{8}):([0-9A-F]{8,9}):([0-9A-F]{8}):([^:\s]+):([^:\s]*):([^:\s]+):"
)
DELETE_SECONDS = 5


class Interrupted(Die):
    """A signal that asked the task to end."""

    def __init__(self) -> None:
        super().__init__("received interrupt")


@dataclass(frozen=True)
class Upid:
    """A task id; pstart is the kernel's start time of the process in ticks since boot, starttime is Unix time."""

    node: str
    pid: int
    pstart: int
    starttime: int
    type: str
    id: str
    user: str

    @classmethod
    def parse(cls, text: str) -> "Upid":
        """Read a task id; Die when it is none."""
        match = UPID.fullmatch(text)
        if not match:
            raise Die(f"unable to parse worker upid '{text}'")
        return cls(match[1], int(match[2], 16), int(match[3], 16), int(match[4], 16), match[5], match[6], match[7])

    def __str__(self) -> str:
        start = f"{self.pid:08X}:{self.pstart:08X}:{self.starttime:08X}"
        return f"UPID:{self.node}:{start}:{self.type}:{self.id}:{self.user}:"

    @property
    def file(self) -> str:
        """The log file."""
        return f"{LOG_DIRECTORY}/{self.starttime & 15:X}/{self}"

    def alive(self) -> bool:
        """Whether the process of this id still runs (a zombie does not)."""
        return process_start(self.pid) == self.pstart


def process_start(pid: int) -> Optional[int]:
    """Start time of a process in ticks since boot; None when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stream:
            rest = stream.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if rest[0] in "ZX" else int(rest[19])


def status_of_line(line: str) -> str:
    """Exit status of a task from its last log line."""
    if line == "TASK OK":
        return "OK"
    match = re.fullmatch(r"TASK ERROR: (.+)", line)
    if match:
        return match[1]
    match = re.fullmatch(r"TASK (WARNINGS: \d+)", line)
    return match[1] if match else "unexpected status"


class Tasks:
    """Tasks of one node."""

    def __init__(self, node: Node) -> None:
        self.node = node

    # starting

    def start(self, kind: str, ident: str, user: str, work: Callable[[], None], keep: Sequence[int] = ()) -> str:
        """Fork a worker that runs work() with stdout and stderr in the log; returns when the log file exists.

        All file descriptors above 2 except keep are closed in the worker. work() ends normally for TASK OK, raises Die
        for TASK ERROR, and os._exit() or a signal leaves the log as it is (unexpected status).
        """
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                if os.fork() == 0:
                    self._worker(kind, ident, user, work, writer, keep)
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader) as stream:
            upid = stream.read()
        if not upid:
            raise Die("unable to start worker process")
        return upid

    def _worker(
        self, kind: str, ident: str, user: str, work: Callable[[], None], writer: int, keep: Sequence[int]
    ) -> NoReturn:
        try:
            os.setpgid(0, 0)
            _default_signals()
            upid = self._new(kind, ident, user)
            log = self._open_log(upid)
            os.write(writer, str(upid).encode())
            _only_descriptors([log, *keep])
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            _finish(work)
        finally:
            os._exit(0)

    def run(self, kind: str, ident: str, user: str, work: Callable[[], None]) -> str:
        """The command line's form: synchronous, output to the terminal (stdout) and to the log; Die passes through.

        The real command forks a worker and copies its log to stdout; stderr lines therefore appear on stdout too.
        """
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                os.dup2(writer, 1)
                os.dup2(writer, 2)
                os.close(writer)
                _run_silent(self, kind, ident, user, work)
            finally:
                os._exit(1)
        os.close(writer)
        last = _copy_to_stdout(reader)
        os.waitpid(child, 0)
        upid, _, outcome = last.partition(" ")
        if outcome.startswith("ERROR "):
            code, _, text = outcome[len("ERROR ") :].partition(" ")
            raise TaskFailed(text.replace("\\n", "\n"), int(code), upid)
        return upid

    def _new(self, kind: str, ident: str, user: str) -> Upid:
        pid = os.getpid()
        return Upid(self.node.name, pid, process_start(pid) or 0, int(time.time()), kind, ident, user)

    def _open_log(self, upid: Upid) -> int:
        path = self.node.path(upid.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)

    # reading

    def status(self, upid: str) -> Dict[str, object]:
        """Answer of GET .../tasks/<upid>/status."""
        task = Upid.parse(upid)
        if not self.node.path(task.file).exists():
            raise Die("no such task")
        answer: Dict[str, object] = {
            "upid": upid,
            "node": task.node,
            "pid": task.pid,
            "pstart": task.pstart,
            "starttime": task.starttime,
            "type": task.type,
            "id": task.id,
            "user": task.user,
            "status": "running",
        }
        if "!" in task.user:
            answer["user"], answer["tokenid"] = task.user.split("!", 1)
        if not task.alive():
            answer["status"] = "stopped"
            answer["exitstatus"] = status_of_line(self._last_line(task))
        return answer

    def _lines(self, task: Upid) -> List[str]:
        try:
            text = self.node.path(task.file).read_text("utf-8", "replace")
        except FileNotFoundError:
            return []
        lines = text.split("\n")
        return lines[:-1] if lines and lines[-1] == "" else lines

    def _last_line(self, task: Upid) -> str:
        lines = self._lines(task)
        return lines[-1].rstrip("\r") if lines else ""

    def log(self, upid: str, start: int = 0, limit: int = 50) -> Tuple[List[str], int]:
        """Log lines from an offset (limit 0 = all) and their total."""
        lines = self._lines(Upid.parse(upid))
        if not lines:
            return ["no content"], 1
        return lines[start : start + limit] if limit else lines[start:], len(lines)

    def list(self, vmid: Optional[int] = None) -> List[Dict[str, object]]:
        """Tasks of the node, newest first, as GET /nodes/x/tasks?source=all."""
        found = []
        for path in self.node.path(LOG_DIRECTORY).glob("[0-9A-F]/UPID:*"):
            try:
                task = Upid.parse(path.name)
            except Die:
                continue
            if vmid is None or task.id.split("@")[0] == str(vmid):
                found.append((task, path))
        found.sort(key=lambda entry: (entry[0].starttime, entry[0].pstart), reverse=True)
        return [self._entry(task, path.stat().st_mtime) for task, path in found]

    def _entry(self, task: Upid, changed: float) -> Dict[str, object]:
        entry = {key: value for key, value in self.status(str(task)).items() if key not in ("status", "exitstatus")}
        if not task.alive():
            entry["endtime"] = int(changed)
            entry["status"] = status_of_line(self._last_line(task))
        return entry

    # ending

    def delete(self, upid: str) -> None:
        """SIGTERM to the worker's process group, up to 5 s, then SIGKILL (checked once a second, as the real one)."""
        task = Upid.parse(upid)
        if not task.alive():
            return
        _signal_group(task.pid, signal.SIGTERM)
        for _ in range(DELETE_SECONDS):
            time.sleep(self.node.seconds(1))
            if not task.alive():
                return
        _signal_group(task.pid, signal.SIGKILL)


class TaskFailed(Die):
    """A synchronous task that ended with an error; upid names it."""

    def __init__(self, text: str, code: int, upid: str) -> None:
        super().__init__(text, code)
        self.upid = upid


def _signal_group(pid: int, number: int) -> None:
    for target in (-pid, pid):
        try:
            os.kill(target, number)
            return
        except ProcessLookupError:
            continue


def _only_descriptors(keep: Sequence[int]) -> None:
    limit = 3
    for descriptor in sorted(set(keep)):
        if descriptor >= limit:
            os.closerange(limit, descriptor)
            limit = descriptor + 1
    os.closerange(limit, 65536)


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted


def _default_signals() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, _interrupt)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _finish(work: Callable[[], None]) -> None:
    try:
        work()
    except Die as error:
        complain(f"TASK ERROR: {error.text}")
    except Exception as error:  # a defect of the lab: leave the trace where a reader of the log finds it
        import traceback

        complain(traceback.format_exc().rstrip())
        complain(f"TASK ERROR: {error!r}")
    else:
        complain("TASK OK")


def _run_silent(tasks: Tasks, kind: str, ident: str, user: str, work: Callable[[], None]) -> NoReturn:
    upid = tasks._new(kind, ident, user)
    log = os.fdopen(tasks._open_log(upid), "ab", buffering=0)
    outcome, ending = "OK", "TASK OK"
    reader, writer = os.pipe()
    copier = os.fork()
    if copier == 0:  # log and terminal get the same bytes; fork keeps the order of stdout and stderr
        os.close(writer)
        while True:
            data = os.read(reader, 65536)
            if not data:
                os._exit(0)
            log.write(data)
            os.write(1, data)
    terminal = os.dup(1)
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    os.close(writer)
    os.close(reader)
    try:
        work()
    except Die as error:
        outcome, ending = f"ERROR {error.code} " + error.text.replace("\n", "\\n"), f"TASK ERROR: {error.text}"
    sys.stdout.flush()
    os.dup2(terminal, 1)
    os.dup2(terminal, 2)
    os.waitpid(copier, 0)
    log.write((ending + "\n").encode())
    os.write(terminal, f"\0{upid} {outcome}".encode())
    os._exit(0)


def _copy_to_stdout(reader: int) -> str:
    """Copy to stdout up to the NUL; what follows it is the outcome."""
    outcome = b""
    ended = False
    while True:
        data = os.read(reader, 65536)
        if not data:
            os.close(reader)
            return outcome.decode()
        if not ended:
            head, sign, tail = data.partition(b"\0")
            if head:
                os.write(1, head)
            ended = bool(sign)
            data = tail
        if ended:
            outcome += data
