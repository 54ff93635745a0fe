# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The firewall text of a VM as the tunnel's `config` saves it: read leniently, written anew (mtunnel-protocol 5.4)."""

from __future__ import annotations

import re
from typing import Dict, List

__all__ = ["saved"]

SECTION = re.compile(r"\[(options|aliases|rules|ipset\s+[a-z][a-z0-9_-]*)\](\s*#.*)?", re.IGNORECASE)
LINES = {
    "OPTIONS": re.compile(r"[a-z_]+:\s*\S.*", re.IGNORECASE),
    "ALIASES": re.compile(r"[a-z][a-z0-9_-]+\s+\S.*", re.IGNORECASE),
    "IPSET": re.compile(r"!?\s*[a-z0-9+].*", re.IGNORECASE),
    "RULES": re.compile(r"\|?(IN|OUT|FORWARD|GROUP)\s+\S.*"),
}
ORDER = ("OPTIONS", "ALIASES", "IPSET", "RULES")


def saved(text: str) -> str:
    """What the file holds afterwards: lines that make no sense where they stand are gone; nothing left, no file."""
    sections: Dict[str, List[str]] = {}
    head, kind = "", ""
    for line in (raw.strip() for raw in text.splitlines()):
        found = SECTION.fullmatch(line)
        if found:
            kind = found[1].split()[0].upper()
            head = "[%s]" % " ".join([kind, *found[1].split()[1:]]) + (found[2] or "")
        elif line.startswith("["):
            kind = ""
        elif kind and LINES[kind].fullmatch(line):
            sections.setdefault(head, []).append(line)
    ordered = sorted(sections, key=lambda name: ORDER.index(re.split(r"[\s\]]", name[1:])[0]))
    for name in ordered:
        if name.startswith("[OPTIONS]"):
            sections[name].sort()
    return "".join("%s\n\n%s\n\n" % (name, "\n".join(sections[name])) for name in ordered)
