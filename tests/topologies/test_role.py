# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role as a user runs it, with namespaces for hosts: verdict, reports, no trace, no key in any output."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from topologies.spaces import Net
from topologies.test_topologies import V4, bridged, switched

ROOT = Path(__file__).resolve().parents[2]
HOSTS = {"alpha-a1": "a", "beta-b1": "b", "office": "o"}
CLUSTERS = {"alpha": {"nodes": {"a1": {}}}, "beta": {"nodes": {"b1": {}}}}


@pytest.fixture
def net():
    found = Net()
    yield found
    found.close()


def play(net: Net, place: Path, *words: str) -> tuple[int, str]:
    """Runs the playbook; every host has a Python that lives in its namespace."""
    hosts = {}
    for host, space in HOSTS.items():
        python = place / f"python-{host}"
        python.write_text(f'#!/bin/sh\nexec nsenter --net=/proc/{net.spaces[space].pid}/ns/net {sys.executable} "$@"\n')
        python.chmod(0o755)
        hosts[host] = {"ansible_connection": "local", "ansible_python_interpreter": str(python)}
    inventory = place / "inventory.json"
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    everything = {"hosts": {**hosts, "localhost": local}, "vars": {"crosscluster_clusters": CLUSTERS}}
    inventory.write_text(json.dumps({"all": everything}))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build" / "links"),
        "ANSIBLE_NOCOLOR": "1",
    }
    argv = [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, ROOT / "playbooks/trusted_network.yml"]
    argv += ["-e", f"check_network={V4}", "-e", "check_outside=office", *words]
    argv += ["-e", f"check_report={place}/report.html", "-e", f"check_report_json={place}/report.json"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, cwd=place)
    return done.returncode, done.stdout + done.stderr


def verdict(place: Path) -> dict:
    return json.loads((place / "report.json").read_text())["verdicts"][0]


@pytest.mark.timeout(300)
def test_private_network_is_proven_and_nothing_is_left(net, tmp_path):
    switched(V4)(net)
    status, said = play(net, tmp_path, "-e", "check_required=private-proven", "-vvv")
    assert status == 0, said[-4000:]
    assert verdict(tmp_path)["verdict"] == "private-proven"
    assert "changed=0" in said
    assert not re.search(r"\b[0-9a-f]{64}\b", said), "the key shows"
    for name in "ab":
        rules = subprocess.run(
            ["nsenter", f"--net=/proc/{net.spaces[name].pid}/ns/net", "nft", "list", "ruleset"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        listening = subprocess.run(
            ["nsenter", f"--net=/proc/{net.spaces[name].pid}/ns/net", "ss", "-Htuln"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert (rules, listening) == ("", "")


@pytest.mark.timeout(300)
def test_report_names_what_failed_where_and_the_remedy(net, tmp_path):
    bridged("tap100i0")(net)
    status, said = play(net, tmp_path, "-e", "check_required=private-proven")
    assert status != 0
    assert "Worse than private-proven: alpha-a1 beta-b1 unknown" in " ".join(said.split())
    page = (tmp_path / "report.html").read_text()
    cause = next(check for check in verdict(tmp_path)["checks"] if check["state"] == "failed")
    assert (cause["number"], cause["node"]) == (12, "alpha-a1")
    for words in (cause["node"], cause["finding"], cause["remedy"].replace("'", "&#39;")):
        assert words in page
    assert page.index(cause["finding"]) < page.index("checks passed, and notes")


@pytest.mark.timeout(300)
def test_check_mode_sends_nothing_and_proves_nothing(net, tmp_path):
    switched(V4)(net)
    statement = '{"check_statement": {"accepted_by": "operator", "until": "2099-12-31"}}'
    status, said = play(net, tmp_path, "-e", statement, "--check")
    assert status == 0, said[-4000:]
    assert "private-claimed" in said
