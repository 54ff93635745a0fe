# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""/access over the API: whom one may see."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.api.auth import Caller
from lab.api.registry import Registry, error_answer
from lab.node.base import Die, Node

CONFIG = """user:root@pam:1:0:::root@x.invalid:::
user:mig@pve:1:0:::::
token:mig@pve!t1:1800000000:1:for moves:
token:root@pam!t:0:0::
group:ops:mig@pve::
"""


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "etc/pve").mkdir(parents=True)
    (tmp_path / "etc/pve/user.cfg").write_text(CONFIG)
    return Registry(Node(root=str(tmp_path), name="alpha1"))


def call(registry: Registry, path: str, user: str = "root@pam", **params: str) -> object:
    entry, values = registry.find("GET", "/access" + path)
    return registry.run(entry, values, params, Caller(user))


def refusal(registry: Registry, path: str, user: str = "root@pam") -> "tuple[int, str]":
    with pytest.raises(Die) as refused:
        call(registry, path, user)
    return error_answer(refused.value)[:2]


def test_users_and_tokens(registry: Registry) -> None:
    assert [entry["userid"] for entry in call(registry, "/users")] == ["mig@pve", "root@pam"]
    assert call(registry, "/users", "mig@pve!t1") == [
        {"userid": "mig@pve", "enable": 1, "expire": 0, "realm-type": "pve"}
    ]
    full = call(registry, "/users", full="1")[0]
    token = {"tokenid": "t1", "expire": 1800000000, "privsep": 1, "comment": "for moves"}
    assert (full["groups"], full["tokens"]) == ("ops", [token])
    assert call(registry, "/users/mig@pve")["groups"] == ["ops"]
    assert call(registry, "/users/mig@pve/token", "mig@pve!t1") == [token]
    assert call(registry, "/users/mig@pve/token/t1")["privsep"] == 1


def test_others_are_not_shown(registry: Registry) -> None:
    wanted = (403, "Permission check failed (/access/groups, User.Modify|Sys.Audit)")
    assert refusal(registry, "/users/root@pam/token", "mig@pve") == wanted
    assert refusal(registry, "/users/nosuch@pve") == (500, "no such user ('nosuch@pve')")
    assert refusal(registry, "/users/mig@pve/token/t2") == (500, "no such token 't2' for user 'mig@pve'")
    assert refusal(registry, "/roles/nosuch") == (500, "role 'nosuch' does not exist")
    assert call(registry, "/groups", "mig@pve") == []
    assert call(registry, "/groups") == [{"groupid": "ops", "users": "mig@pve"}]
