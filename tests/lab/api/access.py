# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users, tokens, roles and ACLs of /etc/pve/user.cfg, and what they allow (mtunnel-protocol 1.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Dict, FrozenSet, Iterator, List, Mapping, Optional, Sequence, Set

from lab.node.base import Node

__all__ = ["Access", "PRIVILEGES", "ROLES", "UserConfig"]

_VM = [
    "VM.Allocate",
    "VM.Audit",
    "VM.Backup",
    "VM.Clone",
    "VM.Config.CDROM",
    "VM.Config.CPU",
    "VM.Config.Cloudinit",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.Console",
    "VM.GuestAgent.Audit",
    "VM.GuestAgent.FileRead",
    "VM.GuestAgent.FileSystemMgmt",
    "VM.GuestAgent.FileWrite",
    "VM.GuestAgent.Unrestricted",
    "VM.Migrate",
    "VM.PowerMgmt",
    "VM.Replicate",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
]
_ROOT = ["Sys.AccessNetwork", "Sys.Incoming", "Sys.Modify", "Sys.PowerMgmt"]
_REST = [
    "Datastore.Allocate",
    "Datastore.AllocateSpace",
    "Datastore.AllocateTemplate",
    "Datastore.Audit",
    "Group.Allocate",
    "Mapping.Audit",
    "Mapping.Modify",
    "Mapping.Use",
    "Permissions.Modify",
    "Pool.Allocate",
    "Pool.Audit",
    "Realm.Allocate",
    "Realm.AllocateUser",
    "SDN.Allocate",
    "SDN.Audit",
    "SDN.Use",
    "Sys.Audit",
    "Sys.Console",
    "Sys.Syslog",
    "User.Modify",
]
PRIVILEGES: FrozenSet[str] = frozenset(_VM + _ROOT + _REST)


MAIN_PATHS = ("/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms")


def _like(pattern: str) -> FrozenSet[str]:
    return frozenset(name for name in PRIVILEGES if re.fullmatch(pattern, name))


_ADMIN_ONLY = frozenset([*_ROOT, "Permissions.Modify", "Realm.Allocate"])
ROLES: Mapping[str, FrozenSet[str]] = {
    "Administrator": PRIVILEGES,
    "NoAccess": frozenset(),
    "PVEAdmin": PRIVILEGES - _ADMIN_ONLY,
    "PVEAuditor": _like(r"(VM|Sys|Datastore|SDN|Pool|Mapping|VM\.GuestAgent)\.Audit"),
    "PVEVMAdmin": frozenset(_VM),
    "PVEVMUser": _like(r"VM\.(Audit|Backup|Config\.(CDROM|Cloudinit)|Console|GuestAgent\.Audit|PowerMgmt)"),
    "PVEDatastoreAdmin": _like(r"Datastore\..*"),
    "PVEDatastoreUser": _like(r"Datastore\.(AllocateSpace|Audit)"),
    "PVETemplateUser": _like(r"VM\.(Audit|Clone)"),
    "PVESDNAdmin": _like(r"SDN\..*"),
    "PVESDNUser": _like(r"SDN\.(Audit|Use)"),
    "PVEPoolAdmin": _like(r"Pool\..*"),
    "PVEPoolUser": _like(r"Pool\.Audit"),
    "PVEMappingUser": _like(r"Mapping\.Use"),
    "PVEMappingAdmin": _like(r"Mapping\..*"),
    "PVEMappingAuditor": _like(r"Mapping\.Audit"),
    "PVESysAdmin": _like(r"Sys\.(Audit|Console|Syslog)"),
    "PVEUserAdmin": _like(r"(User\.Modify|Group\.Allocate|Realm\.AllocateUser)"),
}


@dataclass(frozen=True)
class Token:
    """An API token of a user."""

    expire: int
    privsep: bool
    comment: str = ""


@dataclass
class UserConfig:
    """user.cfg, parsed."""

    users: Dict[str, Dict[str, str]] = field(default_factory=dict)
    groups: Dict[str, List[str]] = field(default_factory=dict)
    tokens: Dict[str, Token] = field(default_factory=dict)
    roles: Dict[str, FrozenSet[str]] = field(default_factory=dict)
    pools: Dict[str, Dict[str, List[str]]] = field(default_factory=dict)
    acl: Dict[str, Dict[str, Dict[str, bool]]] = field(default_factory=dict)
    """path -> user, token or @group -> role -> propagates"""

    @classmethod
    def parse(cls, text: str) -> "UserConfig":
        """Parse the file's text; unknown lines are skipped."""
        config = cls(roles=dict(ROLES))
        for line in text.splitlines():
            kind, _, rest = line.strip().partition(":")
            reader = getattr(config, "_read_" + kind, None)
            if reader and not line.startswith("#"):
                reader(rest.split(":"))
        return config

    def _read_user(self, fields: List[str]) -> None:
        names = ("userid", "enable", "expire", "firstname", "lastname", "email", "comment", "keys")
        self.users[fields[0]] = dict(zip(names, fields))

    def _read_group(self, fields: List[str]) -> None:
        self.groups[fields[0]] = _words(fields[1] if len(fields) > 1 else "")

    def _read_token(self, fields: List[str]) -> None:
        expire, privsep, comment = [*fields[1:], "", "", ""][:3]
        self.tokens[fields[0]] = Token(int(expire or 0), privsep == "1", comment)

    def _read_role(self, fields: List[str]) -> None:
        self.roles[fields[0]] = frozenset(_words(fields[1] if len(fields) > 1 else ""))

    def _read_pool(self, fields: List[str]) -> None:
        _, vms, storages = [*fields[1:], "", "", ""][:3]
        self.pools[fields[0]] = {"vms": _words(vms), "storages": _words(storages)}

    def _read_acl(self, fields: List[str]) -> None:
        propagate, path, who, roles = [*fields, "", "", "", ""][:4]
        entries = self.acl.setdefault(path, {})
        for name in _words(who):
            entries.setdefault(name, {}).update({role: propagate == "1" for role in _words(roles)})


