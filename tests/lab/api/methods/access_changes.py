# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""/access, the writing part: users, tokens, roles, ACLs."""

from __future__ import annotations

import re
from typing import Any, Dict, List

from lab.node.base import Die, ParamError

from ..access import PRIVILEGES, ROLES
from ..registry import Call, Need, method
from ..schema import boolean, integer, split_list, string
from ..user_file import Users

TOKEN = "/access/users/{userid}/token/{tokenid}"
ROLE_CHANGE = Need("/access", ("Sys.Modify",))
ACL_PATH = re.compile(r"/|(?:/[A-Za-z0-9._@:-]+)+")
USER = {
    "comment": string(optional=True),
    "enable": boolean(optional=True),
    "expire": integer(optional=True, minimum=0),
    "email": string(optional=True),
    "groups": string(optional=True),
}


def _clean(text: Any) -> str:
    return str(text).replace(":", " ").replace("\n", " ")


@method("POST", "/access/users", {"userid": string(), "password": string(optional=True), **USER})
def add_user(call: Call) -> None:
    """A new user."""
    call.need("/access/groups", "User.Modify")
    name = call.params["userid"]
    if not re.fullmatch(r"[^\s:/]+@[A-Za-z][A-Za-z0-9.\-_]+", name):
        raise ParamError({"userid": "invalid format - value '%s' does not look like a valid user name\n" % name})
    with Users.changing(call.node) as users:
        if name in users.config.users:
            raise Die("create user failed: user '%s' already exists" % name)
        enable, expire = int(call.params.get("enable", True)), call.params.get("expire", 0)
        words = [_clean(call.params.get(key, "")) for key in ("email", "comment")]
        users.put("user", name, str(enable), str(expire), "", "", *words, "", "")


@method("DELETE", "/access/users/{userid}")
def delete_user(call: Call) -> None:
    """A user goes with its tokens and rights."""
    call.need("/access/groups", "User.Modify")
    name = call.params["userid"]
    with Users.changing(call.node) as users:
        if name not in users.config.users:
            raise Die("user '%s' does not exist" % name)
        for token in [each for each in users.config.tokens if each.startswith(name + "!")]:
            _drop_token(users, token)
        users.forget(name)
        users.drop("user", name)


def _own_or_modify(call: Call) -> str:
    owner = str(call.params["userid"])
    if owner != call.caller.user:
        call.need("/access/groups", "User.Modify")
    return "%s!%s" % (owner, call.params["tokenid"])


SETTINGS = {
    "comment": string(optional=True),
    "expire": integer(optional=True, minimum=0),
    "privsep": boolean(optional=True),
}


@method("POST", TOKEN, SETTINGS)
def add_token(call: Call) -> Dict[str, Any]:
    """A new token; its secret is told this once."""
    full = _own_or_modify(call)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9.\-_]+", call.params["tokenid"]):
        raise ParamError({"tokenid": "value does not match the regex pattern"})
    with Users.changing(call.node) as users:
        if call.params["userid"] not in users.config.users:
            raise Die("user '%s' does not exist" % call.params["userid"])
        if full in users.config.tokens:
            raise ParamError({"tokenid": "Token already exists."})
        info = {"privsep": int(call.params.get("privsep", True)), "expire": call.params.get("expire", 0)}
        comment = _clean(call.params.get("comment", ""))
        users.put("token", full, str(info["expire"]), str(info["privsep"]), comment, "")
        shown = {**info, **({"comment": comment} if comment else {})}
        return {"full-tokenid": full, "info": shown, "value": users.new_secret(full)}


@method("DELETE", TOKEN)
def delete_token(call: Call) -> None:
    """A token goes with its secret and rights."""
    full = _own_or_modify(call)
    with Users.changing(call.node) as users:
        if full not in users.config.tokens:
            raise Die("no such token '%s' for user '%s'" % (call.params["tokenid"], call.params["userid"]))
        _drop_token(users, full)


def _drop_token(users: Users, full: str) -> None:
    users.forget(full)
    users.drop("token", full)
    users.forget_secret(full)


@method("POST", "/access/roles", {"roleid": string(), "privs": string(optional=True)}, ROLE_CHANGE)
def add_role(call: Call) -> None:
    """A new role."""
    name = call.params["roleid"]
    with Users.changing(call.node) as users:
        if name in users.config.roles:
            raise Die("create role failed: role '%s' already exists" % name)
        users.put("role", name, ",".join(_privileges(call)), "")


@method(
    "PUT", "/access/roles/{roleid}", {"privs": string(optional=True), "append": boolean(optional=True)}, ROLE_CHANGE
)
def set_role(call: Call) -> None:
    """Other privileges for a role of one's own."""
    name = call.params["roleid"]
    with Users.changing(call.node) as users:
        held = _changeable(users, name, "update")
        kept = held if call.params.get("append") else []
        users.put("role", name, ",".join(sorted({*kept, *_privileges(call)})), "")


@method("DELETE", "/access/roles/{roleid}", {}, ROLE_CHANGE)
def delete_role(call: Call) -> None:
    """A role of one's own goes."""
    with Users.changing(call.node) as users:
        _changeable(users, call.params["roleid"], "delete")
        users.drop("role", call.params["roleid"])


def _changeable(users: Users, name: str, verb: str) -> List[str]:
    if name in ROLES:
        raise Die("auto-generated role '%s' cannot be %sd" % (name, verb))
    if name not in users.config.roles:
        raise Die("%s role failed: role '%s' does not exist" % (verb, name))
    return sorted(users.config.roles[name])


def _privileges(call: Call) -> List[str]:
    wanted = split_list(call.params.get("privs"))
    for name in wanted:
        if name not in PRIVILEGES:
            raise Die("invalid privilege '%s'" % name)
    return sorted(wanted)


ACL = {
    "path": string(),
    "roles": string(),
    "users": string(optional=True),
    "groups": string(optional=True),
    "tokens": string(optional=True),
    "propagate": boolean(optional=True),
    "delete": boolean(optional=True),
}


@method("PUT", "/access/acl", ACL)
def set_acl(call: Call) -> None:
    """Give or take roles on a path."""
    names = {key: split_list(call.params.get(key)) for key in ("users", "groups", "tokens")}
    if not any(names.values()):
        raise ParamError(dict.fromkeys(names, "either 'users', 'groups' or 'tokens' is required."))
    path = re.sub(r"/+", "/", call.params["path"]).rstrip("/") or "/"
    if not ACL_PATH.fullmatch(path):
        raise ParamError({"path": "invalid ACL path '%s'" % call.params["path"]})
    call.need(path, "Permissions.Modify")
    roles = split_list(call.params["roles"])
    with Users.changing(call.node) as users:
        config = users.config
        known = {"users": {*config.users, "root@pam"}, "groups": config.groups, "tokens": config.tokens}
        _exist("role", roles, config.roles)
        for key, wanted in names.items():
            _exist(key[:-1], wanted, known[key])
        who = [*names["users"], *("@" + name for name in names["groups"]), *names["tokens"]]
        if call.params.get("delete"):
            users.revoke(path, who, roles)
        else:
            users.grant(path, who, roles, bool(call.params.get("propagate", True)))


def _exist(kind: str, names: List[str], known: Any) -> None:
    for name in names:
        if name not in known:
            raise Die("%s '%s' does not exist" % (kind, name))
