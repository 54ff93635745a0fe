# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Worker and client over a real UNIX socket: greeting, ids, errors with their code, long polls, bad lines."""

from __future__ import annotations

import json
import os
import socket

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.client import Client
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.control_socket import ControlSocket
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import Recorded, TooLate


def too_late(_request):
    raise TooLate("the migration is committing already", side=Side.SOURCE, object="VM 100", remedy="Wait")


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "control.sock")
    operations = {
        "echo": lambda request: {"said": request["word"]},
        "abort": too_late,
        "defect": lambda r: r["nothing"],
    }
    server = ControlSocket(path, {"migration_id": "a" * 32}, operations)
    server.start()
    yield path
    server.close()


def test_client_is_greeted_and_answered(path):
    with Client(path) as client:
        assert client.hello["migration_id"] == "a" * 32
        assert client.call("echo", word="one") == {"said": "one"}
        assert client.call("echo", word="two") == {"said": "two"}


def test_error_of_the_worker_keeps_its_code_and_side(path):
    with Client(path) as client, pytest.raises(Recorded) as caught:
        client.call("abort")
    assert (caught.value.code, caught.value.side, caught.value.remedy) == ("TOO_LATE", Side.SOURCE, "Wait")


@pytest.mark.parametrize("op", ["nothing", "defect"])
def test_bad_request_is_answered_and_the_connection_goes_on(path, op):
    with Client(path) as client:
        with pytest.raises(Recorded):
            client.call(op)
        assert client.call("echo", word="x") == {"said": "x"}


@pytest.mark.parametrize("line", [b"[]\n", b"not json\n", b'{"id":1}\n', b"\xff\xfe\n"])
def test_line_that_is_no_request_gets_an_error(path, line):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(path)
        stream = raw.makefile("rwb")
        stream.readline()
        stream.write(line)
        stream.flush()
        assert "error" in json.loads(stream.readline())


def test_socket_is_for_root_only(path):
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_socket_of_a_dead_worker_is_replaced(tmp_path):
    path = str(tmp_path / "control.sock")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(path)
    stale.close()
    server = ControlSocket(path, {}, {})
    server.start()
    Client(path).close()
    server.close()
    assert not os.path.exists(path)
