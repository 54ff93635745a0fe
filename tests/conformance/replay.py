# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replays one recording against a lab and says where the lab deviates."""

from __future__ import annotations

import concurrent.futures
import fnmatch
import json
import re
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from .bind import Bindings
from .capture import Capture, Event
from .drivers import cli, control, handshake, http, notes, qmp
from .normalise import Comparer
from .preconditions import needs
from .session import Fatal, Mismatch, Session
from .world import World

__all__ = ["Outcome", "replay"]

_HERE = Path(__file__).resolve().parent
Driver = Callable[[Session, Event], None]

DRIVERS: Dict[Tuple[str, bool], Driver] = {
    ("http", True): http.send,
    ("http", False): http.receive,
    ("ws-handshake", True): handshake.send,
    ("ws-handshake", False): handshake.receive,
    ("control", True): control.send,
    ("control", False): control.receive,
    ("qmp", True): qmp.send,
    ("qmp", False): qmp.receive,
    ("note", False): notes.handle,
    ("cli", False): cli.run,
}


@dataclass
class Outcome:
    """What became of one file."""

    name: str
    mismatches: List[Mismatch] = field(default_factory=list)
    excused: List[Tuple[Mismatch, str]] = field(default_factory=list)
    elapsed: float = 0.0
    personality: str = ""

    @property
    def passed(self) -> bool:
        return not self.mismatches


def deviations(name: str) -> List[Dict[str, Any]]:
    """Known deviations of this file, each with its reason."""
    table = json.loads((_HERE / "deviations.json").read_text(encoding="utf-8"))
    return [entry for entry in table["deviations"] if fnmatch.fnmatch(name, entry["file"])]


def replay(path: Path, slow: bool = False) -> Outcome:
    started = time.monotonic()
    outcome = Outcome(path.stem)
    try:
        capture = Capture.read(path)
        wanted = needs(capture)
        outcome.personality = wanted.personality["personality"]
        with World(wanted, slow) as world:
            found = _run(capture, world, slow)
    except Exception as error:
        found = [Mismatch(0, "setup", f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-4)}")]
    _judge(outcome, found)
    outcome.elapsed = time.monotonic() - started
    return outcome


def _judge(outcome: Outcome, found: List[Mismatch]) -> None:
    excuses = deviations(outcome.name)
    for mismatch in found:
        reason = next((entry["reason"] for entry in excuses if re.search(entry["match"], str(mismatch))), None)
        if reason is None:
            outcome.mismatches.append(mismatch)
        else:
            outcome.excused.append((mismatch, reason))


def _run(capture: Capture, world: World, slow: bool) -> List[Mismatch]:
    bindings = Bindings(world.literals(), world.values())
    session = Session(capture, world, bindings, Comparer(bindings), slow)
    session.facts["started"] = session.now()
    # where the stock source's control channel was recorded, the replay speaks in its place
    recorded_source = any(event.body["url"].endswith("/remote_migrate") for event in capture.of("http", True))
    session.facts["acting as source"] = recorded_source and any(True for _ in capture.of("control"))
    try:
        for event in capture.events:
            _one(session, event)
    except Fatal as error:
        session.mismatches.append(Mismatch(event.index + 1, "stopped", str(error)))
    except (OSError, concurrent.futures.TimeoutError, TimeoutError, RuntimeError, KeyError, ValueError) as error:
        text = f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-5)}"
        session.mismatches.append(Mismatch(event.index + 1, "stopped", text))
    finally:
        session.close()
    return session.mismatches


def _one(session: Session, event: Event) -> None:
    if session.facts["acting as source"] and _of_the_stock_source(event):
        if not session.facts.setdefault("told", False):
            session.facts["told"] = True
            session.fail(event, "the stock source's own task is not replayed")
        return
    driver = DRIVERS.get((event.channel, event.sent))
    if driver is None:
        session.fail(event, f"channel {event.channel!r}: nothing here knows how to replay it")
        return
    driver(session, event)


def _of_the_stock_source(event: Event) -> bool:
    """What only the source's own task can do; deviations.json says why it is not replayed here."""
    return event.channel == "http" or event.kind in ("task-log", "task-exit")
