# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client against servers that are gone, too new, silent or mad."""

from __future__ import annotations

import socket
import threading

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.client import Client
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import (
    WorkerTooOld,
    WorkerUnreachable,
)


@pytest.fixture
def serve(tmp_path):
    """Serve one connection with the given bytes."""
    listeners = []

    def begin(data):
        path = str(tmp_path / "s")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        listeners.append(listener)

        def answer():
            connection, _address = listener.accept()
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1000)
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        return path

    yield begin
    for listener in listeners:
        listener.close()


def test_nobody_listens(tmp_path):
    with pytest.raises(WorkerUnreachable) as caught:
        Client(str(tmp_path / "none"))
    assert caught.value.remedy


def test_worker_of_another_protocol_is_refused(serve):
    with pytest.raises(WorkerTooOld):
        Client(serve(b'{"hello":{"protocol":99}}\n'))


@pytest.mark.parametrize("data", [b"", b"null\n", b"[1]\n", b"garbage\n"])
def test_greeting_that_is_none_is_unreachable(serve, data):
    with pytest.raises((WorkerUnreachable, WorkerTooOld)):
        Client(serve(data))


@pytest.mark.parametrize("data", [b"", b'{"id":1}\n', b'{"id":1,"data":3}\n'])
def test_answer_without_data_is_unreachable(serve, data):
    with Client(serve(b'{"hello":{"protocol":1}}\n' + data)) as client, pytest.raises(WorkerUnreachable):
        client.call("status")


def test_request_that_nobody_took_does_not_disturb_the_end(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        leaving = threading.Thread(target=lambda: _greet_and_leave(listener), daemon=True)
        leaving.start()
        client = Client(path)
        leaving.join()
    with pytest.raises(WorkerUnreachable):
        client.call("bye")
    client.close()


def _greet_and_leave(listener):
    connection, _address = listener.accept()
    connection.sendall(b'{"hello":{"protocol":1}}\n')
    connection.close()
