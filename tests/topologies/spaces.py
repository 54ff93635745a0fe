# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks made of network namespaces, one process each, which take everything with them when they end.

A namespace has no name in the file system: it lives as long as its process, and that dies with the test.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import traceback
from collections.abc import Callable
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
STEP_TIME = 40.0


class Space:
    """One network namespace."""

    def __init__(self) -> None:
        ready, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.write(told, b"1" if LIBC.unshare(CLONE_NEWNET) == 0 else b"0")
            while True:
                signal.pause()
        os.close(told)
        good = os.read(ready, 1)
        os.close(ready)
        if good != b"1":
            self.end()
            raise OSError("no network namespace can be made")

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def run(self, argv: list[str], text: str = "") -> None:
        command = ["nsenter", f"--net=/proc/{self.pid}/ns/net", *argv]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"{argv}: {done.stderr or done.stdout}\n{text}")

    def begin(self, body: Callable[[], Any]) -> tuple[int, int]:
        """Starts a function in the namespace; :func:`result` has what it returns."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writing)
            return pid, reading
        try:
            os.close(reading)
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            with open(f"/proc/{self.pid}/ns/net", encoding="ascii") as file:
                if LIBC.setns(file.fileno(), CLONE_NEWNET):
                    raise OSError("setns failed")
            said = json.dumps({"result": body()})
        except BaseException:
            said = json.dumps({"problem": traceback.format_exc()})
        try:
            with os.fdopen(writing, "w") as file:
                file.write(said)
        finally:
            os._exit(0)


def result(begun: tuple[int, int]) -> Any:
    """What a function in a namespace returned."""
    pid, reading = begun
    data = b""
    while select.select([reading], [], [], STEP_TIME)[0]:
        chunk = os.read(reading, 65536)
        if not chunk:
            break
        data += chunk
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(reading)
    os.waitpid(pid, 0)
    found = json.loads(data or b'{"problem": "it did not end"}')
    if "problem" in found:
        raise AssertionError(found["problem"])
    return found["result"]


class Net:
    """Namespaces by name, wires between them, and their settings."""

    def __init__(self) -> None:
        self.spaces: dict[str, Space] = {}

    def close(self) -> None:
        for space in self.spaces.values():
            space.end()

    def add(self, *names: str) -> None:
        for name in names:
            self.spaces[name] = Space()
            # Bridged packets must not meet the filter (lab 21), and no address is tested for a second at first.
            self.ip(name, "link set lo up")
            self.set(name, "net/ipv6/conf/default/accept_dad=0")
            self.set(name, "net/bridge/bridge-nf-call-iptables=0", "net/bridge/bridge-nf-call-ip6tables=0")

    def begin(self, name: str, step: Any, options: dict[str, Any], **how: Any) -> tuple[int, int]:
        """Starts a step of the audit in a namespace."""
        from .audit import in_space

        return self.spaces[name].begin(lambda: in_space(step, options, **how))

    def ip(self, name: str, *lines: str) -> None:
        self.spaces[name].run(["ip", "-batch", "-"], "\n".join(lines) + "\n")

    def nft(self, name: str, text: str) -> None:
        self.spaces[name].run(["nft", "-f", "-"], text)

    def set(self, name: str, *settings: str) -> None:
        script = "".join(
            f"[ ! -e /proc/sys/{k} ] || echo {v} >/proc/sys/{k};" for k, v in (s.split("=") for s in settings)
        )
        self.spaces[name].run(["sh", "-c", script])

    def wire(self, one: str, interface: str, other: str, port: str) -> None:
        """A veth pair, both ends up."""
        ends = self.spaces[one].pid, self.spaces[other].pid
        self.spaces[one].run(
            ["ip", "link", "add", interface, "type", "veth", "peer", "name", port, "netns", str(ends[1])]
        )
        self.ip(one, f"link set {interface} up")
        self.ip(other, f"link set {port} up")

    def switch(self, name: str, *ports: tuple[str, str], bridge: str = "sw") -> None:
        """A bridge in namespace ``name``, and a wire from each (namespace, interface) to it."""
        self.ip(name, f"link add {bridge} type bridge", f"link set {bridge} up")
        for space, interface in ports:
            port = f"{bridge}-{space}"
            self.wire(space, interface, name, port)
            self.ip(name, f"link set {port} master {bridge}")
