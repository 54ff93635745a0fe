# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PID 1 of a host that is a machine: gives its network cards their names and addresses, then is hostinit.py.

Started by boot.c with the tree as root and the host's own files at /mnt.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys

HERE = "/mnt"


def card_names() -> dict:
    """Hardware address to what the kernel calls the card."""
    found = {}
    for name in os.listdir("/sys/class/net"):
        with open("/sys/class/net/%s/address" % name, encoding="ascii") as file:
            found[file.read().strip()] = name
    return found


def bring_network_up(settings: dict) -> None:
    """Name the cards, then do what the lab does in the namespace of any other host."""
    names = card_names()
    lines = ["link set %s name %s" % (names[address], name) for address, name in settings["cards"].items()]
    batch = "\n".join([*lines, *settings["network"]]) + "\n"
    subprocess.run(["/usr/sbin/ip", "-batch", "-"], input=batch.encode(), check=True)


def main() -> None:
    with open(HERE + "/init.json", encoding="utf-8") as file:
        settings = json.load(file)
    bring_network_up(settings)
    sys.argv = [HERE + "/tests/lab/hostinit.py", HERE + "/init.json"]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
