# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rehearsal over the loopback: what both sides report, and that its process leaves nothing behind."""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
import stat
import threading
import time

import pytest
from unit.fakes.certificates import DAY, Authority, lay

from ansible_collections.crosscluster.migration.plugins.module_utils.transport import errors, rehearsal, tls
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.listener import Listener
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.tls import Credentials

HOST = "127.0.0.1"
PORTS = range(60150, 60200)
CA, OTHER = Authority(), Authority("another domain")


def node(base, name, peer, issued=None, ca=CA, crl=""):
    lay(base / name, ca.pem, issued or ca.issue(name), crl)
    return rehearsal.Rehearsal(Credentials(str(base / name)), peer)


@contextlib.contextmanager
def served(target, seconds=5.0, peer_address=""):
    """The target's side in a thread; yields its port and a list that will hold its report."""
    listener = Listener(HOST, PORTS)
    listener.open()
    reports = []
    thread = threading.Thread(
        target=lambda: reports.append(rehearsal.serve(target, listener, peer_address, seconds)), daemon=True
    )
    thread.start()
    try:
        yield listener.port, reports
    finally:
        thread.join(10)
        listener.close()


def both(source, target):
    with served(target) as (port, reports):
        seen = rehearsal.connect(source, HOST, port)
    return seen, reports[0]


def test_two_good_nodes_report_each_other(tmp_path):
    source, target = both(node(tmp_path, "a1", "b1"), node(tmp_path, "b1", "a1"))
    assert source["ok"]
    assert target["ok"]
    assert source["failure"] is None
    assert source["saw"]["names"] == ["b1"]
    assert target["saw"]["names"] == ["a1"]
    assert source["saw"]["version"] == target["saw"]["version"] == "TLSv1.3"
    assert source["saw"]["cipher"] == target["saw"]["cipher"]
    assert target["peer"] == HOST
    assert (source["side"], target["side"]) == ("source", "target")
    json.dumps([source, target])


def expired(name):
    return CA.issue(name, starts=-2 * DAY, ends=-datetime.timedelta(hours=1))


BAD = {
    # what is wrong: certificate, cause where it is refused, cause where that is heard
    "expired": (expired, "expired", "expired"),
    "foreign": (OTHER.issue, "foreign_ca", "foreign_ca"),
    "wrong name": (lambda name: CA.issue("x9"), "wrong_name", None),
    "not exactly the name": (lambda name: CA.issue(name, dns=[name.upper()]), "wrong_name", "wrong_name"),
    "a CA": (lambda name: CA.issue(name, ca=True), "is_ca", "is_ca"),
}


@pytest.mark.parametrize("row", BAD)
@pytest.mark.parametrize("bad", ["source", "target"])
def test_both_sides_know_why_a_certificate_was_refused(row, bad, tmp_path):
    issue, cause, heard = BAD[row]
    source = node(tmp_path, "a1", "b1", issued=issue("a1") if bad == "source" else None)
    target = node(tmp_path, "b1", "a1", issued=issue("b1") if bad == "target" else None)
    reports = dict(zip(("source", "target"), both(source, target)))
    judge = "target" if bad == "source" else "source"
    assert not reports["source"]["ok"]
    assert not reports["target"]["ok"]
    assert reports[judge]["failure"]["code"] == "PEER_CERTIFICATE_REFUSED"
    assert reports[judge]["failure"]["facts"]["cause"] == cause
    assert reports[bad]["failure"]["code"] == "CERTIFICATE_REFUSED_BY_PEER"
    # An OpenSSL client says by the same alert that a name is wrong and that a date lies ahead.
    name_alert = "bad_certificate" if bad == "target" else "wrong_name"
    assert reports[bad]["failure"]["facts"]["cause"] == (heard or name_alert)


def test_revocation_list_that_has_expired_stops_a_rehearsal(tmp_path):
    stale = CA.crl(starts=-2 * DAY, ends=-datetime.timedelta(hours=1))
    source, _target = both(node(tmp_path, "a1", "b1", crl=stale), node(tmp_path, "b1", "a1"))
    assert source["failure"]["code"] == "CREDENTIALS_UNUSABLE"
    assert source["failure"]["facts"]["cause"] == "crl_expired"


def test_source_without_files_says_so(tmp_path):
    nothing = rehearsal.Rehearsal(Credentials(str(tmp_path)), "b1")
    report = rehearsal.connect(nothing, HOST, 1)
    assert report["failure"]["facts"]["cause"] == "missing"


def test_closed_port_is_told_from_a_bad_certificate(tmp_path):
    listener = Listener(HOST, PORTS)
    port = listener.port
    listener.close()
    report = rehearsal.connect(node(tmp_path, "a1", "b1"), HOST, port)
    assert report["failure"]["facts"]["cause"] == "unreachable"
    assert report["saw"] == {}


