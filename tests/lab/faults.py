# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that tests switch on in a lab host: one JSON file each in the host's /run/lab-faults/.

From a test: ``faults.set(host.root, "reply_delay", command="resume", seconds=40)``, ``faults.clear(host.root)``.
Inside a host: ``python -m lab.faults hold-flock VMID SECONDS`` and ``python -m lab.faults hold-qmp VMID SECONDS``.

Keys every fault understands: ``vmid`` (only this VM; default any), ``count`` (number of times it strikes, then the file
is removed; default: until cleared). Several of a kind: give the file another name with ``name=...`` and ``fault=...``.

Faults of the tunnel worker (``command`` = name of the control command, default any):

=================  =================================================================================================
reply_delay        ``command``, ``seconds``: the command is executed at once, its reply is held back that long
command_delay      ``command``, ``seconds``: logged as received, executed (lock and all) only after that time
reply_drop         ``command``: executed, never answered; the connection stays
reply_replace      ``command``, ``merge`` (object merged into the reply, nested objects too) or ``raw`` (text sent
                   instead of the reply line, e.g. malformed JSON): wrong addr, uri, extra keys, garbage
control_cut        ``command``, ``when``: ``before`` (not logged, not executed: as if it had never come) or ``after``
                   (executed, reply lost: the task ends as ``unexpected status``), ``lock`` (only in this lock state:
                   create, migrate or "none")
kill_qemu          ``command``, ``when`` (before or after): SIGKILL to the QEMU of the tunnel's VM
flock_hold         ``command``, ``seconds``: another process takes the config flock just before the command
qmp_hold           ``command``, ``seconds``: another process takes the QMP connection just before the command
import_error       ``message``: the importer of disk-import fails after its connection came
=================  =================================================================================================

Faults of the node: ``no_quorum`` (/etc/pve is read-only on this node). An empty file ``hold-api`` (no .json) in the
directory keeps the API down once it has ended.

Faults of the front end:

=================  =================================================================================================
http_no_answer     ``method`` (default POST), ``path`` (end of the URL path, default /mtunnel): the request is executed,
                   the TCP connection closed without an answer
http_delay         ``method``, ``path``, ``seconds``: the answer comes that much later
tickets_refused    every tunnel ticket is answered 401 (``socket``: only for sockets ending so)
drain              ``rate`` bytes/s: what one front-end worker passes on to UNIX sockets; the rest queues without bound
pong_off           pings are not answered
silent             ``direction``: ``to_source`` (nothing leaves towards the client, not even pongs or EOF) or ``both``;
                   ``kind``: control, ram, nbd, import (default: all but control). What was held is delivered when the
                   fault is removed, as TCP does after a link comes back
split              ``size``: server frames carry at most that many payload bytes, at odd places
cut                ``kind``: the TCP connections of that kind are reset as soon as seen (``after_bytes``: once that many
                   payload bytes came from the client)
=================  =================================================================================================
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from typing import Any, Dict, List, Optional

__all__ = ["DIRECTORY", "Fault", "clear", "find", "hold_flock", "hold_qmp", "set", "take"]

DIRECTORY = "/run/lab-faults"

Fault = Dict[str, Any]


def _directory(root: str) -> str:
    return root.rstrip("/") + DIRECTORY if root else os.environ.get("LAB_FAULTS", DIRECTORY)


def set(root: str, fault: str, name: str = "", **values: Any) -> str:
    """Switch a fault on in the host whose files lie below ``root``; returns the name of its file."""
    directory = _directory(root)
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, (name or fault) + ".json")
    with open(path + ".new", "w", encoding="utf-8") as stream:
        json.dump(dict(values, fault=fault), stream)
    os.replace(path + ".new", path)
    return os.path.basename(path)


def clear(root: str, name: str = "") -> None:
    """Switch one fault off, or all of them."""
    directory = _directory(root)
    if not os.path.isdir(directory):
        return
    for entry in os.listdir(directory):
        if entry.endswith(".json") and name in ("", entry[:-5]):
            try:
                os.unlink(os.path.join(directory, entry))
            except FileNotFoundError:
                pass


def _all(root: str) -> "List[tuple[str, Fault]]":
    directory = _directory(root)
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for name in names:
        if not name.endswith(".json"):
            continue
        path = os.path.join(directory, name)
        try:
            with open(path, encoding="utf-8") as stream:
                found.append((path, json.load(stream)))
        except (FileNotFoundError, json.JSONDecodeError):
            continue
    return found


def _matches(fault: Fault, wanted: str, facts: Dict[str, Any]) -> bool:
    if fault.get("fault") != wanted:
        return False
    return all(key not in fault or fault[key] == value for key, value in facts.items())


def find(wanted: str, root: str = "", **facts: Any) -> Optional[Fault]:
    """The first active fault of that kind whose keys do not contradict ``facts``; its count is not touched."""
    for _, fault in _all(root):
        if _matches(fault, wanted, facts):
            return fault
    return None


def take(wanted: str, root: str = "", **facts: Any) -> Optional[Fault]:
    """As find, but counts: the strike is used up."""
    for path, fault in _all(root):
        if not _matches(fault, wanted, facts):
            continue
        if "count" in fault and not _use_up(path):
            continue
        return fault
    return None


def _use_up(path: str) -> bool:
    """Take one strike of the fault's file; False when another process was faster."""
    with open(os.path.join(os.path.dirname(path), ".lock"), "a", encoding="utf-8") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        try:
            with open(path, encoding="utf-8") as stream:
                fault = json.load(stream)
        except FileNotFoundError:
            return False
        left = int(fault.get("count", 1)) - 1
        if left <= 0:
            os.unlink(path)
            return True
        fault["count"] = left
        with open(path + ".new", "w", encoding="utf-8") as stream:
            json.dump(fault, stream)
        os.replace(path + ".new", path)
        return True


def hold_flock(vmid: int, seconds: float, ready: "Optional[int]" = None) -> None:
    """Hold the config flock of a VM, as a slow command would; ``ready`` = descriptor written to once held."""
    path = "/var/lock/qemu-server/lock-%d.conf" % vmid
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if ready is not None:
            os.write(ready, b"1")
        time.sleep(seconds)


def hold_qmp(vmid: int, seconds: float, ready: "Optional[int]" = None) -> None:
    """Hold the one QMP connection of a VM; nobody else gets a greeting meanwhile."""
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect("/run/qemu-server/%d.qmp" % vmid)
        monitor.recv(4096)
        if ready is not None:
            os.write(ready, b"1")
        time.sleep(seconds)


def _main(arguments: List[str]) -> int:
    actions = {"hold-flock": hold_flock, "hold-qmp": hold_qmp}
    if len(arguments) != 3 or arguments[0] not in actions:
        print("usage: python -m lab.faults hold-flock|hold-qmp VMID SECONDS", file=sys.stderr)
        return 2
    actions[arguments[0]](int(arguments[1]), float(arguments[2]))
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
