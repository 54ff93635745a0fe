# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""/access and /version."""

from __future__ import annotations

from typing import Any, Dict, List

from .. import auth
from ..access import PRIVILEGES, ROLES
from ..registry import Call, method
from ..schema import string

VERSION = {"release": "9.2", "version": "9.2.11", "repoid": "14a22df35955"}


@method("GET", "/version")
def version(call: Call) -> Dict[str, str]:
    """Release of this node."""
    return VERSION


@method("POST", "/access/ticket", {"username": string(), "password": string()}, additional=True)
def ticket(call: Call) -> Dict[str, object]:
    """Login with a password (or renewal with a ticket)."""
    return auth.login(call.node, call.params["username"], call.params["password"])


@method("GET", "/access/ticket")
def ticket_dummy(call: Call) -> None:
    """Exists on the real one for symmetry."""
    return


@method("GET", "/access/permissions", {"path": string(optional=True), "userid": string(optional=True)})
def permissions(call: Call) -> Dict[str, Dict[str, int]]:
    """What the caller (or, with Sys.Audit on /access, somebody else) may do."""
    user = call.params.get("userid") or call.caller.user
    if user != call.caller.user and user.partition("!")[0] != call.caller.user.partition("!")[0]:
        call.need("/access", "Sys.Audit")
    return call.access.overview(user, call.params.get("path"))


@method("GET", "/access/users", {"enabled": string(optional=True), "full": string(optional=True)})
def users(call: Call) -> List[Dict[str, Any]]:
    """Users one may see: oneself, and all with User.Modify or Sys.Audit on /access/groups."""
    own = call.caller.user.partition("!")[0]
    every = call.may("/access/groups", ["User.Modify", "Sys.Audit"], True)
    names = sorted(set(call.access.config.users) | {"root@pam"})
    return [_user(call, name) for name in names if every or name == own]


def _user(call: Call, name: str) -> Dict[str, Any]:
    entry = call.access.config.users.get(name, {})
    tokens = call.access.config.tokens
    return {
        "userid": name,
        "enable": int(entry.get("enable") or 1),
        "expire": int(entry.get("expire") or 0),
        "realm-type": name.rpartition("@")[2],
        "tokens": [_token(full, tokens[full]) for full in sorted(tokens) if full.startswith(name + "!")],
    }


def _token(full: str, token: Any) -> Dict[str, Any]:
    return {"tokenid": full.partition("!")[2], "expire": token.expire, "privsep": int(token.privsep)}


@method("GET", "/access/users/{userid}/token")
def tokens(call: Call) -> List[Dict[str, Any]]:
    """Tokens of one user."""
    user = call.params["userid"]
    if user != call.caller.user.partition("!")[0]:
        call.need("/access/users/" + user, "User.Modify")
    known = call.access.config.tokens
    return [_token(full, known[full]) for full in sorted(known) if full.startswith(user + "!")]


@method("GET", "/access/roles")
def roles(call: Call) -> List[Dict[str, Any]]:
    """All roles."""
    return [
        {"roleid": name, "privs": ",".join(sorted(privileges)), "special": int(name in ROLES)}
        for name, privileges in sorted(call.access.config.roles.items())
    ]


@method("GET", "/access/roles/{roleid}")
def role(call: Call) -> Dict[str, int]:
    """Privileges of one role."""
    held = call.access.config.roles.get(call.params["roleid"], frozenset())
    return {name: 1 for name in sorted(PRIVILEGES & held)}


@method("GET", "/access/acl")
def acl(call: Call) -> List[Dict[str, Any]]:
    """ACL entries below paths where one may see or change permissions."""
    found = []
    for path, entries in sorted(call.access.config.acl.items()):
        if not call.may(path, ["Permissions.Modify", "Sys.Audit"], True):
            continue
        for who, granted in sorted(entries.items()):
            kind = "group" if who.startswith("@") else "token" if "!" in who else "user"
            for name, propagates in sorted(granted.items()):
                found.append(
                    {"path": path, "type": kind, "ugid": who.lstrip("@"), "roleid": name, "propagate": int(propagates)}
                )
    return found


@method("GET", "/pools", {"poolid": string(optional=True), "type": string(optional=True)})
def pools(call: Call) -> List[Dict[str, Any]]:
    """Pools one may see, with members when one is asked for."""
    wanted = call.params.get("poolid")
    found = []
    for name, members in sorted(call.access.config.pools.items()):
        if wanted in (None, name) and call.may("/pool/" + name, ["Pool.Audit"]):
            entry: Dict[str, Any] = {"poolid": name}
            if wanted:
                entry["members"] = [
                    {"id": "qemu/" + vmid, "type": "qemu", "vmid": int(vmid)} for vmid in members["vms"]
                ]
            found.append(entry)
    return found
