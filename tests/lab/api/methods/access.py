# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""/access and /version."""

from __future__ import annotations

from typing import Any, Dict, List

from lab.node.base import Die

from .. import auth
from ..access import PRIVILEGES, ROLES, Token
from ..registry import Call, method
from ..schema import boolean, string

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


@method("GET", "/access/users", {"enabled": boolean(optional=True), "full": boolean(optional=True)})
def users(call: Call) -> List[Dict[str, Any]]:
    """Users one may see: oneself, and all with User.Modify or Sys.Audit on /access/groups."""
    own = call.caller.user.partition("!")[0]
    every = call.may("/access/groups", ["User.Modify", "Sys.Audit"], True)
    names = sorted(set(call.access.config.users) | {"root@pam"})
    found = [{"userid": name, **_user(call, name)} for name in names if every or name == own]
    if "enabled" in call.params:
        found = [entry for entry in found if entry["enable"] == int(call.params["enabled"])]
    if call.params.get("full"):
        for entry in found:
            entry["tokens"] = _tokens(call, entry["userid"])
            entry["groups"] = ",".join(_groups(call, entry["userid"]))
    return found


def _user(call: Call, name: str) -> Dict[str, Any]:
    entry = call.access.config.users.get(name, {})
    shown: Dict[str, Any] = {
        "enable": int(entry.get("enable") or 1),
        "expire": int(entry.get("expire") or 0),
        "realm-type": "pam" if name.endswith("@pam") else "pve",
    }
    texts = ("firstname", "lastname", "email", "comment", "keys")
    return {**shown, **{key: entry[key] for key in texts if entry.get(key)}}


def _groups(call: Call, name: str) -> List[str]:
    return sorted(group for group, members in call.access.config.groups.items() if name in members)


def _tokens(call: Call, user: str) -> List[Dict[str, Any]]:
    known = call.access.config.tokens
    return [
        {"tokenid": full.partition("!")[2], **_token(known[full])} for full in sorted(known) if _owner(full) == user
    ]


def _owner(full: str) -> str:
    return full.partition("!")[0]


def _token(token: Token) -> Dict[str, Any]:
    comment = {"comment": token.comment} if token.comment else {}
    return {"expire": token.expire, "privsep": int(token.privsep), **comment}


def _check_user(call: Call) -> str:
    """Oneself, or Sys.Audit or User.Modify on the groups; then the user must exist."""
    name = str(call.params["userid"])
    if name != _owner(call.caller.user):
        call.need("/access/groups", "User.Modify", "Sys.Audit", any_of=True)
    if name not in call.access.config.users and name != "root@pam":
        raise Die("no such user ('%s')" % name)
    return name


@method("GET", "/access/users/{userid}")
def user(call: Call) -> Dict[str, Any]:
    """One user; tokens by their name."""
    name = _check_user(call)
    tokens = {entry.pop("tokenid"): entry for entry in _tokens(call, name)}
    shown = {key: value for key, value in _user(call, name).items() if key != "realm-type"}
    return {**shown, "groups": _groups(call, name), **({"tokens": tokens} if tokens else {})}


@method("GET", "/access/users/{userid}/token")
def tokens(call: Call) -> List[Dict[str, Any]]:
    """Tokens of one user."""
    return _tokens(call, _check_user(call))


@method("GET", "/access/users/{userid}/token/{tokenid}")
def token(call: Call) -> Dict[str, Any]:
    """One token."""
    full = "%s!%s" % (_check_user(call), call.params["tokenid"])
    if full not in call.access.config.tokens:
        raise Die("no such token '%s' for user '%s'" % (call.params["tokenid"], call.params["userid"]))
    return _token(call.access.config.tokens[full])


@method("GET", "/access/groups")
def groups(call: Call) -> List[Dict[str, Any]]:
    """Groups one may see."""
    wanted = ["User.Modify", "Sys.Audit", "Group.Allocate"]
    return [
        {"groupid": name, "users": ",".join(sorted(members))}
        for name, members in sorted(call.access.config.groups.items())
        if call.may("/access/groups", wanted, True) or call.may("/access/groups/" + name, wanted, True)
    ]


@method("GET", "/access/domains")
def domains(call: Call) -> List[Dict[str, Any]]:
    """The two realms there always are."""
    return [
        {"realm": "pam", "type": "pam", "comment": "Linux PAM standard authentication"},
        {"realm": "pve", "type": "pve", "comment": "Proxmox VE authentication server"},
    ]


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
    held = call.access.config.roles.get(call.params["roleid"])
    if held is None:
        raise Die("role '%s' does not exist" % call.params["roleid"])
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
