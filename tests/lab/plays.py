# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs ansible-playbook against a lab and reads what it returned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from .instance import CHECKOUT, Lab

__all__ = ["INSTALLED", "Play", "environment", "playbook_argv", "run_playbook"]

INSTALLED = CHECKOUT / "build" / "collections"
CALLBACKS = Path(__file__).resolve().with_name("callback")


@dataclass
class Play:
    """A finished ansible-playbook: exit status, seconds, and the JSON lines of the callback lab_results."""

    status: int
    seconds: float
    records: list[dict] = field(default_factory=list)
    output: str = ""

    @property
    def changed(self) -> int:
        """Changed tasks over all hosts, -1 if the play never got to its recap."""
        return next((record["changed"] for record in self.records if record["kind"] == "stats"), -1)

    def results(self, action: str) -> list[dict]:
        """Results of a module's tasks, failed ones included, oldest first."""
        return [
            record["result"] for record in self.records if record.get("action") == "crosscluster.migration." + action
        ]


def ansible_bin() -> Path:
    """The directory with ansible-playbook: beside this Python, or the checkout's virtual environment."""
    for place in (Path(sys.executable).parent, CHECKOUT / ".venv" / "bin"):
        if (place / "ansible-playbook").exists():
            return place
    raise FileNotFoundError("ansible-playbook: run `make venv` first")


def environment(lab: Lab, results: Path, home: Path, collections: Path = INSTALLED) -> dict[str, str]:
    """Environment of an ansible-playbook that leaves nothing outside `home` and asks no proxy for the lab."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    proxies = {
        name: lab.no_proxy() + ("," + os.environ[name] if os.environ.get(name) else "")
        for name in ("no_proxy", "NO_PROXY")
    }
    return {
        **found,
        **proxies,
        "LC_ALL": "C.UTF-8",
        "PATH": "%s:%s" % (ansible_bin(), os.environ.get("PATH", "")),
        "ANSIBLE_HOME": str(home),
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
        "ANSIBLE_CALLBACKS_ENABLED": "lab_results",
        "ANSIBLE_INVENTORY_UNPARSED_FAILED": "1",
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_GATHERING": "explicit",
        "ANSIBLE_NOCOWS": "1",
        "ANSIBLE_DEPRECATION_WARNINGS": "0",
        "LAB_RESULTS": str(results),
    }


def playbook_argv(lab: Lab, name: str, variables: dict, *options: str, collections: Path = INSTALLED) -> list[str]:
    """The command line of one of the collection's playbooks."""
    path = collections / "ansible_collections" / "crosscluster" / "migration" / "playbooks" / (name + ".yml")
    return [
        str(ansible_bin() / "ansible-playbook"),
        "-i",
        str(lab.inventory),
        str(path),
        *(
            word
            for key, value in variables.items()
            for word in ("-e", "%s=%s" % (key, value) if isinstance(value, str) else json.dumps({key: value}))
        ),
        *options,
    ]


def run_playbook(
    lab: Lab,
    name: str,
    variables: dict,
    *options: str,
    show: bool = False,
    collections: Path = INSTALLED,
    timeout: float | None = None,
) -> Play:
    """Run a playbook of the collection to its end; show lets its output through, else it is kept in `output`."""
    work = lab.directory / "plays"
    work.mkdir(exist_ok=True)
    results = work / ("%d.jsonl" % time.monotonic_ns())
    # No play outlives the process that wanted it, however that one ends.
    argv = [
        "setpriv",
        "--pdeathsig",
        "TERM",
        "--",
        *playbook_argv(lab, name, variables, *options, collections=collections),
    ]
    started = time.monotonic()
    done = subprocess.run(
        argv,
        env=environment(lab, results, lab.directory / "ansible", collections),
        cwd=work,
        stdin=subprocess.DEVNULL,
        stdout=None if show else subprocess.PIPE,
        stderr=None if show else subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout,
    )
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    records = [json.loads(line) for line in lines]
    return Play(done.returncode, time.monotonic() - started, records, done.stdout or "")
