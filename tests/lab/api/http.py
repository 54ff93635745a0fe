# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP as the real front end reads and writes it: request heads, limits, answers (mtunnel-protocol 1.1). No I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Dict, Mapping, Optional, Tuple
from urllib.parse import parse_qsl

__all__ = ["Answer", "BadRequest", "Request", "encode", "head_end", "parameters", "parse_head"]

MAX_HEADER_LINES = 64
MAX_HEADER_BYTES = 8192
MAX_BODY = 512 * 1024


class BadRequest(Exception):
    """The request is refused before anybody looks at what it wants."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass
class Request:
    """One request; header names in lower case."""

    method: str
    path: str
    query: str
    headers: Dict[str, str]
    body: bytes = b""
    version: str = "1.1"

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants to send more on this connection."""
        wanted = self.headers.get("connection", "").lower()
        return "close" not in wanted and (self.version == "1.1" or "keep-alive" in wanted)

    @property
    def upgrade(self) -> str:
        """The protocol this asks for on such a path: the Connection header is not looked at (mtunnel-protocol 3.3)."""
        fitting = self.method == "GET" and self.path.endswith("websocket")
        return self.headers.get("upgrade", "").lower() if fitting else ""


@dataclass(frozen=True)
class Answer:
    """Status line and body; ``body`` None means no content headers at all."""

    status: int
    reason: str = "OK"
    body: Optional[bytes] = None
    content_type: Optional[str] = "application/json;charset=UTF-8"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, status: int, reason: str, value: Any) -> "Answer":
        """An answer with a JSON body."""
        return cls(status, reason, json.dumps(value, separators=(",", ":")).encode())


def head_end(buffer: bytes) -> Optional[int]:
    """Offset behind the blank line that ends the head, or None while it is incomplete."""
    at = buffer.find(b"\r\n\r\n")
    if at < 0 and len(buffer) > MAX_HEADER_BYTES:
        raise BadRequest(400, "http header size exceeds limit")
    return None if at < 0 else at + 4


def parse_head(head: bytes) -> Tuple[Request, int]:
    """The request and the length of its body."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest(400, "bad request")
    fields = [line for line in lines[1:] if line]
    if len(fields) > MAX_HEADER_LINES:
        raise BadRequest(400, "Too many http header lines (> %d)" % MAX_HEADER_LINES)
    if sum(map(len, fields)) > MAX_HEADER_BYTES:
        raise BadRequest(400, "http header size exceeds limit")
    headers: Dict[str, str] = {}
    for line in fields:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    path, _, query = words[1].partition("?")
    request = Request(words[0], path, query, headers, version=words[2][5:])
    return request, _body_length(headers)


def _body_length(headers: Mapping[str, str]) -> int:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        raise BadRequest(501, "chunked transfer encoding not supported")
    length = headers.get("content-length", "0")
    if not length.isdigit():
        raise BadRequest(400, "bad content length")
    if int(length) > MAX_BODY:
        raise BadRequest(501, "for data too large")
    return int(length)


def parameters(request: Request) -> Dict[str, Any]:
    """Query and body parameters of a request."""
    found: Dict[str, Any] = dict(parse_qsl(request.query, keep_blank_values=True))
    if not request.body:
        return found
    kind = request.headers.get("content-type", "").split(";")[0].strip()
    if kind == "application/json":
        try:
            value = json.loads(request.body)
        except ValueError:
            raise BadRequest(400, "unable to parse json body") from None
        if not isinstance(value, dict):
            raise BadRequest(400, "unable to parse json body")
        found.update(value)
    elif kind in ("", "application/x-www-form-urlencoded"):
        found.update(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
    else:
        raise BadRequest(415, "upload Content-Type '%s' not implemented" % kind)
    return found


def encode(answer: Answer, keep_alive: bool) -> bytes:
    """The answer as bytes."""
    now = formatdate(usegmt=True)
    headers = {
        "Cache-Control": "max-age=0",
        "Connection": "Keep-Alive" if keep_alive else "close",
        "Date": now,
        "Pragma": "no-cache",
        "Server": "pve-api-daemon/3.0",
    }
    if answer.body is not None:
        headers["Content-Length"] = str(len(answer.body))
        if answer.content_type:
            headers["Content-Type"] = answer.content_type
    headers["Expires"] = now
    headers.update(answer.headers)
    reason = answer.reason.split("\n")[0]
    lines = ["HTTP/1.1 %d %s" % (answer.status, reason)] + ["%s: %s" % item for item in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8") + (answer.body or b"")
