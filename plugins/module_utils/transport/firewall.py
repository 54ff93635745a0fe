# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""One nft table per migration that lets only the peer reach the listener. An edge file: runs ``nft``.

A drop of ours is final, an accept of ours would overrule nobody (direct-transports 7): the table only narrows, and
opening the port in the node's own firewall is a task of its own. It comes before the listener and goes as a whole.
"""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

from .incoming_errors import FirewallMissing

__all__ = ["Firewall", "Rule", "run_nft"]

_TIMEOUT = 10.0  # seconds; the kernel answers in milliseconds
_DEVICE = re.compile(r"[^\s\"\\/]{1,15}", re.ASCII)  # IFNAMSIZ - 1; nothing that ends a word of nft
COUNTERS = ("strangers", "other_devices")

Run = Callable[[Sequence[str], str], Tuple[int, str, str]]


@dataclass(frozen=True)
class Rule:
    """What is let in: one peer, to one address and port, over one device; None when the address is on several."""

    migration_id: str
    address: str
    port: int
    peer_address: str
    device: Optional[str]

    @property
    def table(self) -> str:
        """Name of the table."""
        return f"crosscluster_{self.migration_id}"

    def to_text(self) -> str:
        """The commands that make the table anew, one transaction: whatever had its name is gone with it.

        Both rules name our address: a listener of another migration may have the same port on another one.
        """
        own, peer = _plain(self.address), _plain(self.peer_address)
        family = "ip" if own.version == 4 else "ip6"
        if own.version != peer.version:
            raise ValueError("the two addresses are of two families")
        to_us = f"{family} daddr {own} tcp dport {self.port:d}"
        rules = [f"{to_us} {family} saddr != {peer} counter name strangers drop"]
        if self.device is not None:
            if not _DEVICE.fullmatch(self.device):
                raise ValueError("no name of a device")
            rules.append(f'{to_us} iifname != "{self.device}" counter name other_devices drop')
        return "\n".join(
            [
                f"add table inet {self.table}",
                f"delete table inet {self.table}",
                f"table inet {self.table} {{",
                *(f"  counter {name} {{ }}" for name in COUNTERS),
                "  chain in {",
                "    type filter hook input priority -10; policy accept;",
                *(f"    {rule}" for rule in rules),
                "  }",
                "}",
                "",
            ]
        )


def run_nft(arguments: Sequence[str], text: str) -> Tuple[int, str, str]:
    """Run nft with ``text`` on its stdin: exit status and both outputs; -1 when it cannot be run."""
    try:
        done = subprocess.run(
            ["nft", *arguments],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, "", getattr(error, "strerror", None) or f"no answer in {_TIMEOUT:g} s"
    return done.returncode, done.stdout, done.stderr


class Firewall:
    """The tables of our migrations on this node."""

    def __init__(self, run: Run = run_nft) -> None:
        self._run = run

    def install(self, rule: Rule) -> None:
        """Make the table; raises FirewallMissing: there is none then."""
        status, _out, err = self._run(["-f", "-"], rule.to_text())
        if status != 0 or not self.exists(rule.migration_id):
            raise _missing(rule.table, err, status)

    def check(self) -> None:
        """Raises FirewallMissing when no table could be made; makes none."""
        status, _out, err = self._run(["-j", "list", "tables"], "")
        if status != 0:
            raise _missing("nft", err, status)

    def exists(self, migration_id: str) -> bool:
        """Whether the table of a migration is there."""
        return self._run(["list", "table", "inet", f"crosscluster_{migration_id}"], "")[0] == 0

    def remove(self, migration_id: str) -> bool:
        """Take the table away; False when it is there nevertheless. Nothing to remove is success."""
        self._run(["delete", "table", "inet", f"crosscluster_{migration_id}"], "")
        return not self.exists(migration_id)

    def counters(self, migration_id: str) -> Dict[str, int]:
        """Packets that were dropped, by reason: somebody knocked. Empty without a table."""
        status, out, _err = self._run(["-j", "list", "table", "inet", f"crosscluster_{migration_id}"], "")
        return _counters(out) if status == 0 else {}


def _missing(object: str, err: str, status: int) -> FirewallMissing:
    return FirewallMissing(
        f"no rule of nft can let in the peer alone: {_first_line(err) or f'exit status {status}'}",
        object=object,
        remedy="Install nftables on the target node, or use a transport that does without it",
    )


def _counters(text: str) -> Dict[str, int]:
    """Packets by counter, of ``nft -j list table``."""
    try:
        entries: Any = json.loads(text).get("nftables", [])
        found = [entry["counter"] for entry in entries if "counter" in entry]
        return {str(counter["name"]): int(counter["packets"]) for counter in found if counter["name"] in COUNTERS}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _plain(address: str) -> "ipaddress.IPv4Address | ipaddress.IPv6Address":
    """The address without its scope: nft knows the device by name."""
    return ipaddress.ip_address(address.partition("%")[0])


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:200] if text.strip() else ""
