# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads one recorded conversation. The format is documented in captures/README.md."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

__all__ = ["Capture", "Event"]


@dataclass(frozen=True)
class Event:
    """One line of a file. ``at`` in seconds since the first recorded event, ``index`` counts lines from 0."""

    index: int
    at: float
    channel: str
    direction: Optional[str]
    connection: Optional[str]
    body: Dict[str, Any]
    approximate: bool = False
    truncated: bool = False
    derived: bool = False
    extra: Dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return str(self.body.get("kind", ""))

    @property
    def sent(self) -> bool:
        return self.direction == "C>S"

    def __str__(self) -> str:
        where = " ".join(part for part in (self.channel, self.direction, self.connection, self.kind) if part)
        return f"line {self.index + 1} (t={self.at}) {where}"


_FRAME = ("t", "channel", "dir", "conn", "body", "approx_t", "truncated", "derived")


def _event(index: int, line: Dict[str, Any]) -> Event:
    extra = {key: value for key, value in line.items() if key not in _FRAME}
    # node commands carry their fields at the top level and have no body
    body = line.get("body", extra)
    if not isinstance(body, dict):
        body = {"value": body}
    return Event(
        index,
        float(line["t"]),
        line["channel"],
        line.get("dir"),
        line.get("conn"),
        body,
        bool(line.get("approx_t")),
        bool(line.get("truncated")),
        bool(line.get("derived")),
        extra,
    )


@dataclass(frozen=True)
class Capture:
    """A whole file: its scenario note and the events after it, in recorded order."""

    path: Path
    scenario: Dict[str, Any]
    events: List[Event]

    @classmethod
    def read(cls, path: Path) -> "Capture":
        lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines() if text.strip()]
        events = [_event(index, line) for index, line in enumerate(lines)]
        first = events[0]
        if first.channel != "note" or first.kind != "scenario":
            raise ValueError(f"{path.name}: the first line is not a scenario note")
        return cls(path, first.body, events[1:])

    @property
    def name(self) -> str:
        return self.path.stem

    def of(self, channel: str, sent: Optional[bool] = None) -> Iterator[Event]:
        for event in self.events:
            if event.channel == channel and (sent is None or event.sent == sent):
                yield event

    def notes(self, kind: str) -> Iterator[Event]:
        return (event for event in self.of("note") if event.kind == kind)

    def after(self, event: Event) -> Iterator[Event]:
        return (other for other in self.events if other.index > event.index)

    def before(self, event: Event) -> Optional[Event]:
        earlier = [other for other in self.events if other.index < event.index]
        return earlier[-1] if earlier else None

    def reply_to(self, event: Event) -> Optional[Event]:
        """The answer on the same connection that belongs to a request, by order."""
        waiting = 0
        for other in self.events:
            if (other.channel, other.connection) != (event.channel, event.connection) or other.direction is None:
                continue
            if other.sent and other.index <= event.index:
                waiting += 1
            elif not other.sent:
                waiting -= 1
                if other.index > event.index and waiting <= 0:
                    return other
        return None

    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")
