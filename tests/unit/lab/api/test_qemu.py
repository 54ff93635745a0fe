# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configs over the API: what is shown, what is refused and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.api.auth import Caller
from lab.api.registry import Registry, error_answer
from lab.node.base import Die, Node
from lab.node.cluster import Cluster

CONFIG = """cipassword: $5$secret
lock: migrate
memory: 192
name: web01

[PENDING]
cipassword: $5$other
memory: 256

[s1]
memory: 128
snaptime: 1700000000
"""


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "etc/pve/nodes/alpha1/qemu-server").mkdir(parents=True)
    node = Node(root=str(tmp_path), name="alpha1")
    Cluster(node).create_stub(100, content=CONFIG)
    return Registry(node)


def call(registry: Registry, verb: str, path: str, **params: str) -> object:
    entry, values = registry.find(verb, "/nodes/alpha1/qemu/100" + path)
    return registry.run(entry, values, params, Caller("root@pam"), synchronous=True)


def refusal(registry: Registry, verb: str, path: str, **params: str) -> "tuple[int, object]":
    with pytest.raises(Die) as refused:
        call(registry, verb, path, **params)
    status, reason, body = error_answer(refused.value)
    return status, body.get("errors", reason)


def test_a_password_is_shown_to_nobody(registry: Registry) -> None:
    assert call(registry, "GET", "/config")["cipassword"] == "**********"
    entries = {entry["key"]: entry for entry in call(registry, "GET", "/pending")}
    assert entries["cipassword"] == {"key": "cipassword", "value": "**********", "pending": "**********"}


def test_pending_current_and_snapshot_values(registry: Registry) -> None:
    assert call(registry, "GET", "/config")["memory"] == "256"
    assert call(registry, "GET", "/config", current="1")["memory"] == "192"
    assert call(registry, "GET", "/config", snapshot="s1")["memory"] == "128"
    assert refusal(registry, "GET", "/config", snapshot="s2") == (500, "snapshot 's2' does not exist")
    text = "cannot use 'snapshot' parameter with 'current'"
    assert refusal(registry, "GET", "/config", snapshot="s1", current="1") == (
        400,
        {"snapshot": text, "current": text},
    )


def test_a_change_that_would_be_a_task_is_refused_before_it(registry: Registry) -> None:
    assert refusal(registry, "POST", "/config", name="x") == (500, "VM is locked (migrate)")
    assert refusal(registry, "PUT", "/config", delete="nosuch") == (400, {"delete": "unknown option 'nosuch'"})
    assert refusal(registry, "PUT", "/config", nosuch="1")[1] == {
        "nosuch": "property is not defined in schema and the schema does not allow additional properties"
    }
    assert str(call(registry, "POST", "/config", name="x", skiplock="1")).startswith("UPID:alpha1:")
    call(registry, "PUT", "/config", revert="memory", skiplock="1")
    assert call(registry, "GET", "/config")["memory"] == "192"
