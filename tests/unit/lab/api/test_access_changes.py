# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users, tokens, roles and ACLs are made and removed over the API, and count at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.api.auth import Caller, authenticate
from lab.api.registry import Registry, error_answer
from lab.node.base import Die, Node


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "etc/pve/priv").mkdir(parents=True)
    (tmp_path / "etc/pve/user.cfg").write_text("user:root@pam:1:0::::::\nuser:a@pve:1:0::::::\npool:p::100::\n")
    return Registry(Node(root=str(tmp_path), name="alpha1"))


def call(registry: Registry, verb: str, place: str, user: str = "root@pam", **params: str) -> object:
    entry, values = registry.find(verb, "/access" + place)
    return registry.run(entry, values, params, Caller(user))


def refusal(registry: Registry, verb: str, place: str, user: str = "root@pam", **params: str) -> "tuple[int, object]":
    with pytest.raises(Die) as refused:
        call(registry, verb, place, user, **params)
    status, reason, body = error_answer(refused.value)
    return status, body.get("errors", reason)


def test_a_token_of_ones_own_works_until_it_is_removed(registry: Registry) -> None:
    made = call(registry, "POST", "/users/a@pve/token/t1", "a@pve")
    assert (made["full-tokenid"], made["info"]) == ("a@pve!t1", {"privsep": 1, "expire": 0})
    header = {"authorization": f"PVEAPIToken=a@pve!t1={made['value']}"}
    assert authenticate(registry.node, header, "GET").user == "a@pve!t1"
    assert refusal(registry, "POST", "/users/a@pve/token/t1") == (400, {"tokenid": "Token already exists."})
    call(registry, "DELETE", "/users/a@pve/token/t1")
    with pytest.raises(Exception, match="Authentication failed!"):
        authenticate(registry.node, header, "GET")


def test_rights_come_and_go(registry: Registry) -> None:
    call(registry, "POST", "/roles", roleid="R", privs="VM.Audit VM.Allocate")
    call(registry, "PUT", "/acl", path="/vms/200/", roles="R", users="a@pve", propagate="0")
    assert call(registry, "GET", "/permissions", "a@pve", path="/vms/200") == {
        "/vms/200": {"VM.Allocate": 0, "VM.Audit": 0}
    }
    call(registry, "PUT", "/roles/R", privs="VM.Migrate", append="1")
    assert "VM.Migrate" in call(registry, "GET", "/permissions", "a@pve", path="/vms/200")["/vms/200"]
    call(registry, "PUT", "/acl", path="/vms/200", roles="R", users="a@pve", delete="1")
    assert call(registry, "GET", "/permissions", "a@pve") == {}
    assert "pool:p::100::\n" in registry.node.path("/etc/pve/user.cfg").read_text()


def test_refusals(registry: Registry) -> None:
    needs = (403, "Permission check failed (/vms/200, Permissions.Modify)")
    assert refusal(registry, "PUT", "/acl", "a@pve", path="/vms/200", roles="PVEAdmin", users="a@pve") == needs
    assert refusal(registry, "PUT", "/acl", path="/vms/200", roles="X", users="a@pve") == (
        500,
        "role 'X' does not exist",
    )
    assert refusal(registry, "PUT", "/acl", path="/", roles="PVEAdmin")[0] == 400
    assert refusal(registry, "POST", "/roles", "a@pve", roleid="R") == (
        403,
        "Permission check failed (/access, Sys.Modify)",
    )
    assert refusal(registry, "DELETE", "/roles/PVEAdmin")[0] == 500
    assert refusal(registry, "POST", "/users", userid="a@pve") == (
        500,
        "create user failed: user 'a@pve' already exists",
    )


def test_a_user_goes_with_everything(registry: Registry) -> None:
    call(registry, "POST", "/users", userid="b@pve", comment="for: a test")
    call(registry, "POST", "/users/b@pve/token/t1", privsep="0")
    call(registry, "PUT", "/acl", path="/", roles="PVEAuditor", tokens="b@pve!t1", users="b@pve")
    call(registry, "DELETE", "/users/b@pve")
    assert "b@pve" not in registry.node.path("/etc/pve/user.cfg").read_text()
    assert registry.node.path("/etc/pve/priv/token.cfg").read_text() == ""
