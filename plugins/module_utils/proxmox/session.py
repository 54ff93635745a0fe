# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The node-side REST session: one request per connection, one deadline, a bounded answer.

Edge file: sockets. The controller uses proxmoxer; this session exists because the worker must pin the certificate
before the token leaves the node, and must know whether a request was sent at all.
"""

from __future__ import annotations

import http.client
import io
import json
import select
import ssl
import time
from typing import Any, Callable, Dict, Mapping, Optional, Tuple
from urllib.parse import quote, urlencode

from ..websocket.errors import ConnectFailed, StreamLost
from ..websocket.tls_stream import TlsStream
from .endpoint import Endpoint
from .errors import (
    AnswerMalformed,
    ApiError,
    ApiOutcomeUnknown,
    ApiRefused,
    ApiUnreachable,
    EndpointInvalid,
    ParameterRefused,
    PrivilegeMissing,
    TokenRefused,
    printable,
)

__all__ = ["Session"]

# The largest answer we ask for is a task log page or the list of VMs of a cluster.
_MAX_ANSWER = 16 * 1024 * 1024
_PREFIX = "/api2/json"


class Session:
    """REST requests to one node of the target, authenticated by an API token."""

    def __init__(
        self,
        endpoint: Endpoint,
        secret: str,
        timeout: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = endpoint
        self._secret = secret
        self._timeout = timeout
        self._clock = clock
        self._context: Optional[ssl.SSLContext] = None

    def renew(self, secret: str) -> None:
        """Another secret of the same token from the next request on."""
        self.endpoint.authorization(secret)  # refuses what is none
        self._secret = secret

    def get(self, *segments: str, **params: Any) -> Any:
        """GET; the ``data`` of the answer."""
        return self.request("GET", segments, params)

    def post(self, *segments: str, **params: Any) -> Any:
        """POST; the ``data`` of the answer."""
        return self.request("POST", segments, params)

    def delete(self, *segments: str, **params: Any) -> Any:
        """DELETE; the ``data`` of the answer."""
        return self.request("DELETE", segments, params)

    def request(
        self, method: str, segments: Tuple[str, ...], params: Mapping[str, Any], timeout: Optional[float] = None
    ) -> Any:
        """One request; path segments and parameters are percent-encoded here.

        Args:
            method: GET, POST or DELETE.
            segments: Path below ``/api2/json``.
            params: Query (GET, DELETE) or form (POST); None values are left out, booleans become 0 and 1.
            timeout: Seconds for the whole exchange; the session's when None.
        """
        answer = self._request(method, segments, params, timeout)
        return answer["data"]

    def page(self, *segments: str, **params: Any) -> Tuple[Any, Optional[int]]:
        """GET of a part of a list: the ``data``, and how many entries there are in all if the answer says it."""
        answer = self._request("GET", segments, params, None)
        total = answer.get("total")
        return answer["data"], total if isinstance(total, int) and not isinstance(total, bool) else None

    def _request(
        self, method: str, segments: Tuple[str, ...], params: Mapping[str, Any], timeout: Optional[float]
    ) -> Dict[str, Any]:
        path = _PREFIX + "".join("/" + quote(segment, safe="") for segment in segments)
        name = f"{method} {path}"
        deadline = self._clock() + (self._timeout if timeout is None else timeout)
        authorization, context = self._means()
        request = self._encode(method, path, params, authorization)
        status, reason, body = self._exchange(request, context, name, deadline)
        if not 200 <= status < 300:
            raise _refusal(status, reason, body, name, self.endpoint)
        try:
            return _whole(body, name)
        except AnswerMalformed as error:
            if method == "GET":
                raise
            # A success that cannot be read, a cut answer for instance: something was done.
            # pylint cannot see through the relative import that the class is an exception.
            raise _unknown(name, error.message, self.endpoint) from error  # pylint: disable=bad-exception-cause

    def _means(self) -> Tuple[str, ssl.SSLContext]:
        """What a request needs, looked for only now: without it the target is out of reach, but the source is not.

        After a reboot of the node the secret is gone, and a CA file may be removed at any time; a worker that brings
        the source back must start all the same (safety, I3).
        """
        try:
            authorization = self.endpoint.authorization(self._secret)
            self._context = self._context or self.endpoint.tls_context()
        except EndpointInvalid as error:
            # pylint cannot see through the relative import that the class is an exception.
            raise ApiUnreachable(  # pylint: disable=bad-exception-cause
                f"{self.endpoint.name} cannot be asked: {error.message}",
                object=error.object,
                remedy=error.remedy or "Run the play again: it brings the token's secret.",
            ) from error
        return authorization, self._context

    def _encode(self, method: str, path: str, params: Mapping[str, Any], authorization: str) -> bytes:
        form = urlencode([(key, _text(value)) for key, value in params.items() if value is not None])
        in_body = method == "POST"
        target = path if in_body or not form else f"{path}?{form}"
        host = f"[{self.endpoint.host}]" if ":" in self.endpoint.host else self.endpoint.host
        lines = [
            f"{method} {target} HTTP/1.1",
            f"Host: {host}:{self.endpoint.port}",
            f"Authorization: {authorization}",
            "Accept: application/json",
            "Connection: close",
        ]
        if in_body:
            lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(form)}"]
        return ("\r\n".join(lines) + "\r\n\r\n" + (form if in_body else "")).encode("ascii")

    def _exchange(self, request: bytes, context: ssl.SSLContext, name: str, deadline: float) -> Tuple[int, str, bytes]:
        endpoint = self.endpoint
        try:
            stream = TlsStream.open(
                endpoint.host,
                endpoint.port,
                context,
                endpoint.check_certificate,
                deadline,
                self._clock,
                endpoint.server_hostname,
            )
        except ConnectFailed as error:
            raise ApiUnreachable(error.message, object=endpoint.name, remedy=error.remedy) from error
        # From here on the outcome is unknown unless a whole answer came (mtunnel-protocol 1.1).
        try:
            stream.write(request)
            return _answer(_Reader(stream, deadline, self._clock))
        except (StreamLost, TimeoutError, http.client.HTTPException, ValueError, OSError) as error:
            raise _unknown(name, printable(str(error), 100) or type(error).__name__, endpoint) from error
        finally:
            stream.close_gracefully()


class _Reader(io.RawIOBase):
    """A stream with a deadline as the raw file that http.client reads answers from."""

    def __init__(self, stream: TlsStream, deadline: float, clock: Callable[[], float]) -> None:
        super().__init__()
        self._stream = stream
        self._deadline = deadline
        self._clock = clock
        self._left = b""
        self._total = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def makefile(self, _mode: str, *_args: Any, **_kwargs: Any) -> io.BufferedReader:
        """What http.client calls on a socket."""
        return io.BufferedReader(self, 65536)

    def readinto(self, buffer: Any) -> int:
        """Next bytes of the answer; raises TimeoutError at the deadline."""
        if not self._left:
            self._left = self._next()
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def _next(self) -> bytes:
        while True:
            flushed = self._stream.flush()
            data = self._stream.read()
            if data is not None:
                self._total += len(data)
                if self._total > _MAX_ANSWER:
                    raise ValueError(f"answer of more than {_MAX_ANSWER} bytes")
                return data
            poller = select.poll()
            poller.register(self._stream.fileno(), select.POLLIN if flushed else select.POLLIN | select.POLLOUT)
            left = self._deadline - self._clock()
            if left <= 0 or not poller.poll(max(1, int(left * 1000))):
                raise TimeoutError("no answer in time")


def _answer(reader: _Reader) -> Tuple[int, str, bytes]:
    response = http.client.HTTPResponse(reader)  # type: ignore[arg-type]
    try:
        response.begin()
        return response.status, response.reason or "", response.read()
    finally:
        response.close()


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _whole(body: bytes, name: str) -> Dict[str, Any]:
    try:
        answer = json.loads(body.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise AnswerMalformed(f"the answer to {name} is not JSON", object=name) from error
    if not isinstance(answer, dict) or "data" not in answer:
        raise AnswerMalformed(f"the answer to {name} has no data", object=name)
    return answer


def _unknown(name: str, why: str, endpoint: Endpoint) -> ApiOutcomeUnknown:
    return ApiOutcomeUnknown(
        f"{name} was sent, but no whole answer came ({why})",
        object=endpoint.name,
        remedy="Read the state back before repeating it.",
    )


def _refusal(status: int, reason: str, body: bytes, name: str, endpoint: Endpoint) -> ApiError:
    message, errors = _message(reason, body)
    text = f"{name} was refused with HTTP {status}: {message}"
    if status == 401:
        return TokenRefused(
            f"{endpoint.name} refuses the token {endpoint.token_name}: {message}",
            object=endpoint.token_name,
            remedy="Check user, token id and secret, and that the token has not expired.",
            status=status,
        )
    if status == 403:
        return PrivilegeMissing(
            f"the token {endpoint.token_name} may not {name}: {message}",
            object=endpoint.token_name,
            remedy="Grant the named privilege on the named path to the token before the migration starts.",
            status=status,
        )
    if status == 400:
        detail = "; ".join(f"{key}: {value}" for key, value in sorted(errors.items()))
        return ParameterRefused(f"{text} {detail}".strip(), object=name, status=status, errors=errors)
    return ApiRefused(text, object=name, status=status, errors=errors)


def _message(reason: str, body: bytes) -> Tuple[str, Dict[str, str]]:
    """The server's text and its errors per parameter; older releases have the text in the reason phrase only."""
    try:
        answer = json.loads(body.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError):
        return printable(reason), {}
    if not isinstance(answer, dict):
        return printable(reason), {}
    found = answer.get("errors")
    errors = found if isinstance(found, dict) else {}
    message = answer.get("message")
    return (
        printable(message if isinstance(message, str) and message.strip() else reason),
        {printable(str(key), 60): printable(str(value)) for key, value in list(errors.items())[:20]},
    )
