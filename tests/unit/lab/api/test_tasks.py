# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Task ids that are none, tasks of others, and the filters of the list (mtunnel-protocol 2.4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.api.auth import Caller
from lab.api.registry import Paged, Registry, error_answer
from lab.node.base import Die, Node

ENDED = {
    "UPID:beta1:0000FFFF:00000001:68000001:qmtunnel:200:mig@pve!t1:": "TASK ERROR: mtunnel exited unexpectedly",
    "UPID:beta1:0000FFFF:00000002:68000012:qmstart:201:root@pam:": "TASK OK",
    "UPID:beta1:0000FFFF:00000003:68000023:qmstop:201:root@pam:": "received command 'resume'",
}
OWN = next(iter(ENDED))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "etc/pve").mkdir(parents=True)
    (tmp_path / "etc/pve/user.cfg").write_text("user:mig@pve:1:0::::::\ntoken:mig@pve!t1:0:0::\nuser:x@pve:1:0::::::\n")
    for upid, line in ENDED.items():
        path = tmp_path / "var/log/pve/tasks" / f"{int(upid.split(':')[4], 16) & 15:X}" / upid
        path.parent.mkdir(parents=True)
        path.write_text(line + "\n")
    return Registry(Node(root=str(tmp_path), name="beta1"))


def call(registry: Registry, path: str, user: str = "root@pam", verb: str = "GET", **params: object) -> object:
    entry, values = registry.find(verb, path)
    return registry.run(entry, values, params, Caller(user))


@pytest.mark.parametrize(
    ("upid", "text"),
    [("nosuch", "unable to parse worker upid"), (OWN.replace("200", "300"), "no such task")],
)
@pytest.mark.parametrize(("verb", "tail"), [("GET", "/status"), ("GET", "/log"), ("DELETE", "")])
def test_a_bad_task_id_is_a_bad_parameter(registry: Registry, upid: str, text: str, verb: str, tail: str) -> None:
    with pytest.raises(Die) as refused:
        call(registry, f"/nodes/beta1/tasks/{upid}{tail}", "x@pve", verb)
    status, _, body = error_answer(refused.value)
    assert (status, body["errors"]) == (400, {"upid": text})


def test_the_own_task_needs_no_privilege_and_that_of_others_does(registry: Registry) -> None:
    assert call(registry, f"/nodes/beta1/tasks/{OWN}/status", "mig@pve!t1")["exitstatus"] == (
        "mtunnel exited unexpectedly"
    )
    with pytest.raises(Die) as refused:
        call(registry, f"/nodes/beta1/tasks/{OWN}/status", "x@pve")
    assert refused.value.text == "403 Permission check failed (/nodes/beta1, Sys.Audit)"


@pytest.mark.parametrize(
    ("params", "types"),
    [
        ({}, ["qmstop", "qmstart", "qmtunnel"]),
        ({"errors": "1"}, ["qmstop", "qmtunnel"]),
        ({"statusfilter": "ok,error"}, ["qmstart", "qmtunnel"]),
        ({"typefilter": "qmstart"}, ["qmstart"]),
        ({"userfilter": "mig"}, ["qmtunnel"]),
        ({"since": str(0x68000012)}, ["qmstop", "qmstart"]),
        ({"until": str(0x68000012)}, ["qmstart", "qmtunnel"]),
        ({"vmid": "200"}, ["qmtunnel"]),
        ({"source": "active"}, []),
    ],
)
def test_filters(registry: Registry, params: "dict[str, str]", types: "list[str]") -> None:
    found = call(registry, "/nodes/beta1/tasks", **params)
    assert isinstance(found, Paged)
    assert [entry["type"] for entry in found.data] == types
    assert found.extra == {"total": len(types)}
