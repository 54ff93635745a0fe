# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module does, with a starter that only answers."""

from __future__ import annotations

import json
import subprocess

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import CrossclusterError
from ansible_collections.crosscluster.migration.plugins.module_utils.migration import (
    incoming_engine,
    incoming_places,
    incoming_start,
    package,
    places,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.incoming_settings import IncomingSettings
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.firewall import Firewall
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.incoming_errors import PortsTaken

ID, KEY = "5d" * 16, "ab" * 32
OPTIONS = {
    "migration_id": ID,
    "transports": ["tcp"],
    "address": "127.0.0.9",
    "ports": "61850-61859",
    "peer_address": "127.0.0.11",
    "peer_name": None,
    "domain": None,
    "key": KEY,
    "lifetime": "10 min",
    "limits": {},
}
SETTINGS = IncomingSettings.parse({**OPTIONS, "lifetime": 600.0})
STATUS = dict(
    SETTINGS.to_dict(),
    digest=SETTINGS.digest(KEY),
    port=61850,
    own_name="",
    planes=["tcp"],
    rejected={},
    firewall={"installed": True, "counters": {}},
    warnings=[],
    streams=[],
)


@pytest.fixture(autouse=True)
def node(tmp_path, monkeypatch):
    """A node on which nothing listens and nft is at hand."""
    monkeypatch.setattr(places, "RUN", str(tmp_path / "run"))
    monkeypatch.setattr(package, "install", lambda: ("digest", "/worker.pyz"))
    monkeypatch.setattr(incoming_start, "running", lambda _id: None)
    for module in (incoming_engine, incoming_start):
        monkeypatch.setattr(module, "Firewall", lambda: Firewall(lambda words, _text: (int("-j" not in words), "", "")))


@pytest.fixture
def starter(monkeypatch):
    """What was started, and the answer that it gives."""
    calls, answer = [], {"data": dict(STATUS, changed=True)}

    def run(argv, **more):
        calls.append((argv, more["input"]))
        return subprocess.CompletedProcess(argv, 0, json.dumps(answer).encode() + b"\n", b"")

    monkeypatch.setattr(incoming_engine.subprocess, "run", run)
    return calls, answer


def test_key_goes_to_the_starter_through_its_stdin(starter):
    calls, _answer = starter
    result = incoming_engine.listening(OPTIONS)
    ((argv, given),) = calls
    assert (argv[-1], KEY in " ".join(argv)) == ("incoming-start", False)
    assert json.loads(given)["key"] == KEY
    assert (result["changed"], result["port"], result["planes"]) == (True, 61850, ["tcp"])
    assert (result["diff"]["before"], result["diff"]["after"]["port"]) == ({}, 61850)
    assert KEY not in json.dumps(result)


def test_error_of_the_starter_keeps_its_code(starter):
    _calls, answer = starter
    answer.clear()
    answer["error"] = PortsTaken("all ports are taken", object="127.0.0.9").to_dict()
    with pytest.raises(CrossclusterError) as refusal:
        incoming_engine.listening(OPTIONS)
    assert refusal.value.code == "PORTS_TAKEN"


def test_starter_that_says_nothing_is_an_error(monkeypatch):
    done = subprocess.CompletedProcess([], 1, b"", b"Traceback")
    monkeypatch.setattr(incoming_engine.subprocess, "run", lambda *_words, **_more: done)
    with pytest.raises(CrossclusterError) as refusal:
        incoming_engine.listening(OPTIONS)
    assert (refusal.value.code, refusal.value.facts) == ("INCOMING_FAILED", {"stderr": "Traceback"})


def test_one_that_listens_already_is_kept(starter, monkeypatch):
    monkeypatch.setattr(incoming_start, "running", lambda _id: STATUS)
    result = incoming_engine.listening(OPTIONS)
    assert (result["changed"], starter[0]) == (False, [])
    assert result["diff"]["before"] == result["diff"]["after"]
    with pytest.raises(CrossclusterError) as refusal:
        incoming_engine.listening({**OPTIONS, "lifetime": "5 min"})
    assert refusal.value.code == "INCOMING_DIFFERS"


def test_check_mode_looks_and_starts_nothing(monkeypatch):
    monkeypatch.setattr(incoming_engine, "_start", lambda *_words: pytest.fail("something was started"))
    monkeypatch.setattr(incoming_engine, "device_with", lambda _address: None)
    result = incoming_engine.listening(OPTIONS, check_mode=True)
    assert (result["changed"], result["planes"]) == (True, ["tcp"])
    assert 61850 <= result["port"] <= 61859
    with pytest.raises(CrossclusterError) as refusal:
        incoming_engine.listening({**OPTIONS, "address": "192.0.2.7", "peer_address": "192.0.2.8"}, check_mode=True)
    assert refusal.value.code == "ADDRESS_ABSENT"


def test_key_of_another_form_is_refused_and_not_repeated():
    with pytest.raises(CrossclusterError) as refusal:
        incoming_engine.listening({**OPTIONS, "key": "canary"})
    assert "canary" not in json.dumps(refusal.value.to_dict())


def test_timer_outside_its_bounds_is_refused():
    with pytest.raises(CrossclusterError, match="deadman"):
        incoming_engine.listening({**OPTIONS, "limits": {"deadman": 60}})


def test_lifetime_needs_its_unit():
    with pytest.raises(CrossclusterError, match="lifetime"):
        incoming_engine.listening({**OPTIONS, "lifetime": "600"})


def test_absent_removes_what_a_killed_one_left():
    incoming_places.write_order(ID, {"key": KEY})
    assert incoming_engine.absent(ID, check_mode=True)["changed"]
    assert incoming_engine.absent(ID)["changed"]
    assert not incoming_engine.absent(ID)["changed"]
    with pytest.raises(CrossclusterError, match="no migration id"):
        incoming_engine.absent("../../etc")
