# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pin against a real TLS server: proxmoxer's session is private, so its behaviour is proved and not assumed."""

from __future__ import annotations

import hashlib
import http.server
import json
import ssl
import subprocess
import threading

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import CrossclusterError, Side
from ansible_collections.crosscluster.migration.plugins.plugin_utils.clusters import Endpoint
from ansible_collections.crosscluster.migration.plugins.plugin_utils.proxmox_api import open_api

SECRET = "22222222-aaaa-bbbb-cccc-000000000000"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pki")
    key, cert = directory / "key.pem", directory / "cert.pem"
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=pve"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert]
    subprocess.run([*words.split(), *names], check=True, capture_output=True)
    return key, cert


@pytest.fixture
def server(certificate):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.seen.append((self.path, self.headers.get("Authorization")))
            status = int(self.path.rpartition("/")[2]) if self.path.rpartition("/")[2].isdigit() else 200
            body = json.dumps({"data": {"path": self.path}}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_arguments):
            pass  # a client that does not like the certificate hangs up

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    httpd = Server(("127.0.0.1", 0), Handler)
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    httpd.seen = []
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield httpd
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def endpoint(server, fingerprint=None, ca_path=None, *, validate_certs=True):
    return Endpoint(
        "127.0.0.1", server.server_address[1], "m@pve", "move", fingerprint, ca_path and str(ca_path), validate_certs
    )


def digest(certificate):
    der = ssl.PEM_cert_to_DER_cert(certificate[1].read_text())
    return hashlib.sha256(der).hexdigest()


def spellings(plain):
    pairs = ":".join(plain[at : at + 2] for at in range(0, 64, 2))
    return [plain, plain.upper(), pairs, pairs.upper(), f"SHA256 Fingerprint={pairs.upper()}"]


def test_pinned_api_answers_in_every_spelling_of_the_fingerprint(server, certificate):
    for spelling in spellings(digest(certificate)):
        api = open_api(endpoint(server, spelling), SECRET, Side.TARGET)
        assert api.get("nodes", "b1", type="x") == {"path": "/api2/json/nodes/b1?type=x"}
    assert server.seen[0][1] == f"PVEAPIToken=m@pve!move={SECRET}"


def test_wrong_fingerprint_never_lets_the_token_out_and_shows_both(server, certificate):
    wrong = "ab" * 32
    with pytest.raises(CrossclusterError) as caught:
        open_api(endpoint(server, wrong), SECRET, Side.SOURCE).get("version")
    assert caught.value.code == "FINGERPRINT_MISMATCH"
    assert caught.value.side is Side.SOURCE
    shown = caught.value.message.replace(":", "").lower()
    assert wrong in shown
    assert digest(certificate) in shown
    assert server.seen == []


def test_unknown_certificate_never_lets_the_token_out(server):
    with pytest.raises(CrossclusterError) as caught:
        open_api(endpoint(server), SECRET, Side.TARGET).get("version")
    assert caught.value.code == "CERTIFICATE_REFUSED"
    assert server.seen == []


def test_certificate_is_accepted_with_its_authority(server, certificate):
    api = open_api(endpoint(server, ca_path=certificate[1]), SECRET, Side.TARGET)
    assert api.get("version")["path"] == "/api2/json/version"


def test_pin_replaces_the_authority(server, certificate, tmp_path):
    other = tmp_path / "other.pem"
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=other -keyout"
    subprocess.run([*words.split(), tmp_path / "key.pem", "-out", other], check=True, capture_output=True)
    api = open_api(endpoint(server, digest(certificate), other), SECRET, Side.TARGET)
    assert api.get("version")["path"] == "/api2/json/version"


def test_certificate_is_not_looked_at_when_told_so(server):
    api = open_api(endpoint(server, validate_certs=False), SECRET, Side.TARGET)
    assert api.get("version")["path"] == "/api2/json/version"


@pytest.mark.parametrize("segment", ["..", "a/b", "b1?x=1", "", "b1#x", "%2e%2e", "ü"])
def test_path_segment_that_leads_elsewhere_is_refused(server, certificate, segment):
    with pytest.raises(CrossclusterError) as caught:
        open_api(endpoint(server, digest(certificate)), SECRET, Side.TARGET).get("nodes", segment)
    assert caught.value.code == "CLUSTERS_INVALID"
    assert server.seen == []


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "PARAMETER_REFUSED"), (401, "TOKEN_REFUSED"), (403, "PRIVILEGE_MISSING"), (500, "API_REFUSED")],
)
def test_refusal_is_told_apart_by_its_status(server, certificate, status, code):
    with pytest.raises(CrossclusterError) as caught:
        open_api(endpoint(server, digest(certificate)), SECRET, Side.TARGET).get("status", str(status))
    assert caught.value.code == code
    assert caught.value.facts["status"] == status
    assert SECRET not in repr(caught.value.to_dict())


def test_silent_address_is_named(server, certificate):
    away = endpoint(server, digest(certificate))
    server.socket.close()
    with pytest.raises(CrossclusterError) as caught:
        open_api(away, SECRET, Side.TARGET).get("version")
    assert caught.value.code == "API_UNREACHABLE"


@pytest.mark.parametrize(("secret", "fingerprint"), [(None, None), ("", None), (SECRET, "abc")])
def test_what_cannot_be_used_is_refused_before_anything_is_sent(server, secret, fingerprint):
    with pytest.raises(CrossclusterError):
        open_api(endpoint(server, fingerprint), secret, Side.TARGET)
    assert server.seen == []
