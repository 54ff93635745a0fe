# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Starts the listening end of a migration and ends it; the worker's words ``incoming-start`` and ``incoming``.

An edge file. ``incoming-start`` reads one JSON object with settings and key from stdin, takes away what an earlier one
of this id left, detaches the new one and waits until it answers or says why not; it prints one JSON object.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List, Mapping, Optional

from ..errors import CrossclusterError
from ..transport.firewall import Firewall
from ..transport.incoming_errors import IncomingDiffers, IncomingFailed
from . import incoming_places, places
from .background import has_systemd, log_to, start_session, start_unit
from .client import Client
from .errors import Recorded, WorkerUnreachable
from .incoming import Incoming
from .incoming_settings import IncomingSettings, is_key

__all__ = ["end", "main", "running", "start"]

_START_TIMEOUT = 60.0  # seconds until a new one answers; a Python has to start, and an nft
_LOG_BYTES = 1 << 18  # of each of the two log files
_LOG = logging.getLogger(__name__)


def running(migration_id: str) -> Optional[Dict[str, Any]]:
    """What the one that listens says of itself; None when there is none."""
    try:
        with Client(incoming_places.socket_path(migration_id), timeout=5.0) as client:
            return client.call("status")
    except WorkerUnreachable:
        return None


def same(status: Mapping[str, Any], settings: IncomingSettings, key: str) -> Dict[str, Any]:
    """The status of one that has just these settings.

    Raises:
        IncomingDiffers: it has others.
    """
    if status.get("digest") != settings.digest(key):
        raise IncomingDiffers(
            "for this migration something listens already, with other settings",
            object=settings.migration_id,
            remedy="End it first (state: absent), or use the settings of before",
        )
    return dict(status)


def start(settings: IncomingSettings, key: str) -> Dict[str, Any]:
    """Have one that listens: a new one, or the one of before when it has the same settings.

    Raises:
        CrossclusterError: there is none; the code says why.
    """
    status = running(settings.migration_id)
    if status is not None:
        return dict(same(status, settings, key), changed=False)
    holder = incoming_places.Holder(settings.migration_id)
    holder.end()  # it may hang, or may have been killed: whatever it left must not be taken for ours
    incoming_places.clean(settings.migration_id, Firewall())
    holder.release()
    incoming_places.write_order(settings.migration_id, {"settings": settings.to_dict(), "key": key})
    is_alive = _detach(settings.migration_id)
    return dict(same(_await_answer(settings.migration_id, is_alive), settings, key), changed=True)


def end(migration_id: str) -> bool:
    """Have none that listens, and nothing of it; whether there was something.

    Raises:
        IncomingFailed: it cannot be ended, or its rule stays.
    """
    firewall = Firewall()
    if not incoming_places.traces(migration_id, firewall):
        return False
    holder = incoming_places.Holder(migration_id)
    holder.end()
    incoming_places.clean(migration_id, firewall)
    holder.release()
    return True


def _await_answer(migration_id: str, is_alive: Callable[[], bool]) -> Dict[str, Any]:
    deadline = time.monotonic() + _START_TIMEOUT
    lives = True
    while lives and time.monotonic() < deadline:
        lives = is_alive()  # before the looks: its last words are older than its end
        status = running(migration_id)
        if status is not None:
            return status
        failed = incoming_places.read_once(migration_id, "failed")
        if failed is not None:
            incoming_places.clean(migration_id, Firewall())
            raise Recorded.parse(failed)
        time.sleep(0.05)
    end(migration_id)
    raise IncomingFailed(
        f"the listening end did not answer in {_START_TIMEOUT:g} s" if lives else "the listening end died at its start",
        object=migration_id,
        remedy="See " + incoming_places.log_path(migration_id),
    )


def _detach(migration_id: str) -> Callable[[], bool]:
    """A transient unit where systemd runs, else a session of its own; nothing starts it again.

    Returns:
        Whether it lives still.
    """
    program = [sys.executable, "-I", "-B", sys.argv[0], "incoming", migration_id]
    if has_systemd():
        unit = f"crosscluster-incoming-{migration_id}.service"
        start_unit(unit, (), program)
        return lambda: _is_active(unit)
    process = start_session(program)
    return lambda: process.poll() is None


def _is_active(unit: str) -> bool:
    asked = subprocess.run(["systemctl", "is-active", "--quiet", unit], timeout=30, check=False)
    return asked.returncode == 0


def _start() -> int:
    """``incoming-start``: the order from stdin, the answer to stdout."""
    order = json.load(sys.stdin)
    try:
        key = str(order.get("key") or "")
        settings = IncomingSettings.parse(order["settings"])
        answer = {"data": start(settings, key if is_key(key) else "")}
    except CrossclusterError as error:
        answer = {"error": error.to_dict()}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _serve(migration_id: str) -> int:
    """``incoming``: the process itself."""
    log_to(incoming_places.log_path(migration_id), _LOG_BYTES)
    holder = incoming_places.Holder(migration_id)
    if not holder.take():
        _LOG.error("another one listens for this migration")
        return 0
    try:
        incoming = _prepared(migration_id)
        if incoming is None:
            return 1
        signal.signal(signal.SIGTERM, lambda *_what: incoming.stop("SIGTERM"))
        incoming.run()
        return 0
    except Exception:  # the last door: the log must have it
        _LOG.exception("it died")
        return 1
    finally:
        try:
            incoming_places.clean(migration_id, Firewall(), keep_failure=True)
        except CrossclusterError as error:
            _LOG.error("%s", error)


def _prepared(migration_id: str) -> Optional[Incoming]:
    """One that can listen; without it the starter is told why."""
    try:
        order = incoming_places.read_once(migration_id, "order")
        if order is None:
            raise IncomingFailed("nobody said what to do", object=migration_id)
        return Incoming(IncomingSettings.parse(order["settings"]), str(order["key"]))
    except CrossclusterError as error:
        _LOG.error("it does not listen: %s", error)
        incoming_places.write_failure(migration_id, error.to_dict())
    except Exception as error:  # a defect of ours: the log has where, the user that
        _LOG.exception("it does not listen")
        failure = IncomingFailed(f"it died at its start: {error}", object=migration_id)
        incoming_places.write_failure(migration_id, failure.to_dict())
    return None


def main(arguments: Optional[List[str]] = None) -> int:
    """The door of ``worker.pyz incoming-start`` and ``worker.pyz incoming ID``."""
    words = sys.argv[1:] if arguments is None else arguments
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if words == ["incoming-start"]:
        return _start()
    if len(words) == 2 and words[0] == "incoming":
        return _serve(places.checked(words[1]))
    sys.stderr.write("usage: worker.pyz incoming-start | incoming ID\n")
    return 2
