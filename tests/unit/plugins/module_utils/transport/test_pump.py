# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process of a pump: the settings choose it, and it always has a last word without its secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from unit.fakes.pump_runner import Runner

from ansible_collections.crosscluster.migration.plugins.module_utils.transport import pump
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import (
    DirectSettings,
    Kind,
    PumpSettings,
)

SECRET = "5a" * 32
DIRECT = DirectSettings(
    name="ram", kind=Kind.RAM, plane="tcp", address="127.0.0.1", port=1, peer_name="b1", own_name="a1",
    migration_id="0" * 32, stream="ram",
)  # fmt: skip
WEBSOCKET = PumpSettings(
    name="ram", kind=Kind.RAM, path="/x", listen="/nowhere/s",
    endpoint={"host": "127.0.0.1", "port": 1, "node": "b1", "user": "u@pve", "token_id": "t1", "fingerprint": "00" * 32,
              "ca_path": None, "validate_certs": True},
)  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "detail"), [(DIRECT, "No connection to 127.0.0.1 port 1: "), (WEBSOCKET, "CONNECT_FAILED: ")]
)
def test_settings_choose_the_pump(settings, detail):
    end = Runner(settings, SECRET).end()
    assert (end["reason"], end["clean"]) == ("connect_failed", False)
    assert end["detail"].startswith(detail)


@pytest.mark.parametrize("line", [b"", b"{}\n", DIRECT.to_line(SECRET).replace(b'"tcp"', b'"udp"')])
def test_last_word_never_repeats_the_settings(line):
    reader, commands = os.pipe()
    events, writer = os.pipe()
    os.write(commands, line)
    os.close(commands)
    assert pump.main(reader, writer) == 0
    os.close(writer)
    said = os.read(events, 65536)
    assert json.loads(said)["detail"].startswith("PUMP_SETTINGS")
    assert SECRET.encode() not in said
    os.close(reader)
    os.close(events)


def test_what_the_other_pump_needs_is_not_loaded():
    links = str(Path(__file__).parents[5] / ".build" / "links")
    module = "ansible_collections.crosscluster.migration.plugins.module_utils.transport"
    program = f"import sys; sys.path.insert(0, {links!r}); import {module}.direct_pump; print(*sys.modules)"
    names = subprocess.run([sys.executable, "-I", "-B", "-c", program], check=True, capture_output=True, text=True)
    assert not [name for name in names.stdout.split() if "module_utils.websocket" in name or "proxmox" in name]
