# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The canary: a token never shows up, whatever the user does wrong and however much Ansible is asked to tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CANARY = "canary-4711-0815-9f3b"
TARGET = {"api_host": "127.0.0.1", "api_port": 1, "node": "b1", "api_user": "m@pve", "api_token_id": "move"}
GOOD = {
    "source": {"vmid": 999999999},
    "target": TARGET,
    "target_api_token_secret": "{{ token }}",
    "disks": {"default": "fast"},
    "nics": {"default": "vmbr0"},
}
MISTAKES = {
    "right, and the task fails": GOOD,
    "a text where a dictionary belongs": {**GOOD, "target": "{{ token }}"},
    "a text where another dictionary belongs": {**GOOD, "source": "{{ token }}"},
    "a list where a dictionary belongs": {**GOOD, "disks": ["{{ token }}"]},
    "a misspelt option": {**GOOD, "targt": {"token": "{{ token }}"}},
    "a misspelt secret": {"source": {"vmid": 117}, "target": TARGET, "target_api_token_secrt": "{{ token }}"},
    "a secret within": {**GOOD, "target": {**TARGET, "api_token_secret": "{{ token }}"}},
    "a secret for a choice": {**GOOD, "state": "{{ token }}"},
    "a whole token for its name": {**GOOD, "target": {**TARGET, "api_token_id": "m@pve!move={{ token }}"}},
}
MODULES = ["migration", "tunnel", "target_vm"]


def play(module):
    tasks = [
        {
            "name": name,
            f"crosscluster.migration.{module}": {
                key: value for key, value in arguments.items() if module == "migration" or key != "state"
            },
            "delegate_to": "localhost",
            "ignore_errors": True,
            "check_mode": True,
        }
        for name, arguments in MISTAKES.items()
    ]
    head = {"hosts": "vm", "gather_facts": False, "vars": {"token": "{{ lookup('ansible.builtin.env', 'CANARY') }}"}}
    return [{**head, "tasks": tasks}]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("module", MODULES)
def test_token_does_not_show_up(module, tmp_path):
    book = tmp_path / "play.json"
    book.write_text(json.dumps(play(module)), encoding="utf-8")
    inventory = tmp_path / "inventory.ini"
    inventory.write_text(f"vm\nlocalhost ansible_connection=local ansible_python_interpreter={sys.executable}\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "LC_ALL": "C.UTF-8",
        "CANARY": CANARY,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build" / "links"),
        "ANSIBLE_NOCOLOR": "1",
    }
    argv = [Path(sys.executable).with_name("ansible-playbook"), "-vvvv", "-i", inventory, book]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    output = done.stdout + done.stderr
    assert f"ignored={len(MISTAKES)}" in output.replace(" ", ""), output[-3000:]
    shown = [line for line in output.splitlines() if CANARY in line]
    assert shown == []