def _words(text: str) -> List[str]:
    return [word for word in re.split(r"[,;\s]+", text) if word]


def pool_paths(members: Mapping[str, Sequence[str]]) -> List[str]:
    """The ACL paths of a pool's members."""
    return ["/vms/" + vmid for vmid in members["vms"]] + ["/storage/" + sid for sid in members["storages"]]


def levels(path: str) -> Iterator[str]:
    """/a/b -> /, /a, /a/b."""
    yield "/"
    at = ""
    for part in path.strip("/").split("/"):
        if part:
            at += "/" + part
            yield at


class Access:
    """What a user string may do; reads user.cfg at construction only."""

    def __init__(self, config: UserConfig) -> None:
        self.config = config

    @classmethod
    def of(cls, node: Node) -> "Access":
        """The rules in force on a node now."""
        try:
            text = node.path("/etc/pve/user.cfg").read_text("utf-8")
        except FileNotFoundError:
            text = ""
        return cls(UserConfig.parse(text))

    def known(self, user: str, now: float) -> bool:
        """Whether a user or token exists, is enabled and has not expired."""
        owner, _, token = user.partition("!")
        entry = self.config.users.get(owner)
        if entry is None:
            return user == "root@pam"
        if entry.get("enable") == "0" or 0 < int(entry.get("expire") or 0) <= now:
            return False
        if not token:
            return True
        known = self.config.tokens.get(user)
        return known is not None and not 0 < known.expire <= now

    def privileges(self, user: str, path: str) -> Set[str]:
        """Privileges of a user or token on a path, pools included."""
        return set(self.permissions(user, path))

    def permissions(self, user: str, path: str) -> Dict[str, int]:
        """The same with 1 for each privilege that goes on to the paths below, else 0."""
        owner, _, token = user.partition("!")
        if not token:
            return self._of_user(owner, path)
        entry = self.config.tokens.get(user)
        if entry is None:
            return {}
        held = self._of_user(owner, path)
        if not entry.privsep:
            return held
        own = self._with_pools(user, path)
        return {name: min(own[name], held[name]) for name in own if name in held}

    def _of_user(self, user: str, path: str) -> Dict[str, int]:
        if user == "root@pam":
            return dict.fromkeys(PRIVILEGES, 1)
        return self._with_pools(user, path)

    def _with_pools(self, who: str, path: str) -> Dict[str, int]:
        granted = self._granted(who, path)
        for pool, members in self.config.pools.items():
            if path in pool_paths(members):
                # RPCEnvironment.pm: never propagation for what a pool gives
                granted = {**dict.fromkeys(self._granted(who, "/pool/" + pool), 0), **granted}
        return granted

    def _granted(self, who: str, path: str) -> Dict[str, int]:
        roles = self._roles(who, path)
        if "NoAccess" in roles:
            return {}
        granted: Dict[str, int] = {}
        for role, propagates in roles.items():
            for name in self.config.roles.get(role, frozenset()):
                granted[name] = max(granted.get(name, 0), int(propagates))
        return granted

    def _roles(self, who: str, path: str) -> Dict[str, bool]:
        """The deepest level with an entry wins; own entries beat those of groups on the same level."""
        groups = ["@" + name for name, members in self.config.groups.items() if who in members]
        won: Dict[str, bool] = {}
        for level in levels(path):
            entries = self.config.acl.get(level, {})
            for names in ([who], groups):
                here = {
                    role: propagates
                    for name in names
                    for role, propagates in entries.get(name, {}).items()
                    if propagates or level == path
                }
                if here:
                    won = here
                    break
        return won

    def may(self, user: str, path: str, privileges: Sequence[str], any_of: bool = False) -> bool:
        """Whether the user holds all (or any) of the privileges on the path."""
        held = self.privileges(user, path)
        return any(p in held for p in privileges) if any_of else all(p in held for p in privileges)

    def overview(self, user: str, only: Optional[str] = None) -> Dict[str, Dict[str, int]]:
        """What GET /access/permissions shows: path -> privilege -> propagates.

        One path is shown whatever it has; else the main paths, those of the ACLs and of pool members, unless empty.
        """
        if only:
            return {only: self.permissions(user, only)}
        paths = set(MAIN_PATHS)
        for path in self.config.acl:
            paths |= set(levels(path))
        for members in self.config.pools.values():
            paths |= set(pool_paths(members))
        found = {path: self.permissions(user, path) for path in sorted(paths)}
        return {path: held for path, held in found.items() if held}
