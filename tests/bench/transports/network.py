# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the two nodes are: both on the machine's loopback, or in two namespaces with a shaped link between them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from typing import ContextManager, Iterator

__all__ = ["ADDRESSES", "Link", "Loopback"]

ADDRESSES = ("127.0.0.1", "10.77.1.2")  # of the target, on either network
_SOURCE_ADDRESS = "10.77.1.1"
_RATE = "rate 2gbit burst 512kb latency 50ms"
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


class Loopback:
    """No link at all: the processes are the limit."""

    address = ADDRESSES[0]

    def source(self) -> ContextManager[None]:
        return contextlib.nullcontext()

    def target(self) -> ContextManager[None]:
        return contextlib.nullcontext()


class Link:
    """A veth pair with a token bucket at both ends; a context manager. The namespaces live as long as it."""

    address = ADDRESSES[1]

    def __enter__(self) -> Link:
        self._source, self._target = _new_namespace(), _new_namespace()
        holder = f"/proc/{os.getpid()}/fd/{self._target}"
        with self.source():
            _run(f"ip link add link0 type veth peer name link0 netns {holder}")
            _run(f"ip address add {_SOURCE_ADDRESS}/24 dev link0")
            _shape()
        with self.target():
            _run(f"ip address add {self.address}/24 dev link0")
            _shape()
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._source)
        os.close(self._target)

    def source(self) -> ContextManager[None]:
        """What is started within is on the source's node."""
        return _inside(self._source)

    def target(self) -> ContextManager[None]:
        return _inside(self._target)


def _shape() -> None:
    _run("ip link set lo up")
    _run("ip link set link0 up")
    _run(f"tc qdisc add dev link0 root tbf {_RATE}")


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True)


def _here() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _new_namespace() -> int:
    before = _here()
    if _LIBC.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace")
    try:
        return _here()
    finally:
        _LIBC.setns(before, 0)
        os.close(before)


@contextlib.contextmanager
def _inside(namespace: int) -> Iterator[None]:
    before = _here()
    _LIBC.setns(namespace, 0)
    try:
        yield
    finally:
        _LIBC.setns(before, 0)
        os.close(before)
