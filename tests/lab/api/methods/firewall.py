# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""firewall/ of the cluster, of a node, of a VM: what their files in /etc/pve say. Read only."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List

from ..registry import Call, Need, method

FILES = {
    "/cluster": ("/etc/pve/firewall/cluster.fw", Need("/", ("Sys.Audit",))),
    "/nodes/{node}": ("/etc/pve/nodes/{node}/host.fw", Need("/nodes/{node}", ("Sys.Audit",))),
    "/nodes/{node}/qemu/{vmid}": ("/etc/pve/firewall/{vmid}.fw", Need("/vms/{vmid}", ("VM.Audit",))),
}
NUMBERS = (
    "enable",
    "ebtables",
    "dhcp",
    "ipfilter",
    "macfilter",
    "ndp",
    "nftables",
    "nf_conntrack_max",
    "nosmurfs",
    "protection_synflood",
    "radv",
    "tcpflags",
)
RULE_WORDS = {"p": "proto", "i": "iface", "dport": "dport", "sport": "sport", "dest": "dest", "source": "source"}


@dataclass
class Firewall:
    """One file."""

    options: Dict[str, Any] = field(default_factory=dict)
    aliases: List[Dict[str, str]] = field(default_factory=list)
    sets: Dict[str, List[str]] = field(default_factory=dict)
    groups: Dict[str, List[str]] = field(default_factory=dict)
    rules: List[str] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> "Firewall":
        """Sections of `key: value`, `name cidr` and rule lines; what follows a # is a comment."""
        found = cls()
        rows: List[str] = []
        for raw in text.splitlines():
            line = raw.partition("#")[0].strip()
            head = re.fullmatch(r"\[(\w+)(?:\s+(\S+))?\]", line)
            if head:
                rows = found._section(head[1].lower(), head[2] or "")
            elif line:
                rows.append(line)
        for row in found._option_rows:
            key, _, value = row.partition(":")
            found.options[key.strip()] = (
                int(value) if key.strip() in NUMBERS and value.strip().isdigit() else value.strip()
            )
        for row in found._alias_rows:
            name, _, cidr = row.partition(" ")
            found.aliases.append({"name": name, "cidr": cidr.strip()})
        return found

    def __post_init__(self) -> None:
        self._option_rows: List[str] = []
        self._alias_rows: List[str] = []

    def _section(self, kind: str, name: str) -> List[str]:
        named = {"ipset": self.sets, "group": self.groups}
        if kind in named:
            return named[kind].setdefault(name, [])
        return {"options": self._option_rows, "aliases": self._alias_rows, "rules": self.rules}.get(kind, [])


def rule(row: str, at: int) -> Dict[str, Any]:
    """A rule line as the API shows it: `|` in front switches it off, the words before the options are its head."""
    words = row.lstrip("|").split()
    entry: Dict[str, Any] = {"pos": at, "enable": int(not row.startswith("|")), "type": words[0].lower()}
    entry["action"] = words[1] if len(words) > 1 else ""
    macro = re.fullmatch(r"(\w+)\((\w+)\)", entry["action"])
    if macro:
        entry.update({"macro": macro[1], "action": macro[2]})
    for option, value in zip(words[2::2], words[3::2]):
        entry[RULE_WORDS.get(option.lstrip("-"), option.lstrip("-"))] = value
    return entry


def _read(call: Call, path: str) -> Firewall:
    place = call.node.path(path.format(**{"node": call.node.name, **call.params}))
    return Firewall.parse(place.read_text("utf-8") if place.exists() else "")


def _with_digest(entry: Dict[str, Any]) -> Dict[str, Any]:
    return {
        **entry,
        "digest": hashlib.sha1(json.dumps(entry, sort_keys=True).encode(), usedforsecurity=False).hexdigest(),
    }


def _options(found: Firewall) -> Any:
    return _with_digest(found.options)


def _rules(found: Firewall) -> Any:
    return [_with_digest(rule(row, at)) for at, row in enumerate(found.rules)]


def _aliases(found: Firewall) -> Any:
    return [_with_digest(dict(entry)) for entry in found.aliases]


def _sets(found: Firewall) -> Any:
    return [_with_digest({"name": name}) for name in sorted(found.sets)]


def _groups(found: Firewall) -> Any:
    return [_with_digest({"group": name}) for name in sorted(found.groups)]


def _reader(path: str, view: Callable[[Firewall], Any]) -> Callable[[Call], Any]:
    def run(call: Call) -> Any:
        return view(_read(call, path))

    return run


for _base, (_path, _need) in FILES.items():
    method("GET", _base + "/firewall/options", {}, _need)(_reader(_path, _options))
    method("GET", _base + "/firewall/rules", {}, _need)(_reader(_path, _rules))
    if _base != "/nodes/{node}":
        method("GET", _base + "/firewall/aliases", {}, _need)(_reader(_path, _aliases))
        method("GET", _base + "/firewall/ipset", {}, _need)(_reader(_path, _sets))
method("GET", "/cluster/firewall/groups", {}, FILES["/cluster"][1])(_reader(FILES["/cluster"][0], _groups))