def test_silent_listener_is_given_up(tmp_path):
    with socket.create_server((HOST, 0)) as silent:
        report = rehearsal.connect(node(tmp_path, "a1", "b1"), HOST, silent.getsockname()[1], seconds=0.2)
    assert report["failure"]["facts"]["cause"] == "silent"


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"])
def test_stranger_does_not_use_the_listener_up(first, tmp_path):
    source, target = node(tmp_path, "a1", "b1"), node(tmp_path, "b1", "a1")
    with served(target) as (port, reports):
        with socket.create_connection((HOST, port)) as stranger:
            stranger.sendall(first)
        assert rehearsal.connect(source, HOST, port)["ok"]
    assert reports[0]["ok"]


def test_other_address_gets_no_byte(tmp_path):
    target = node(tmp_path, "b1", "a1")
    with served(target, seconds=0.3, peer_address="192.0.2.1") as (port, reports):
        stranger = socket.create_connection((HOST, port))
        stranger.settimeout(5)
        assert stranger.recv(1) == b""
        stranger.close()
    assert reports[0]["failure"]["facts"]["cause"] == "silent"


def test_certificate_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    """OpenSSL reads more than the standard says."""

    def unreadable(_der, side, object):
        raise errors.CertificateUnreadable(f"{object} is none", side=side, object=object)

    source, target = node(tmp_path, "a1", "b1"), node(tmp_path, "b1", "a1")
    monkeypatch.setattr(tls.Certificate, "parse", unreadable)
    for report in both(source, target):
        assert report["failure"]["code"] == "PEER_CERTIFICATE_REFUSED"
        assert report["failure"]["facts"]["cause"] == "malformed"
        assert report["saw"]["version"] == "TLSv1.3"


def test_peers_address_may_be_written_in_another_way(tmp_path):
    with served(node(tmp_path, "b1", "a1"), peer_address="::ffff:127.0.0.1") as (port, reports):
        assert rehearsal.connect(node(tmp_path, "a1", "b1"), HOST, port)["ok"]
    assert reports[0]["ok"]


def test_files_that_went_bad_meanwhile_are_reported(tmp_path):
    target = node(tmp_path, "b1", "a1")
    (tmp_path / "b1" / "server-key.pem").unlink()
    with served(target) as (port, reports):
        rehearsal.connect(node(tmp_path, "a1", "b1"), HOST, port)
    assert reports[0]["failure"]["code"] == "CREDENTIALS_UNUSABLE"


def test_target_listens_for_no_peer_without_a_name(tmp_path):
    target = rehearsal.Rehearsal(node(tmp_path, "b1", "a1").credentials, "192.0.2.1")
    with pytest.raises(errors.HandshakeFailed, match="not the name of a node"):
        rehearsal.listen(target, HOST, PORTS, "", 5.0, str(tmp_path))


def test_listener_that_nobody_visits_ends_and_says_so(tmp_path):
    with served(node(tmp_path, "b1", "a1"), seconds=0.05) as (_port, reports):
        pass
    assert not reports[0]["ok"]
    assert reports[0]["failure"]["message"] == "a1: nobody has connected"


def test_process_of_the_target_reports_once_and_leaves_nothing(tmp_path):
    run = tmp_path / "run"
    source, target = node(tmp_path, "a1", "b1"), node(tmp_path, "b1", "a1")
    there = rehearsal.listen(target, HOST, PORTS, HOST, 10.0, str(run))
    assert there["port"] in PORTS
    assert rehearsal.connect(source, HOST, there["port"])["ok"]
    report = rehearsal.collect(there["rehearsal_id"], 10.0, str(run))
    assert report["ok"]
    assert report["saw"]["names"] == ["a1"]
    assert list(run.iterdir()) == []
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    with pytest.raises(errors.RehearsalFailed):
        rehearsal.collect(there["rehearsal_id"], 0.0, str(run))


def test_process_of_the_target_ends_by_itself(tmp_path):
    run = tmp_path / "run"
    there = rehearsal.listen(node(tmp_path, "b1", "a1"), HOST, PORTS, "", 0.1, str(run))
    assert not rehearsal.collect(there["rehearsal_id"], 10.0, str(run))["ok"]
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, there["port"]), timeout=1).close()
        except ConnectionRefusedError:
            return
        except OSError:
            continue
    pytest.fail("it listens for ever")


def test_target_without_files_does_not_listen(tmp_path):
    nothing = rehearsal.Rehearsal(Credentials(str(tmp_path)), "a1")
    with pytest.raises(errors.CredentialsUnusable):
        rehearsal.listen(nothing, HOST, PORTS, "", 1.0, str(tmp_path / "run"))


@pytest.mark.parametrize("number", ["", "../../etc/passwd", "0" * 31])
def test_report_is_asked_for_by_its_id_only(number, tmp_path):
    with pytest.raises(errors.RehearsalFailed):
        rehearsal.collect(number, 0.0, str(tmp_path))
