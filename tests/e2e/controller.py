# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller: runs playbooks against a lab and gives back what a person and a program would see of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
PLAY_TIMEOUT = 240.0  # seconds; a move of the lab's small guests takes a few
MODULE = "crosscluster.migration.migration"


class PlayFailed(AssertionError):
    """A play ended otherwise than the test needs; the text holds all of its output."""


@dataclass
class Run:
    """One run of a playbook: exit status, output as a person sees it, and the result of every task."""

    status: int
    output: str
    events: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def stats(self) -> dict[str, dict[str, int]]:
        return next((event["hosts"] for event in self.events if event["event"] == "stats"), {})

    @property
    def changed(self) -> int:
        """Changed tasks over all hosts, as the recap shows them."""
        return sum(counts.get("changed", 0) for counts in self.stats.values())

    def results(self, action: str | None = None, host: str | None = None) -> list[dict[str, Any]]:
        """The results of a module's tasks in their order, those of failed tasks included."""
        return [
            event["result"]
            for event in self.events
            if "result" in event and (action in (None, event["action"])) and (host in (None, event["host"]))
        ]

    def result(self, action: str = MODULE, host: str | None = None) -> dict[str, Any]:
        """The last result of that module."""
        found = self.results(action, host)
        if not found:
            raise PlayFailed(f"no task {action} has run:\n{self.output}")
        return found[-1]

    @property
    def codes(self) -> set[str]:
        """Every error code of a failed task: in its result, or in the text of a look-up that failed."""
        failed = [event["result"] for event in self.events if event["event"] in ("failed", "ignored")]
        return set().union(*(_codes(result) | set(CODE.findall(str(result.get("msg", "")))) for result in failed))

    def expect(self, status: int = 0) -> Run:
        """This run, if it ended with that status."""
        if self.status != status:
            raise PlayFailed(f"status {self.status} instead of {status}:\n{self.output[-12000:]}")
        return self


def _codes(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["code"]} if isinstance(value.get("code"), str) else set()
        return own.union(*(_codes(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(_codes(item) for item in value))
    return set()


def read_events(record: Path) -> list[dict[str, Any]]:
    """What the callback plugin of the tests has recorded so far."""
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    return [json.loads(line) for line in lines]


class Play:
    """A playbook that is running in a process group of its own."""

    def __init__(self, process: subprocess.Popen, output: Path, record: Path) -> None:
        self.process = process
        self.started = time.monotonic()
        self._output, self._record = output, record

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self.process.poll()

    def output(self) -> str:
        return self._output.read_text(encoding="utf-8", errors="replace")

    def wait(self, timeout: float = PLAY_TIMEOUT) -> Run:
        """Wait for the end; a play that does not end is killed and told about."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise PlayFailed(f"the play did not end within {timeout:.0f} s:\n{self.output()[-12000:]}") from None
        return Run(status, self.output(), read_events(self._record), time.monotonic() - self.started)

    def has_done(self, action: str) -> bool:
        """Whether a task of that module has ended."""
        return any(event.get("action") == action for event in read_events(self._record))

    def signal(self, number: int, group: bool = False) -> None:
        """Send a signal to ansible-playbook, or to its whole process group as a terminal does."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def kill(self) -> None:
        """The controller is gone at once, with everything it started."""
        for pid in [*_descendants(self.process.pid), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


def _descendants(pid: int) -> list[int]:
    """Every process below one; workers of ansible-core sit in sessions of their own, so the group does not do."""
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [each for child in children for each in [*_descendants(child), child]]


class Controller:
    """Ansible with the lab's inventory. The collection comes from the link tree, or from $COLLECTIONS."""

    def __init__(self, lab: Any, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        self._number = 0
        # Unix socket paths are short; the lab's and pytest's directories are not.
        self._sockets = tempfile.mkdtemp(prefix="cc-ssh-")

    def clusters(self) -> dict[str, Any]:
        """A fresh copy of what the lab's inventory declares as crosscluster_clusters."""
        return yaml.safe_load(self.lab.inventory.read_text(encoding="utf-8"))["all"]["vars"]["crosscluster_clusters"]

    def environment(self, record: Path, **more: str) -> dict[str, str]:
        """What ansible-playbook gets; nothing of the caller's Ansible settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "CROSSCLUSTER_"))}
        tree = os.environ.get("COLLECTIONS", str(ROOT / ".build" / "links"))
        return {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}",
            "ANSIBLE_CONFIG": str(ROOT / "tests" / "e2e" / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": tree,
            "ANSIBLE_HOME": str(self.directory / "ansible-home"),
            "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "e2e" / "callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "record",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": self._sockets,
            "ANSIBLE_NOCOLOR": "1",
            "RECORD_FILE": str(record),
            "no_proxy": self.lab.no_proxy(),
            "PYTHONUNBUFFERED": "1",
            **more,
        }

    def files(self) -> tuple[Path, Path]:
        """A fresh pair of output and record file."""
        self._number += 1
        self.directory.mkdir(parents=True, exist_ok=True)
        return self.directory / f"{self._number:03}.out", self.directory / f"{self._number:03}.jsonl"

    def argv(self, playbook: str, *arguments: str, extra: dict[str, Any] | None = None) -> list[str]:
        """A command line; playbooks of the collection go by their name, others by their path."""
        name = playbook if "/" in playbook else f"crosscluster.migration.{playbook}"
        given = ["-e", json.dumps(extra)] if extra else []
        return ["ansible-playbook", "-i", str(self.lab.inventory), name, *given, *arguments]

    def start(self, playbook: str, *arguments: str, extra: dict[str, Any] | None = None, **environment: str) -> Play:
        """Start a playbook with its output in a file."""
        output, record = self.files()
        with open(output, "wb") as stream:
            process = subprocess.Popen(
                self.argv(playbook, *arguments, extra=extra), cwd=ROOT, env=self.environment(record, **environment),
                stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return Play(process, output, record)

    def run(
        self,
        playbook: str,
        *arguments: str,
        extra: dict[str, Any] | None = None,
        timeout: float = PLAY_TIMEOUT,
        **environment: str,
    ) -> Run:
        """Run a playbook to its end."""
        return self.start(playbook, *arguments, extra=extra, **environment).wait(timeout)
