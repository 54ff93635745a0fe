# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Firewall texts of moved VMs (mtunnel-protocol 5.4)."""

from __future__ import annotations

from lab.node.firewall import saved


def test_what_can_be_read_is_written_anew() -> None:
    rules, options = "[RULES]\nIN ACCEPT -p tcp -dport 22 # ssh\ngarbage\n", "[options]\npolicy_in: DROP\nenable: 1\n"
    text = "noise\n" + rules + "[nosuch]\nx: 1\n" + options
    wanted = "[OPTIONS]\n\nenable: 1\npolicy_in: DROP\n\n[RULES]\n\nIN ACCEPT -p tcp -dport 22 # ssh\n\n"
    assert saved(text) == wanted
    assert saved(wanted) == wanted
    assert saved("[IPSET bad]\n10.0.0.0/8\n!10.1.0.0/16\n") == "[IPSET bad]\n\n10.0.0.0/8\n!10.1.0.0/16\n\n"


def test_a_text_without_sense_leaves_no_file() -> None:
    assert not saved("garbage\n[RULES]\n")
