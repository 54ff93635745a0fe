# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""REST calls of the source at the target, with the texts of its client (mtunnel-protocol 1.5 and 2.2)."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import ssl
from typing import Any, Mapping, Optional
from urllib.parse import quote, urlencode

from lab.node.base import Die

from .endpoint import Endpoint

__all__ = ["Remote", "fingerprint_of"]

TIMEOUT = 60.0  # seconds


def fingerprint_of(der: bytes) -> str:
    """SHA-256 of a certificate as Proxmox writes it."""
    digest = hashlib.sha256(der).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


class Remote:
    """The target's API."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def get(self, path: str) -> Any:
        """`data` of a GET."""
        return self._call("GET", path)

    def post(self, path: str, params: Mapping[str, str]) -> Any:
        """`data` of a POST."""
        return self._call("POST", path, params)

    def pin(self) -> Endpoint:
        """The endpoint with the fingerprint that its node names for the certificate it serves."""
        entries = {entry["filename"]: entry for entry in self.get("/nodes/localhost/certificates/info")}
        served = entries.get("pveproxy-ssl.pem") or entries["pve-ssl.pem"]
        return self.endpoint.pinned(served["fingerprint"])

    def _call(self, method: str, path: str, params: Optional[Mapping[str, str]] = None) -> Any:
        body = urlencode(params) if params is not None else None
        headers = {"Authorization": self.endpoint.header}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = self._connect()
        try:
            connection.request(method, "/api2/json" + quote(path, safe="/:"), body, headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Die(f"500 read timeout or connection lost: {error}") from None
        finally:
            connection.close()
        return _data(response.status, response.reason, text)

    def _connect(self) -> http.client.HTTPSConnection:
        """A checked connection."""
        pinned = self.endpoint.fingerprint
        try:
            connection = self._open(ssl.create_default_context() if pinned is None else _unchecked())
        except ssl.SSLCertVerificationError:
            connection = self._open(_unchecked())
            pinned = "none that a CA vouches for"
        presented = fingerprint_of(connection.sock.getpeercert(True) or b"")
        if pinned is not None and pinned != presented:
            connection.close()
            raise Die(f"fingerprint '{presented}' not verified, abort!")
        return connection

    def _open(self, context: ssl.SSLContext) -> http.client.HTTPSConnection:
        host, port = self.endpoint.host, self.endpoint.port
        connection = http.client.HTTPSConnection(host, port, context=context, timeout=TIMEOUT)
        try:
            connection.connect()
        except ssl.SSLCertVerificationError:
            raise
        except OSError as error:
            raise Die(f"500 Can't connect to {host}:{port} ({_reason(error)})") from None
        return connection


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "Name or service not known"
    if isinstance(error, TimeoutError):
        return "Connection timed out"
    return os.strerror(error.errno) if error.errno else str(error)


def _data(status: int, reason: str, text: bytes) -> Any:
    try:
        answer = json.loads(text) if text else {}
    except ValueError:
        answer = {}
    if status == 200:
        return answer.get("data")
    errors = answer.get("errors") or {}
    lines = "".join(f"\n{key}: {value.rstrip()}" for key, value in sorted(errors.items()))
    raise Die(f"{status} {reason}{lines}")
