# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ha-manager: edits the resources; no manager runs. `recover`, the lab's own, plays a recovery after fencing."""

from __future__ import annotations

import sys

from lab.commands.cli import Arguments, Command, main, say
from lab.node.base import Die, Node
from lab.node.ha import Resources, recover


def _sid(arguments: Arguments) -> str:
    sid = arguments.positional[0]
    return sid if ":" in sid else f"vm:{sid}"


def add(node: Node, arguments: Arguments) -> None:
    """Make a VM an HA resource."""
    if _sid(arguments) in Resources(node).sections():
        raise Die(f"resource ID '{_sid(arguments)}' already defined")
    Resources(node).set(_sid(arguments), arguments.options.get("state", "started"))


def change(node: Node, arguments: Arguments) -> None:
    """Change the requested state."""
    Resources(node).get(_sid(arguments))
    Resources(node).set(_sid(arguments), arguments.options.get("state", "started"))


def remove(node: Node, arguments: Arguments) -> None:
    """Take a VM out of HA."""
    Resources(node).remove(_sid(arguments))


def config(node: Node, arguments: Arguments) -> None:
    """Resources and their states."""
    for entry in Resources(node).listing():
        keys = sorted(key for key in entry if key not in ("sid", "type", "digest"))
        say(f"{entry['sid']}\n" + "".join(f"\t{key} {entry[key]}\n" for key in keys) + "\n")


def status(node: Node, arguments: Arguments) -> None:
    """Every service is queued, as while no manager runs."""
    say("quorum OK\nfencing standby (CRM watchdog standby)\n")
    for entry in Resources(node).listing():
        if entry["state"] != "ignored":
            say(f"service {entry['sid']} ({node.name}, queued)\n")


def play_recovery(node: Node, arguments: Arguments) -> None:
    """The lab's own word: what recovery after fencing does."""
    recover(node, arguments.vmid())


COMMANDS = {
    "add": Command(add, ("sid",), values=("state", "group", "comment", "max_restart", "max_relocate")),
    "config": Command(config),
    "recover": Command(play_recovery, ("vmid",)),
    "remove": Command(remove, ("sid",), booleans=("purge",)),
    "set": Command(change, ("sid",), values=("state", "comment", "max_restart", "max_relocate")),
    "status": Command(status),
}

if __name__ == "__main__":
    sys.exit(main("ha-manager", COMMANDS))
