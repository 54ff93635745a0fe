# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker's handle of a pump, with small scripts in the place of the pump."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import PumpFailed
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import (
    DirectSettings,
    EndReason,
    EventName,
    Kind,
    PumpSettings,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.pump_handle import PumpHandle

SECRET = "12345678-90ab"
SETTINGS = PumpSettings(name="scsi0", kind=Kind.NBD, endpoint={}, path="/x", listen="/run/x/s")
HEAD = """
import json, sys
settings = json.loads(sys.stdin.readline())
def tell(**event): print(json.dumps(event), flush=True)
"""
ECHO = """
tell(event="listening")
for line in sys.stdin:
    command = json.loads(line)
    tell(event="stats", sent=7, said=command)
    if command["command"] == "cut":
        tell(event="ended", reason="cut", clean=False, detail="", sent=9)
        break
"""


def launch(script: str, settings: PumpSettings = SETTINGS, **more: Any) -> PumpHandle:
    return PumpHandle.launch([sys.executable, "-S", "-c", HEAD + script], settings, SECRET, **more)


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def test_handle_waits_until_qemu_may_connect():
    handle = launch('tell(event="listening"); sys.stdin.read()')
    handle.wait_listening(soon())
    assert handle.ended is None
    handle.kill()
    assert handle.ended is not None
    assert handle.ended.reason is EndReason.DIED


def test_secret_goes_through_the_pipe_only():
    handle = launch('tell(event="ended", reason="cut", clean=False, detail=settings["secret"])')
    assert handle.finish(soon()).detail == SECRET
    assert SECRET not in str(handle.process.args)


def test_commands_arrive_in_order_and_figures_come_back():
    handle = launch(ECHO)
    handle.wait_listening(soon())
    handle.set_rate(5)
    handle.set_rate(None)
    handle.set_write_blocking()
    handle.arm_switchover(10.0)
    handle.disarm_switchover()
    handle.cut()
    said = []
    while handle.ended is None:
        said += [event.facts["said"] for event in handle.poll_events() if event.name is EventName.STATS]
    assert [(command["command"], command["value"]) for command in said] == [
        ("rate", 5), ("rate", None), ("write_blocking", None), ("arm", 10.0), ("disarm", None), ("cut", None),
    ]  # fmt: skip
    assert (handle.ended.reason, handle.sent) == (EndReason.CUT, 9)
    assert handle.fileno() == -1


def test_end_of_the_input_is_no_end_of_the_stream():
    handle = launch('tell(event="draining", sent=520); sys.stdin.read()')
    while not handle.draining:
        handle.poll_events()
    assert (handle.sent, handle.ended) == (520, None)
    handle.kill()


def test_refused_connection_is_told_as_an_error():
    handle = launch('tell(event="ended", reason="connect_failed", clean=False, detail="UPGRADE_REFUSED: 401")')
    with pytest.raises(PumpFailed, match="401") as caught:
        handle.wait_listening(soon())
    assert caught.value.facts["reason"] == "connect_failed"


def test_stream_that_never_stood_says_why_in_words_for_people():
    handle = launch(
        'tell(event="ended", reason="refused", clean=False, code="NETWORK_CHANGED", detail="It has changed")'
    )
    with pytest.raises(PumpFailed, match="The stream scsi0 does not stand: It has changed") as caught:
        handle.wait_standing(soon())
    assert caught.value.facts["code"] == "NETWORK_CHANGED"


@pytest.mark.parametrize(
    "script", ["", "raise SystemExit(3)", 'print("noise", flush=True)'], ids=["end", "exit", "noise"]
)
def test_pump_without_last_words_has_died(script):
    handle = launch(script)
    assert handle.finish(soon()).reason is EndReason.DIED


def test_silent_pump_is_killed_at_the_deadline():
    handle = launch("sys.stdin.read()")
    with pytest.raises(PumpFailed):
        handle.wait_listening(soon(0.05))
    assert handle.process.poll() is not None


def test_finish_kills_at_the_deadline():
    handle = launch("sys.stdin.read()")
    assert handle.finish(soon(0.05)).reason is EndReason.DIED


def test_command_for_a_dead_pump_is_no_error():
    handle = launch("")
    handle.process.wait()
    handle.cut()
    handle.cut()
    assert handle.ended is not None


def test_pump_inherits_the_exporters_output():
    reader, writer = os.pipe()
    script = f'import os; tell(event="ended", reason="local_eof", clean=True, detail=os.read({reader}, 9).decode())'
    settings = PumpSettings(name="tpm", kind=Kind.IMPORT, endpoint={}, path="/x", input_fd=reader)
    handle = launch(script, settings, input_fd=reader)
    os.close(reader)
    os.write(writer, b"exported")
    assert handle.finish(soon()).detail == "exported"
    os.close(writer)


DIRECT = DirectSettings(
    name="ram", kind=Kind.RAM, plane="tls", address="192.0.2.2", port=60100, peer_name="b1", own_name="a1",
    migration_id="0" * 32, stream="ram", credentials="/pki",
)  # fmt: skip


def test_direct_pump_stands_before_it_is_opened():
    script = """
tell(event="standing", peer={"name": "b1"})
command = json.loads(sys.stdin.readline())
tell(event="listening", pid=1)
tell(event="ended", reason="cut", clean=False, detail=json.dumps(command))
"""
    handle = launch(script, DIRECT)
    handle.wait_standing(soon())
    assert handle.peer == {"name": "b1"}
    assert not handle.listening
    handle.open("/run/x/ram.sock")
    assert handle.finish(soon()).detail == '{"command": "open", "value": {"listen": "/run/x/ram.sock"}}'
    assert handle.listening


def test_direct_pump_that_is_refused_says_why():
    handle = launch('tell(event="ended", reason="refused", clean=False, detail="no such stream")', DIRECT)
    with pytest.raises(PumpFailed, match="no such stream"):
        handle.wait_standing(soon())
    assert handle.peer is None
