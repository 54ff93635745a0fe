# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting and ending without a process: what a starter sees and does. ``test_incoming`` has the real ones."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import CrossclusterError
from ansible_collections.crosscluster.migration.plugins.module_utils.migration import (
    incoming_places,
    incoming_start,
    places,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.incoming_settings import IncomingSettings
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.firewall import Firewall
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.incoming_errors import PortsTaken

ID, KEY = "5d" * 16, "ab" * 32
SETTINGS = IncomingSettings(ID, ("tcp",), "10.77.0.21", (60100, 60149), "10.77.0.11")


@pytest.fixture(autouse=True)
def own_directories(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "LIBRARY", str(tmp_path / "lib"))
    monkeypatch.setattr(places, "RUN", str(tmp_path / "run"))
    monkeypatch.setattr(incoming_start, "Firewall", lambda: Firewall(lambda _arguments, _text: (1, "", "")))


def detaching(monkeypatch, happen):
    def detach(migration_id):
        happen(migration_id)
        return lambda: False

    monkeypatch.setattr(incoming_start, "_detach", detach)


def order(**changes):
    return io.StringIO(json.dumps({"settings": SETTINGS.to_dict(), "key": KEY, **changes}))


def test_reason_of_one_that_could_not_start_is_the_answer(monkeypatch, capsys):
    error = PortsTaken("all ports are taken", object="10.77.0.21")
    detaching(monkeypatch, lambda migration_id: incoming_places.write_failure(migration_id, error.to_dict()))
    monkeypatch.setattr(sys, "stdin", order())
    assert incoming_start.main(["incoming-start"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"]["code"] == "PORTS_TAKEN"
    assert not os.path.exists(places.run_directory(ID))


def test_one_that_died_without_a_word_is_not_waited_for(monkeypatch, capsys):
    detaching(monkeypatch, lambda _migration_id: None)
    monkeypatch.setattr(sys, "stdin", order())
    assert incoming_start.main(["incoming-start"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"]["code"] == "INCOMING_FAILED"
    assert "died at its start" in answer["error"]["message"]
    assert not os.path.exists(places.run_directory(ID))


def test_settings_that_cannot_be_right_are_refused_before_anything(monkeypatch, capsys):
    detaching(monkeypatch, lambda _migration_id: pytest.fail("something was started"))
    monkeypatch.setattr(sys, "stdin", order(settings={**SETTINGS.to_dict(), "address": "0.0.0.0"}))
    assert incoming_start.main(["incoming-start"]) == 0
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "INCOMING_INVALID"


def test_answer_of_one_that_listens_is_given_on(monkeypatch):
    answers = iter([None, {"digest": SETTINGS.digest(KEY), "port": 60100}])
    monkeypatch.setattr(incoming_start, "running", lambda _id: next(answers))
    orders = []
    detaching(monkeypatch, lambda migration_id: orders.append(incoming_places.read_once(migration_id, "order")))
    assert incoming_start.start(SETTINGS, KEY) == {"digest": SETTINGS.digest(KEY), "port": 60100, "changed": True}
    assert orders == [{"settings": SETTINGS.to_dict(), "key": KEY}]


def test_one_with_other_settings_is_refused():
    with pytest.raises(CrossclusterError) as refusal:
        incoming_start.same({"digest": SETTINGS.digest(KEY)}, SETTINGS, "")
    assert refusal.value.code == "INCOMING_DIFFERS"


def test_nothing_to_end_is_no_change():
    assert incoming_start.end(ID) is False


def test_process_without_an_order_tells_its_starter(capsys):
    assert incoming_start.main(["incoming", ID]) == 1
    assert incoming_places.read_once(ID, "failed")["message"] == "nobody said what to do"


def test_second_process_of_an_id_steps_back():
    holder = incoming_places.Holder(ID)
    assert holder.take()
    incoming_places.write_order(ID, {"key": KEY})
    assert incoming_start.main(["incoming", ID]) == 0
    assert incoming_places.read_once(ID, "order") == {"key": KEY}
    holder.release()


@pytest.mark.parametrize("systemd", [True, False])
def test_no_secret_is_in_the_words_of_the_process(monkeypatch, systemd):
    run = []
    monkeypatch.setattr(os.path, "isdir", lambda path: systemd and path == "/run/systemd/system")
    monkeypatch.setattr(subprocess, "run", lambda argv, **_more: run.append(argv))
    monkeypatch.setattr(subprocess, "Popen", lambda argv, **_more: run.append(argv))
    incoming_start._detach(ID)
    (argv,) = run
    assert argv[-2:] == ["incoming", ID]
    assert (argv[0] == "systemd-run") is systemd


def test_unknown_words_are_answered_with_the_usage(capsys):
    assert incoming_start.main(["incoming"]) == 2
    assert capsys.readouterr().err.startswith("usage:")
