# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What the module ``incoming`` does on the target node: have a listening end, or have none. An edge file."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Dict, Mapping, Optional

from ..transport.direct_guard import DirectLimits
from ..transport.firewall import Firewall
from ..transport.incoming_errors import FirewallMissing, IncomingFailed, IncomingInvalid
from ..transport.listener import Listener, device_with
from . import incoming_places, incoming_start, package, places
from .errors import Recorded
from .incoming_checks import examine
from .incoming_settings import IncomingSettings, is_key
from .spec import parse_duration

__all__ = ["absent", "listening"]

_START_TIMEOUT = 120.0  # seconds for `worker.pyz incoming-start`, which waits for the new process
_SETTINGS = ("migration_id", "transports", "address", "ports", "peer_address", "peer_name", "domain", "limits")


def listening(parameters: Mapping[str, Any], check_mode: bool = False) -> Dict[str, Any]:
    """Somebody listens for this migration with these settings; in check mode, whether somebody could.

    Raises:
        CrossclusterError: nobody can; the code says why.
    """
    key = _key(parameters)
    raw = {name: parameters.get(name) for name in _SETTINGS}
    settings = IncomingSettings.parse(dict(raw, lifetime=parse_duration(parameters["lifetime"], "lifetime")))
    DirectLimits.parse(settings.limits)
    was = incoming_start.running(settings.migration_id)
    if was is not None:
        return _result(was, incoming_start.same(was, settings, key))
    return _result(None, _look(settings, key) if check_mode else _start(settings, key))


def absent(migration_id: str, check_mode: bool = False) -> Dict[str, Any]:
    """Nobody listens for this migration, and nothing of it is left here."""
    places.checked(migration_id)
    was = incoming_start.running(migration_id)
    if check_mode:
        changed = incoming_places.traces(migration_id, Firewall())
    else:
        changed = incoming_start.end(migration_id)
    return {"changed": changed, "migration_id": migration_id, "diff": _diff(migration_id, was, None)}


def _key(parameters: Mapping[str, Any]) -> str:
    key = parameters.get("key") or ""
    if key and not is_key(key):
        raise IncomingInvalid("option key must be 64 hexadecimal digits", object="key", remedy="Make it at random")
    return str(key)


def _look(settings: IncomingSettings, key: str) -> Dict[str, Any]:
    """What would come of it: nothing is opened, a port is taken for a moment only."""
    firewall_error = None
    try:
        Firewall().check()
    except FirewallMissing as error:
        firewall_error = error
    prospect = examine(settings, key, firewall_error)
    prospect.require()
    first, last = settings.ports
    listener = Listener(settings.address, range(first, last + 1), device_with(settings.address))
    listener.close()
    return dict(
        settings.to_dict(),
        port=listener.port,
        own_name=prospect.own_name,
        planes=list(prospect.planes),
        rejected=prospect.rejected_as_dict(),
        firewall={"installed": firewall_error is None, "counters": {}},
        warnings=list(prospect.warnings),
    )


def _start(settings: IncomingSettings, key: str) -> Dict[str, Any]:
    """Run ``worker.pyz incoming-start``: the key goes through its stdin."""
    _digest, program = package.install()
    done = subprocess.run(
        [sys.executable, "-I", "-B", program, "incoming-start"],
        input=json.dumps({"settings": settings.to_dict(), "key": key}).encode("ascii"),
        capture_output=True,
        timeout=_START_TIMEOUT,
        cwd="/",
        check=False,
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise IncomingFailed(
            "the listening end did not start",
            object=settings.migration_id,
            facts={"stderr": done.stderr[-300:].decode("utf-8", "replace")},
        ) from error
    if "error" in answer:
        raise Recorded.parse(answer["error"])
    return dict(answer["data"])


_SHOWN = (
    "migration_id", "address", "port", "peer_address", "peer_name", "own_name", "planes", "rejected", "firewall",
    "warnings",
)  # fmt: skip


def _result(was: Optional[Mapping[str, Any]], now: Mapping[str, Any]) -> Dict[str, Any]:
    shown = {name: now[name] for name in _SHOWN}
    diff = _diff(str(now["migration_id"]), was, now)
    return dict(shown, streams=now.get("streams", []), changed=was is None, diff=diff)


def _diff(migration_id: str, was: Optional[Mapping[str, Any]], now: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    header = f"incoming {migration_id}"
    return {"before": _brief(was), "after": _brief(now), "before_header": header, "after_header": header}


def _brief(status: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    names = ("address", "port", "peer_address", "peer_name", "planes")
    return {name: status[name] for name in names} if status is not None else {}
