# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The REST session against a TLS server on the loopback."""

from __future__ import annotations

import json
import socket

import pytest
from unit.fakes.proxy_double import make_certificate
from unit.fakes.tls_server import TlsServer, read_request

from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.endpoint import Endpoint
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import (
    AnswerMalformed,
    ApiOutcomeUnknown,
    ApiRefused,
    ApiUnreachable,
    EndpointInvalid,
    FingerprintMismatch,
    ParameterRefused,
    PrivilegeMissing,
    TokenRefused,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.session import Session

SECRET = "12345678-canary"


@pytest.mark.parametrize(("secret", "ca_path"), [("", None), (SECRET, "/nonexistent/ca.pem")], ids=["secret", "ca"])
def test_without_its_means_the_target_is_unreachable_and_nothing_else_fails(secret, ca_path):
    session = Session(Endpoint("127.0.0.1", 1, "b1", "mig@pve", "t1", ca_path=ca_path), secret)
    with pytest.raises(ApiUnreachable) as caught:
        session.get("version")
    assert caught.value.code == "API_UNREACHABLE"
    assert caught.value.remedy


def test_a_secret_that_is_none_is_not_taken():
    session = Session(Endpoint("127.0.0.1", 1, "b1", "mig@pve", "t1"), SECRET)
    with pytest.raises(EndpointInvalid):
        session.renew("a b")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def target(certificate):
    """Start a server that answers with given bytes; gives the session and what the server saw."""
    servers = []

    def start(answer, fingerprint=None, timeout=5.0):
        seen = []

        def serve(connection):
            seen.append(read_request(connection))
            if callable(answer):
                answer(connection)
            else:
                connection.sendall(answer)

        server = TlsServer(certificate[0], serve)
        servers.append(server)
        endpoint = Endpoint("127.0.0.1", server.port, "b1", "mig@pve", "t1", fingerprint or certificate[1])
        return Session(endpoint, SECRET, timeout), seen

    yield start
    for server in servers:
        server.close()


def answer(body, status="200 OK", headers=""):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(data)}\r\n\r\n".encode() + data


def test_get_gives_the_data(target):
    session, seen = target(answer({"data": [1, "x"]}))
    assert session.get("nodes", "b1", "storage", enabled=True, content="images", skipped=None) == [1, "x"]
    lines = seen[0].split("\r\n")
    assert lines[0] == "GET /api2/json/nodes/b1/storage?enabled=1&content=images HTTP/1.1"
    assert f"Authorization: PVEAPIToken=mig@pve!t1={SECRET}" in lines


def test_path_segments_are_encoded(target):
    session, seen = target(answer({"data": None}))
    session.get("nodes", "b1", "tasks", "UPID:b1:0:/../x:", "status")
    assert seen[0].startswith("GET /api2/json/nodes/b1/tasks/UPID%3Ab1%3A0%3A%2F..%2Fx%3A/status HTTP/1.1")


def test_post_sends_a_form(target):
    session, seen = target(answer({"data": "UPID"}))
    assert session.post("nodes", "b1", "qemu", "200", "mtunnel", storages="a,b", bridges="") == "UPID"
    assert seen[0].endswith("\r\n\r\nstorages=a%2Cb&bridges=")


def test_delete(target):
    session, seen = target(answer({"data": None}))
    assert session.delete("x", a=1) is None
    assert seen[0].startswith("DELETE")


def test_answer_may_be_chunked_or_end_with_the_connection(target):
    session, _seen = target(
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"da\r\n6\r\nta":1}\r\n0\r\n\r\n'
    )
    assert session.get("x") == 1
    session, _seen = target(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"data":2}')
    assert session.get("x") == 2


@pytest.mark.parametrize(
    ("status", "error"),
    [("401 Authentication failed!", TokenRefused), ("403 Permission check failed (/, Sys.Incoming)", PrivilegeMissing),
     ("500 storage 'x' does not exist", ApiRefused), ("302 Moved", ApiRefused), ("501 no", ApiRefused)],
)  # fmt: skip
def test_refusal_by_status(target, status, error):
    session, _seen = target(answer(b"", status))
    with pytest.raises(error) as caught:
        session.post("x")
    assert caught.value.status == int(status[:3])
    assert status[4:] in caught.value.message
    assert SECRET not in str(caught.value.to_dict())


def test_refused_parameters_are_named(target):
    body = {"data": None, "message": "Parameter verification failed.\n", "errors": {"vmid": "VM 601 already exists"}}
    session, _seen = target(answer(body, "400 Parameter verification failed."))
    with pytest.raises(ParameterRefused) as caught:
        session.post("x")
    assert caught.value.errors == {"vmid": "VM 601 already exists"}
    assert "vmid: VM 601 already exists" in caught.value.message


@pytest.mark.parametrize(
    "body", [b"no json", b"[]", b"{}", b"\xff", b"[" * 100000], ids=["text", "list", "empty", "bytes", "deep"]
)
def test_malformed_success_is_refused(target, body):
    session, _seen = target(answer(body))
    with pytest.raises(AnswerMalformed):
        session.get("x")


def test_malformed_success_of_a_change_is_an_unknown_outcome(target):
    session, _seen = target(answer(b"no json"))
    with pytest.raises(ApiOutcomeUnknown):
        session.post("x")


@pytest.mark.parametrize(
    "sent",
    [b"", b"HTTP/1.1 200 OK\r\n", b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"data":1}', b"SSH-2.0\r\n\r\n"],
    ids=["nothing", "half-head", "half-body", "ssh"],
)
def test_outcome_is_unknown_without_a_whole_answer(target, sent):
    session, seen = target(sent)
    with pytest.raises(ApiOutcomeUnknown):
        session.post("x")
    assert seen


def test_outcome_is_unknown_at_the_deadline_of_a_silent_target(target):
    session, _seen = target(lambda connection: connection.recv(1), timeout=0.2)
    with pytest.raises(ApiOutcomeUnknown, match="in time"):
        session.post("x")


def test_answer_without_bound_is_cut(target):
    def flood(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(bytes(1 << 20))

    session, _seen = target(flood)
    with pytest.raises(ApiOutcomeUnknown, match="more than"):
        session.get("x")


def test_nothing_is_sent_to_another_certificate(target):
    session, seen = target(answer({"data": 1}), fingerprint="ab" * 32)
    with pytest.raises(FingerprintMismatch):
        session.get("x")
    assert seen in ([], [""])


def test_unreachable_target_got_nothing():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    session = Session(Endpoint("127.0.0.1", port, "b1", "mig@pve", "t1", "ab" * 32), SECRET)
    with pytest.raises(ApiUnreachable):
        session.post("x")


@pytest.mark.parametrize(("extra", "total"), [({"total": 7}, 7), ({}, None), ({"total": "x"}, None)], ids=str)
def test_page_says_how_long_the_list_is(target, extra, total):
    session, _seen = target(answer({"data": ["a"], **extra}))
    assert session.page("nodes", "b1", "tasks", "x", "log", start=0, limit=1) == (["a"], total)
