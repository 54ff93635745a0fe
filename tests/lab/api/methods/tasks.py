# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks: lists, status, log, ending (mtunnel-protocol 2.4)."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

from lab.node.base import Denied, Die, ParamError
from lab.node.tasks import Tasks, Upid

from ..registry import Call, Paged, method
from ..schema import boolean, enum, integer, split_list, string

TASK = "/nodes/{node}/tasks/{upid}"


def _own(call: Call, user: str) -> bool:
    """A token's task belongs to that token and to its owner."""
    return call.caller.user in (user, user.partition("!")[0])


def _check(call: Call, privilege: str) -> Upid:
    """A bad or unknown id is a bad parameter (400), and that before anybody asks for privileges."""
    try:
        upid = Upid.parse(call.params["upid"])
    except Die:
        raise ParamError({"upid": "unable to parse worker upid"}) from None
    if not call.node.path(upid.file).exists():
        raise ParamError({"upid": "no such task"})
    if not _own(call, upid.user) and not call.may("/nodes/" + call.node.name, [privilege]):
        raise Denied("/nodes/" + call.node.name, [privilege])
    return upid


LIST = {
    "vmid": string(optional=True, format="vmid"),
    "limit": integer(optional=True, minimum=0, default=50),
    "start": integer(optional=True, minimum=0, default=0),
    "source": enum("archive", "active", "all", optional=True),
    "typefilter": string(optional=True),
    "userfilter": string(optional=True),
    "errors": boolean(optional=True),
    "since": integer(optional=True),
    "until": integer(optional=True),
    "statusfilter": string(optional=True),
}


@method("GET", "/nodes/{node}/tasks", LIST)
def listing(call: Call) -> Paged:
    """Tasks of the node that one may see, newest first."""
    every = call.may("/nodes/" + call.node.name, ["Sys.Audit"])
    vmid, source = call.params.get("vmid"), call.params.get("source", "archive")
    found = []
    for entry in Tasks(call.node).list(int(vmid) if vmid else None):
        running = "status" not in entry
        if not every and not _own(call, Upid.parse(str(entry["upid"])).user):
            continue
        if (source == "archive" and running) or (source == "active" and not running):
            continue
        if _wanted(call.params, entry):
            found.append(entry)
    first, limit = call.params["start"], call.params["limit"]
    return Paged(found[first : first + limit] if limit else found[first:], {"total": len(found)})


def _wanted(params: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """The filters of the list; `errors` and `statusfilter` look at ended tasks only."""
    status = str(entry.get("status", ""))
    kind = "ok" if status == "OK" else "warning" if status.startswith("WARNINGS") else "error"
    if not status or status == "unexpected status":
        kind = "unknown"
    refused = [
        params.get("typefilter") not in (None, entry["type"]),
        params.get("userfilter", "").lower() not in str(entry["user"]).lower(),
        params.get("errors") and status in ("", "OK"),
        "statusfilter" in params and kind not in split_list(params["statusfilter"]),
        "since" in params and int(entry["starttime"]) < params["since"],
        "until" in params and int(entry["starttime"]) > params["until"],
    ]
    return not any(refused)


@method("GET", "/cluster/tasks")
def cluster_tasks(call: Call) -> List[Dict[str, Any]]:
    """Recent tasks; of this node only."""
    every = call.may("/", ["Sys.Audit"])
    entries = Tasks(call.node).list()
    return [entry for entry in entries if every or _own(call, Upid.parse(str(entry["upid"])).user)][:25]


@method("GET", TASK + "/status")
def status(call: Call) -> Dict[str, Any]:
    """State of a task, from its process and its last log line."""
    _check(call, "Sys.Audit")
    return Tasks(call.node).status(call.params["upid"])


@method(
    "GET",
    TASK + "/log",
    {
        "start": integer(optional=True, minimum=0, default=0),
        "limit": integer(optional=True, minimum=0, default=50),
        "download": boolean(optional=True),
    },
)
def log(call: Call) -> Paged:
    """Lines of a task's log; numbers begin at 1."""
    _check(call, "Sys.Audit")
    first = call.params["start"]
    lines, total = Tasks(call.node).log(call.params["upid"], first, call.params["limit"])
    return Paged([{"n": first + at + 1, "t": line} for at, line in enumerate(lines)], {"total": total})


@method("DELETE", TASK)
def delete(call: Call) -> None:
    """SIGTERM to the task's process group, SIGKILL after 5 s."""
    _check(call, "Sys.Modify")
    Tasks(call.node).delete(call.params["upid"])
