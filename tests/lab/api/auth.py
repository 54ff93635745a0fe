# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is calling: API tokens, login tickets with CSRF tokens, tunnel tickets (mtunnel-protocol 1).

Signatures have the size of the real RSA ones but come from a keyed hash: nobody but the server ever checks them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import time
from dataclasses import dataclass
from typing import Dict, Mapping, Optional
from urllib.parse import unquote

from lab.node.base import Node

from .access import Access

__all__ = ["Caller", "Keys", "Unauthorized", "authenticate", "login", "socket_path"]

SIGNATURE_BYTES = 256
TICKET_LIFE = 7200 + 300
TUNNEL_LIFE = (-20, 40)
CSRF_LIFE = (-300, 7200)
PASSWORDS = "/etc/pve/priv/lab-passwords"
"""Lines "user@realm password"; made at the first start with a random one for root@pam."""


class Unauthorized(Exception):
    """401 with this reason phrase; the answer comes 3 s late (mtunnel-protocol 1.1)."""

    def __init__(self, reason: str, with_body: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.with_body = with_body


@dataclass(frozen=True)
class Caller:
    """An authenticated user string (token id included)."""

    user: str
    by_ticket: bool = False

    @property
    def is_root(self) -> bool:
        """Root-only options compare with exactly this; a token of root is not root (mtunnel-protocol 1.2)."""
        return self.user == "root@pam"


class Keys:
    """The cluster's signing key, shared by its nodes through /etc/pve."""

    def __init__(self, node: Node) -> None:
        self.path = node.path("/etc/pve/priv/authkey.key")

    def secret(self) -> bytes:
        """The key; made on first use."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            except FileExistsError:
                return self.path.read_bytes()
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(secrets.token_hex(32).encode())
            return self.path.read_bytes()

    def sign(self, text: str) -> str:
        """A signature, base64."""
        key, out = self.secret(), b""
        while len(out) < SIGNATURE_BYTES:
            out += hmac.new(key, text.encode() + len(out).to_bytes(4, "big"), hashlib.sha256).digest()
        return base64.b64encode(out).decode("ascii")

    def login_ticket(self, user: str, now: float) -> str:
        """PVE:user:time::signature."""
        plain = "PVE:%s:%08X" % (user, int(now))
        return plain + "::" + self.sign(plain)

    def user_of_ticket(self, ticket: str, now: float) -> Optional[str]:
        """The user a login ticket stands for, or None."""
        match = re.fullmatch(r"(PVE:([^:]+):([0-9A-F]{8}))::(.+)", ticket)
        if not match or not hmac.compare_digest(match[4], self.sign(match[1])):
            return None
        age = now - int(match[3], 16)
        return match[2] if -300 < age < TICKET_LIFE else None

    def csrf_token(self, user: str, now: float) -> str:
        """Eight hex digits of the time, colon, base64 HMAC."""
        stamp = "%08X" % int(now)
        digest = hmac.new(self.secret(), (stamp + ":" + user).encode(), hashlib.sha256).digest()
        return stamp + ":" + base64.b64encode(digest).decode("ascii").rstrip("=")

    def csrf_valid(self, token: str, user: str, now: float) -> bool:
        """Whether a CSRF token belongs to the user and is of the right age."""
        match = re.fullmatch(r"([0-9A-F]{8}):.+", token)
        if not match:
            return False
        stamp = int(match[1], 16)
        return CSRF_LIFE[0] < now - stamp < CSRF_LIFE[1] and hmac.compare_digest(token, self.csrf_token(user, stamp))

    def tunnel_ticket(self, user: str, path: str, now: float) -> str:
        """A ticket for one socket path and one user string; both are signed, neither is shown."""
        plain = "PVETUNNEL:%08X" % int(now)
        return plain + "::" + self.sign("%s:%s:%s" % (plain, user, socket_path(path)))

    def tunnel_ticket_valid(self, ticket: str, user: str, path: str, now: float) -> bool:
        """Bound to user and path, older than -20 s and younger than 40 s; use is not counted."""
        match = re.fullmatch(r"(PVETUNNEL:([0-9A-F]{8}))::(.+)", ticket)
        bound = socket_path(path)
        if not match or bound is None:
            return False
        wanted = self.sign("%s:%s:%s" % (match[1], user, bound))
        return hmac.compare_digest(match[3], wanted) and TUNNEL_LIFE[0] < now - int(match[2], 16) < TUNNEL_LIFE[1]


def socket_path(path: str) -> Optional[str]:
    """The text a tunnel ticket is bound to: /socket/ + path, slashes collapsed; None for other characters."""
    whole = re.sub(r"/+", "/", "/socket/" + path).rstrip("/")
    return whole if re.fullmatch(r"[A-Za-z0-9._/-]+", whole) else None


def _cookie(headers: Mapping[str, str]) -> Optional[str]:
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == "PVEAuthCookie":
            return unquote(value)
    return None


def authenticate(node: Node, headers: Mapping[str, str], method: str, now: Optional[float] = None) -> Caller:
    """The caller by cookie, ticket in Authorization or token, in this order; header names in lower case."""
    moment = time.time() if now is None else now
    header = headers.get("authorization", "")
    ticket = _cookie(headers)
    if ticket is None and header.startswith("PVEAuthCookie="):
        ticket = unquote(header.split("=", 1)[1])
    if ticket is not None:
        return _by_ticket(node, ticket, headers, method, moment)
    match = re.match(r"PVEAPIToken[= ](.*)", header)
    if not match:
        raise Unauthorized("No ticket")
    return _by_token(node, unquote(match[1].strip()), moment)


def _by_ticket(node: Node, ticket: str, headers: Mapping[str, str], method: str, now: float) -> Caller:
    keys = Keys(node)
    user = keys.user_of_ticket(ticket, now)
    if user is None or not Access.of(node).known(user, now):
        raise Unauthorized("permission denied - invalid PVE ticket")
    if method != "GET" and not keys.csrf_valid(headers.get("csrfpreventiontoken", ""), user, now):
        raise Unauthorized("Permission denied - invalid csrf token")
    return Caller(user, True)


def _by_token(node: Node, value: str, now: float) -> Caller:
    match = re.fullmatch(r"([^\s!=]+@[^\s!=]+![A-Za-z][A-Za-z0-9._-]*)=(\S+)", value)
    if not match:
        raise Unauthorized("No ticket")
    secret = _table(node, "/etc/pve/priv/token.cfg").get(match[1])
    if secret is None or not hmac.compare_digest(secret, match[2]) or not Access.of(node).known(match[1], now):
        raise Unauthorized("Authentication failed!")
    return Caller(match[1])


def _table(node: Node, path: str) -> Dict[str, str]:
    """A file of lines "name value"."""
    try:
        lines = node.path(path).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split(None, 1) for line in lines if len(line.split(None, 1)) == 2)


def ensure_passwords(node: Node) -> None:
    """Give root@pam a random password unless somebody has set one."""
    path = node.path(PASSWORDS)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("root@pam %s\n" % secrets.token_urlsafe(12), "utf-8")
        path.chmod(0o600)


def login(node: Node, user: str, password: str) -> Dict[str, object]:
    """POST /access/ticket; a login ticket itself is accepted as password and renewed."""
    now, keys = time.time(), Keys(node)
    known = _table(node, PASSWORDS).get(user)
    right = known is not None and hmac.compare_digest(known.strip(), password)
    if not right and keys.user_of_ticket(password, now) != user:
        raise Unauthorized("authentication failure", True)
    access = Access.of(node)
    if not access.known(user, now):
        raise Unauthorized("authentication failure", True)
    return {
        "username": user,
        "ticket": keys.login_ticket(user, now),
        "CSRFPreventionToken": keys.csrf_token(user, now),
        "cap": _capabilities(access, user),
        "clustername": "lab",
    }


def _capabilities(access: Access, user: str) -> Dict[str, Dict[str, int]]:
    areas = {"vms": "/vms", "storage": "/storage", "nodes": "/nodes", "dc": "/", "access": "/access", "sdn": "/sdn"}
    return {area: {privilege: 1 for privilege in access.privileges(user, path)} for area, path in areas.items()}
