# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Proxmox VE this host plays: generation, event loop of the front end, clock.

One file per host, /etc/lab/personality.json, read afresh at each use so that a test may rewrite it:
``{"personality": "hardened", "event_loop": "perl", "time_scale": 1.0, "long_scale": 1.0,
"workers": 3, "statd": 2.0, "calm": 0.0}``.
"""

from __future__ import annotations

import enum
import json
import os
import time
from dataclasses import dataclass

__all__ = ["EventLoop", "Generation", "Personality", "current", "pause", "scaled"]

PATH = "/etc/lab/personality.json"


class Generation(enum.Enum):
    """Behaviours of the tunnel worker (mtunnel-protocol 0.2 and 6.2, DESIGN 8)."""

    CLASSIC = "classic"
    TRANSITIONAL = "transitional"
    HARDENED = "hardened"
    SEED = "seed"
    INSECURE = "insecure"

    @property
    def insecure_remote(self) -> bool:
        """Announces the capability insecure-remote and opens plain TCP listeners on request."""
        return self in (Generation.SEED, Generation.INSECURE)

    @property
    def validates_start(self) -> bool:
        """Has a schema for start and compares NBD volumes with earlier disk replies."""
        return self not in (Generation.CLASSIC, Generation.SEED)

    @property
    def refuses_unknown(self) -> bool:
        """Refuses unknown top-level keys of a command that has a schema."""
        return self in (Generation.HARDENED, Generation.INSECURE)

    @property
    def refuses_nested(self) -> bool:
        """Refuses unknown keys inside start_params and migrate_opts as well."""
        return self in (Generation.HARDENED, Generation.INSECURE)


class EventLoop(enum.Enum):
    """What an exception in a callback does to a front-end worker (mtunnel-protocol 3.4)."""

    PERL = "perl"  # the worker process ends 5 s later and takes its connections along
    LIBEV = "libev"  # only logged: this connection stalls for ever


@dataclass(frozen=True)
class Personality:
    """The host's character."""

    generation: Generation = Generation.HARDENED
    event_loop: EventLoop = EventLoop.PERL
    time_scale: float = 1.0
    long_scale: float = 1.0
    workers: int = 3
    statd: float = 2.0
    """seconds between the reports of the status daemon (the real one takes about 10), 0 = there is none"""
    calm: float = 0.0
    """seconds at least between two looks for faults and two statistics of the front end: they cost an emulated
    processor more than the tunnels do"""


def current(path: str = "") -> Personality:
    """The personality in force now; the defaults when there is no file."""
    try:
        with open(path or os.environ.get("LAB_PERSONALITY", PATH), encoding="utf-8") as stream:
            data = json.load(stream)
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        data = {}
    scale = float(os.environ.get("LAB_TIME_SCALE", data.get("time_scale", 1.0)))
    return Personality(
        Generation(os.environ.get("PERSONALITY", data.get("personality", "hardened"))),
        EventLoop(data.get("event_loop", "perl")),
        scale,
        float(os.environ.get("LAB_LONG_SCALE", data.get("long_scale", 1.0))),
        int(data.get("workers", 3)),
        float(data.get("statd", 2.0)),
        float(data.get("calm", 0.0)),
    )


def scaled(seconds: float) -> float:
    """A delay of the protocol on this host's clock; waits above 60 s have a scale of their own."""
    here = current()
    return seconds * here.time_scale * (here.long_scale if seconds > 60 else 1.0)


def pause(seconds: float) -> None:
    """Sleep a delay of the protocol."""
    time.sleep(scaled(seconds))
