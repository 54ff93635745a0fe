# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real children: what they keep open, how they speak, how they end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.incoming_children import (
    Errand,
    StreamChild,
)


def wait_for(thing, seconds=5.0):
    poller = select.poll()
    poller.register(thing, select.POLLIN)
    assert poller.poll(seconds * 1000)


def end_of(child):
    for _message in range(10):
        wait_for(child)
        if child.hear() is None:
            child.bury()
            return child.end
    raise AssertionError("it goes on")


def test_child_asks_and_tells_how_it_ended():
    def carry(parent):
        answer = parent.ask(2.0, ask="path")
        parent.tell_end("local_eof", True, answer["path"])

    child = StreamChild("ram", "tcp", 0.0, [], carry)
    wait_for(child)
    assert child.hear() == {"ask": "path"}
    child.answer({"path": "/run/x"})
    assert end_of(child) == {"reason": "local_eof", "clean": True, "detail": "/run/x"}


def test_child_that_dies_says_so_by_dying():
    def carry(_parent):
        os.kill(os.getpid(), signal.SIGKILL)

    assert end_of(StreamChild("ram", "tcp", 0.0, [], carry))["reason"] == "died"


def test_child_that_raises_ends():
    def carry(_parent):
        raise RuntimeError("a defect")

    end = end_of(StreamChild("ram", "tcp", 0.0, [], carry))
    assert end == {"reason": "died", "clean": False, "detail": "RuntimeError: a defect"}


@pytest.mark.parametrize("words", [b"nonsense", b"[]", b"7"])
def test_child_that_says_what_none_says_is_ended(words):
    def carry(parent):
        parent._socket.send(words)
        time.sleep(60)

    assert end_of(StreamChild("ram", "tcp", 0.0, [], carry))["reason"] == "died"


def test_child_holds_nothing_that_is_not_its_own():
    """A socket that a brother keeps open does not end when its owner closes it."""
    ours, theirs = socket.socketpair()
    other = socket.socketpair()

    def carry(parent):
        names = sorted(int(name) for name in os.listdir("/proc/self/fd"))
        held = [name for name in names if name > 2 and os.path.exists(f"/proc/self/fd/{name}")]
        parent.tell_end("local_eof", True, " ".join(str(name) for name in held))

    child = StreamChild("ram", "tcp", 0.0, [theirs.fileno()], carry)
    held = [int(name) for name in end_of(child)["detail"].split()]
    assert theirs.fileno() in held
    assert len(held) == 2  # and its channel
    for sock in (ours, theirs, *other):
        sock.close()


def test_buried_child_is_gone_at_once():
    child = StreamChild("ram", "tcp", 0.0, [], lambda _parent: time.sleep(60))
    child.bury()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_child_dies_with_its_parent():
    script = """
import sys, time
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.incoming_children import StreamChild
child = StreamChild("ram", "tcp", 0.0, [], lambda _parent: time.sleep(60))
print(child.pid, flush=True)
time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while is_alive(pid):
        assert time.monotonic() < deadline
        select.select([], [], [], 0.02)


def is_alive(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as stream:
        return stream.read().rpartition(")")[2].split()[0] != "Z"
    return False


def finished(errand):
    while not errand.hear():
        wait_for(errand)
    result = errand.result()
    errand.bury()
    return result


def test_errand_brings_its_result_however_long():
    errand = Errand(lambda: {"data": "x" * 200_000}, 60.0)
    assert finished(errand) == {"data": "x" * 200_000}


def test_errand_that_dies_brings_nothing():
    assert finished(Errand(lambda: os._exit(3), 60.0)) is None


def test_errand_ends_with_the_commands_that_it_has_started():
    errand = Errand(lambda: {"status": subprocess.call(["sleep", "60"])}, 60.0)
    deadline = time.monotonic() + 5
    while not (started := children_of(errand.pid)):
        assert time.monotonic() < deadline
    errand.bury()
    while any(is_alive(pid) for pid in started):
        assert time.monotonic() < deadline


def children_of(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as stream:
        return [int(word) for word in stream.read().split()]
    return []
