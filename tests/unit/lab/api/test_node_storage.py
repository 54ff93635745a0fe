# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storages and their content over the API: filters, privileges, refusals (pve-cli 4.2, 4.3 and 7)."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.api.auth import Caller
from lab.api.registry import Registry, error_answer
from lab.node.base import Die, Node

CONFIG = """dir: local
\tpath /store
\tcontent images,iso

dir: closed
\tpath /store
\tcontent images
\tdisable

dir: everywhere
\tpath /store
\tcontent snippets
\tshared

dir: other
\tpath /store
\tcontent images
\tnodes elsewhere
"""
USERS = """user:a@pve:1:0::::::
role:space:Datastore.AllocateSpace:
acl:1:/storage/local:a@pve:space:
"""


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "etc/pve").mkdir(parents=True)
    (tmp_path / "etc/pve/user.cfg").write_text(USERS)
    (tmp_path / "etc/pve/storage.cfg").write_text(CONFIG)
    for name in ("images/112/vm-112-disk-0.raw", "template/iso/a.iso"):
        (tmp_path / "store" / name).parent.mkdir(parents=True)
        (tmp_path / "store" / name).write_bytes(b"\0" * 512)
    return Registry(Node(root=str(tmp_path), name="alpha1"))


def call(registry: Registry, verb: str, path: str, user: str = "root@pam", **params: str) -> object:
    entry, values = registry.find(verb, "/nodes/alpha1/storage" + path)
    return registry.run(entry, values, params, Caller(user), synchronous=True)


def errors(registry: Registry, verb: str, path: str, user: str = "root@pam", **params: str) -> "tuple[int, object]":
    with pytest.raises(Die) as refused:
        call(registry, verb, path, user, **params)
    status, reason, body = error_answer(refused.value)
    return status, body.get("errors", reason)


def names(found: object) -> "list[str]":
    return [entry["storage"] for entry in found]


def test_filters_of_the_list(registry: Registry) -> None:
    assert names(call(registry, "GET", "")) == ["closed", "everywhere", "local", "other"]
    assert names(call(registry, "GET", "", content="images")) == ["local"]
    assert names(call(registry, "GET", "", enabled="1")) == ["everywhere", "local", "other"]
    assert names(call(registry, "GET", "", target="elsewhere")) == ["everywhere"]
    assert names(call(registry, "GET", "", "a@pve")) == ["local"]
    assert errors(registry, "GET", "", storage="nosuch") == (400, {"storage": "No such storage."})


def test_what_is_not_usable_here_has_zeros_and_no_fraction(registry: Registry) -> None:
    closed, _, local, _ = call(registry, "GET", "")
    assert (closed["enabled"], closed["active"], closed["total"]) == (0, 0, 0)
    assert "used_fraction" not in closed
    assert 0 < local["used_fraction"] < 1


def test_content_shows_images_and_files(registry: Registry) -> None:
    found = call(registry, "GET", "/local/content")
    assert [(entry["volid"], entry["content"], entry.get("vmid")) for entry in found] == [
        ("local:112/vm-112-disk-0.raw", "images", 112),
        ("local:iso/a.iso", "iso", None),
    ]
    assert [entry["volid"] for entry in call(registry, "GET", "/local/content", "a@pve")] == ["local:iso/a.iso"]
    assert len(call(registry, "GET", "/local/content", content="images")) == 1


def test_a_bad_size_is_a_bad_parameter(registry: Registry) -> None:
    wrong = {"filename": "vm-112-disk-1.raw", "size": "64X", "vmid": "112"}
    assert errors(registry, "POST", "/local/content", **wrong) == (
        400,
        {"size": "value does not match the regex pattern"},
    )
    assert errors(registry, "GET", "/local/status", "b@pve") == (
        403,
        "Permission check failed (/storage/local, Datastore.Audit|Datastore.AllocateSpace)",
    )
