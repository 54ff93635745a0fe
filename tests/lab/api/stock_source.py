# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stock source of remote_migrate: its checks, and its task up to the tunnel's version (mtunnel-protocol 2, 9.4).

It goes no further: the lab moves guests by the collection. Where the real one would start to copy, this one aborts.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional
from urllib.parse import quote, urlencode

from lab.node.base import Die, ParamError

__all__ = ["Endpoint", "StockSource"]

VERSION = 2
PORT = 8006
TIMEOUT = 30.0
NO_CAPABILITY = (
    "Remote tunnel endpoint does not support insecure remote migration, upgrade target or omit migration_type=insecure"
)


def say(text: str) -> None:
    """One line of the task's log, with its time."""
    os.write(1, ("%s %s\n" % (time.strftime("%Y-%m-%d %H:%M:%S"), text)).encode("utf-8", "surrogateescape"))


def plain_context() -> ssl.SSLContext:
    """The certificate is judged by its fingerprint alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@dataclass(frozen=True)
class Endpoint:
    """The property target-endpoint."""

    host: str
    token: str
    fingerprint: Optional[str] = None
    port: int = PORT

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """`host=..,apitoken=..[,fingerprint=..][,port=..]`; the token holds an equals sign itself."""
        values = dict(part.partition("=")[::2] for part in text.split(","))
        missing = [key for key in ("apitoken", "host") if key not in values]
        if missing:
            text = "invalid format - format error\n%s: property is missing and it is not optional\n"
            raise ParamError({"target-endpoint": text % missing[0]})
        return cls(values["host"], values["apitoken"], values.get("fingerprint"), int(values.get("port", PORT)))

    def check_certificate(self, connection: http.client.HTTPSConnection) -> None:
        """Connect, and refuse a certificate that is not the one named."""
        try:
            connection.connect()
        except OSError as error:
            raise Die(
                "500 Can't connect to %s:%d (%s)" % (self.host, self.port, os.strerror(error.errno or 0))
            ) from None
        assert isinstance(connection.sock, ssl.SSLSocket)
        digest = hashlib.sha256(connection.sock.getpeercert(binary_form=True) or b"").hexdigest().upper()
        seen = ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
        if (self.fingerprint or "").upper() != seen:
            raise Die("fingerprint '%s' not verified, abort!" % seen)

    def call(self, method: str, path: str, parameters: Optional[Mapping[str, Any]] = None) -> Any:
        """An API call; errors as the Perl client words them."""
        connection = http.client.HTTPSConnection(self.host, self.port, context=plain_context(), timeout=TIMEOUT)
        try:
            self.check_certificate(connection)
            body = urlencode(parameters or {})
            headers = {"Authorization": self.token, "Content-Type": "application/x-www-form-urlencoded"}
            connection.request(method, "/api2/json" + path, body if method != "GET" else None, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise Die("%d %s" % (answer.status, answer.reason))
            return json.loads(text)["data"]
        finally:
            connection.close()

    def version(self, path: str) -> Dict[str, Any]:
        """Open the control websocket, ask for the version, and leave."""
        request = [
            "GET /api2/json%s HTTP/1.1" % path,
            "Host: %s:%d" % (self.host, self.port),
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
            "Authorization: " + self.token,
        ]
        raw = socket.create_connection((self.host, self.port), TIMEOUT)
        with raw, plain_context().wrap_socket(raw) as link:
            link.sendall(("\r\n".join(request) + "\r\n\r\n").encode())
            reader = link.makefile("rb")
            if b" 101 " not in reader.readline():
                raise Die("failed to connect to the tunnel")
            while reader.readline().strip():
                pass
            line = b'{"cmd":"version"}\n'
            link.sendall(bytes([0x82, 0x80 | len(line), 0, 0, 0, 0]) + line)
            head = reader.read(2)
            reply: Dict[str, Any] = json.loads(reader.read(head[1]))
            return reply


@dataclass(frozen=True)
class StockSource:
    """One remote_migrate."""

    endpoint: Endpoint
    node: str
    target: int
    storages: str
    bridges: str
    insecure: bool

    def run(self) -> None:
        """The task: whatever goes wrong in its preparation aborts it, and nothing on the target is undone."""
        started = time.monotonic()
        try:
            self._prepare()
        except Die as error:
            passed = int(time.monotonic() - started)
            say("ERROR: migration aborted (duration 00:%02d:%02d): %s" % (passed // 60, passed % 60, error.text))
            raise Die("migration aborted") from None

    def _prepare(self) -> None:
        say("conntrack state migration not supported or disabled, active connections might get dropped")
        base = "/nodes/%s/qemu/%d/mtunnel" % (self.node, self.target)
        granted = self.endpoint.call("POST", base, {"storages": self.storages, "bridges": self.bridges})
        say("remote: started tunnel worker '%s'" % granted["upid"])
        query = "ticket=%s&socket=%s" % (quote(granted["ticket"], safe=""), quote(granted["socket"], safe=""))
        reply = self.endpoint.version("%swebsocket?%s" % (base, query))
        say("local WS tunnel version: %d" % VERSION)
        say("remote WS tunnel version: %d" % reply["api"])
        say("minimum required WS tunnel version: %d" % (reply["api"] - reply["age"]))
        if self.insecure and "insecure-remote" not in reply.get("caps", ()):
            raise Die(NO_CAPABILITY)
        raise Die("the lab's stock source copies nothing")
