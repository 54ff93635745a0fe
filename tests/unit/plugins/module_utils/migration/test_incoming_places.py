# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import stat
import subprocess
import sys
import time

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import incoming_places, places
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.firewall import Firewall
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.incoming_errors import IncomingFailed

ID = "5d" * 16
NO_TABLE = Firewall(lambda _arguments, _text: (1, "", "No such file or directory"))
STUBBORN = Firewall(lambda _arguments, _text: (0, "", ""))
# Takes the lock of a file as the listening end does, writes its number, and hears no SIGTERM.
HOLD = """
import fcntl, os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[2] == "stubborn" else signal.SIG_DFL)
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(file, fcntl.LOCK_EX)
os.write(file, b"%d" % os.getpid())
print("held", flush=True)
signal.pause()
"""


@pytest.fixture(autouse=True)
def own_directories(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "LIBRARY", str(tmp_path / "lib"))
    monkeypatch.setattr(places, "RUN", str(tmp_path / "run"))


def holding(temper):
    os.makedirs(places.run_directory(ID))
    path = os.path.join(places.run_directory(ID), "incoming.lock")
    process = subprocess.Popen([sys.executable, "-c", HOLD, path, temper], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    return process


def test_order_is_for_root_alone_and_read_once():
    incoming_places.write_order(ID, {"key": "ab"})
    path = os.path.join(places.run_directory(ID), "incoming.order")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert incoming_places.read_once(ID, "order") == {"key": "ab"}
    assert incoming_places.read_once(ID, "order") is None


def test_one_holder_at_a_time():
    first, second = incoming_places.Holder(ID), incoming_places.Holder(ID)
    assert first.take()
    assert not second.take()
    first.release()
    assert second.take()
    second.release()


@pytest.mark.parametrize("temper", ["willing", "stubborn"])
def test_one_that_lives_is_ended_whatever_it_does(temper, monkeypatch):
    monkeypatch.setattr(incoming_places, "_TERM_TIMEOUT", 0.3)
    process = holding(temper)
    try:
        holder = incoming_places.Holder(ID)
        assert not holder.take()
        assert holder.end()
        holder.release()
        assert process.wait(2) < 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_nothing_is_left_after_cleaning():
    incoming_places.write_order(ID, {})
    incoming_places.write_failure(ID, {"code": "PORTS_TAKEN"})
    assert incoming_places.traces(ID, NO_TABLE)
    incoming_places.clean(ID, NO_TABLE, keep_failure=True)
    assert incoming_places.read_once(ID, "failed") == {"code": "PORTS_TAKEN"}
    incoming_places.clean(ID, NO_TABLE)
    assert not incoming_places.traces(ID, NO_TABLE)
    assert not os.path.exists(places.run_directory(ID))


def test_what_is_not_ours_stays():
    incoming_places.write_order(ID, {})
    other = os.path.join(places.run_directory(ID), "control.sock")
    open(other, "w").close()
    incoming_places.clean(ID, NO_TABLE)
    assert os.listdir(places.run_directory(ID)) == ["control.sock"]


def test_rule_that_stays_is_an_error_with_the_command_that_helps():
    assert incoming_places.traces(ID, STUBBORN)
    with pytest.raises(IncomingFailed) as refusal:
        incoming_places.clean(ID, STUBBORN)
    assert refusal.value.remedy == f"nft delete table inet crosscluster_{ID}"


def test_logs_of_long_ago_go_in_passing():
    old = incoming_places.log_path("aa" * 16)
    open(old, "w").close()
    os.utime(old, (time.time() - 40 * 86400,) * 2)
    new = incoming_places.log_path(ID)
    assert not os.path.exists(old)
    assert new.endswith(f"incoming/{ID}.log")


def test_id_that_is_none_leads_nowhere():
    with pytest.raises(Exception, match="no migration id"):
        incoming_places.socket_path("../../etc")
