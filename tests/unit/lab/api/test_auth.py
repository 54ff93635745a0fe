# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tickets, tokens and their lives (mtunnel-protocol 1)."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import pytest

from lab.api.auth import Keys, Unauthorized, authenticate, socket_path
from lab.node.base import Node

NOW = 1_790_000_000.0
SOCKET = "/run/qemu-server/100.mtunnel"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "etc/pve/priv").mkdir(parents=True)
    (tmp_path / "etc/pve/user.cfg").write_text(
        "user:root@pam:1:0::::::\nuser:off@pve:0:0::::::\ntoken:root@pam!t1:0:0::\ntoken:off@pve!t1:0:0::\n"
        "token:root@pam!old:1000:0::\n"
    )
    (tmp_path / "etc/pve/priv/token.cfg").write_text("root@pam!t1 s3cret\noff@pve!t1 s3cret\nroot@pam!old s3cret\n")
    return Node(root=str(tmp_path), name="beta1")


def reason(node: Node, headers: "dict[str, str]", method: str = "GET") -> str:
    with pytest.raises(Unauthorized) as refused:
        authenticate(node, headers, method, NOW)
    return refused.value.reason


def test_tunnel_ticket_has_the_real_form_and_is_bound_to_user_and_path(node: Node) -> None:
    keys = Keys(node)
    ticket = keys.tunnel_ticket("root@pam!t1", SOCKET, NOW)
    assert re.fullmatch(r"PVETUNNEL:[0-9A-F]{8}::[A-Za-z0-9+/]{342}==", ticket)
    assert keys.tunnel_ticket_valid(ticket, "root@pam!t1", SOCKET, NOW)
    assert keys.tunnel_ticket_valid(ticket, "root@pam!t1", "/run//qemu-server/100.mtunnel/", NOW)
    assert not keys.tunnel_ticket_valid(ticket, "root@pam", SOCKET, NOW)
    assert not keys.tunnel_ticket_valid(ticket, "root@pam!t1", "/run/qemu-server/101.mtunnel", NOW)


@pytest.mark.parametrize(("age", "valid"), [(-20, False), (-19, True), (0, True), (39, True), (40, False), (41, False)])
def test_tunnel_ticket_lives_forty_seconds(node: Node, age: float, valid: bool) -> None:
    ticket = Keys(node).tunnel_ticket("root@pam!t1", SOCKET, NOW)
    assert Keys(node).tunnel_ticket_valid(ticket, "root@pam!t1", SOCKET, NOW + age) is valid


def test_two_tickets_of_one_second_are_the_same(node: Node) -> None:
    keys = Keys(node)
    assert keys.tunnel_ticket("a@pve", SOCKET, NOW) == keys.tunnel_ticket("a@pve", SOCKET, NOW + 0.9)


def test_socket_path_takes_plain_characters_only() -> None:
    assert socket_path("/run/qemu-server/1.migrate") == "/socket/run/qemu-server/1.migrate"
    assert socket_path("/run/a b") is None


@pytest.mark.parametrize("separator", ["=", " "])
def test_token(node: Node, separator: str) -> None:
    caller = authenticate(node, {"authorization": "PVEAPIToken%sroot@pam!t1=s3cret" % separator}, "POST", NOW)
    assert caller.user == "root@pam!t1"
    assert not caller.is_root


def test_refusals_of_tokens(node: Node) -> None:
    assert reason(node, {}) == "No ticket"
    assert reason(node, {"authorization": "Bearer x"}) == "No ticket"
    for token in ("root@pam!t1=wrong", "root@pam!none=s3cret", "off@pve!t1=s3cret", "root@pam!old=s3cret"):
        assert reason(node, {"authorization": "PVEAPIToken=" + token}) == "Authentication failed!"


def test_password_ticket_needs_the_csrf_token_for_writes(node: Node) -> None:
    keys = Keys(node)
    cookie = {"cookie": "x=1; PVEAuthCookie=" + quote(keys.login_ticket("root@pam", NOW), safe="")}
    assert authenticate(node, cookie, "GET", NOW).is_root
    assert reason(node, cookie, "POST") == "Permission denied - invalid csrf token"
    csrf = {**cookie, "csrfpreventiontoken": keys.csrf_token("root@pam", NOW)}
    assert authenticate(node, csrf, "POST", NOW).is_root


def test_a_stale_cookie_shadows_a_good_token(node: Node) -> None:
    stale = quote(Keys(node).login_ticket("root@pam", NOW - 8000), safe="")
    headers = {"cookie": "PVEAuthCookie=" + stale, "authorization": "PVEAPIToken=root@pam!t1=s3cret"}
    assert reason(node, headers) == "permission denied - invalid PVE ticket"
