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
from .stock import Part, belongs, parts, prepared
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
        found = []
        for part in parts(capture):
            with World(prepared(capture, part, wanted), slow) as world:
                found += _run(capture, part, world, slow)
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


def _run(capture: Capture, part: Part, world: World, slow: bool) -> List[Mismatch]:
    bindings = Bindings(world.literals(), world.values())
    session = Session(capture, world, bindings, Comparer(bindings), slow)
    session.facts["started"] = session.now()
    try:
        for event in capture.events:
            if belongs(capture, part, event):
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
    driver = DRIVERS.get((event.channel, event.sent))
    if driver is None:
        session.fail(event, f"channel {event.channel!r}: nothing here knows how to replay it")
        return
    driver(session, event)
