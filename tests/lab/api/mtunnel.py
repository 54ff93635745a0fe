# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tunnel worker: task qmtunnel, one control connection, the line protocol (mtunnel-protocol 3.1 and 4).

It is a forked task, so that all its ends are real: its log is the task's log, a reply that cannot be written kills it
by SIGPIPE (`unexpected status`), a deleted task interrupts it. Whatever ends it, nothing on the node is ever freed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from typing import Any, Callable, Dict, Mapping, Optional

from lab import faults
from lab.node import vmconfig
from lab.node.base import Die, Node, ParamError
from lab.node.cluster import Cluster
from lab.node.flock import config_lock

from . import perl_json, schema
from .personality import Personality, current, scaled
from .tunnel_commands import COMMANDS, SCHEMAS, Session

__all__ = ["Tunnel", "parsed", "socket_of"]

ACCEPT_SECONDS = 300.0
PERL_LOCATION = " at /usr/share/perl5/PVE/API2/Qemu.pm line 1."


def socket_of(vmid: int) -> str:
    """The control socket of a VM's tunnel."""
    return "/run/qemu-server/%d.mtunnel" % vmid


def say(text: str) -> None:
    """One line of the task's log, unbuffered."""
    os.write(1, (text + "\n").encode("utf-8", "surrogateescape"))


class Tunnel:
    """One worker: socket, one connection, its commands."""

    def __init__(self, node: Node, vmid: int, user: str) -> None:
        self.node = node
        self.vmid = vmid
        self.user = user
        self.session = Session(node, vmid, user)
        self.listener: Optional[socket.socket] = None
        self.connection: Optional[socket.socket] = None
        self.buffer = b""

    # -- life -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """The task: listen, accept once, serve; Die ends it in error."""
        self._listen()
        say("mtunnel started")
        self.connection = self._accept()
        self._serve(self.connection)
        if not self.session.exiting:
            raise Die("mtunnel exited unexpectedly")
        say("mtunnel exited")

    def _listen(self) -> None:
        """Listen under the config flock; POST mtunnel does not wait for this (pve-cli 6)."""
        path = self.node.path(socket_of(self.vmid))
        with config_lock(self.node, self.vmid):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(path))
            self.listener.listen(1)
            _give_away(str(path))

    def _accept(self) -> socket.socket:
        assert self.listener is not None
        self.listener.settimeout(scaled(ACCEPT_SECONDS))
        try:
            connection, _ = self.listener.accept()
        except socket.timeout:
            say("Failed to accept tunnel connection - got timeout")
            say("")
            say("Removing tunnel socket..")
            self.node.path(socket_of(self.vmid)).unlink(missing_ok=True)
            say("Removing temporary VM config..")
            with config_lock(self.node, self.vmid):
                Cluster(self.node).remove(self.vmid)
            raise Die("Exiting mtunnel") from None
        connection.settimeout(None)
        return connection

    def _serve(self, connection: socket.socket) -> None:
        while True:
            line = self._line(connection)
            if line is None:
                return
            reply = self._handle(line)
            if reply is not None:
                self._send(reply)

    def _line(self, connection: socket.socket) -> Optional[bytes]:
        """The next line without its end; EOF ends a line too, then there is nothing more."""
        while b"\n" not in self.buffer:
            try:
                data = connection.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                rest, self.buffer = self.buffer, b""
                return rest or None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def _send(self, text: str) -> None:
        assert self.connection is not None
        self.connection.sendall(text.encode("utf-8", "surrogateescape"))

    # -- commands ---------------------------------------------------------------------------------------------------

    def _handle(self, line: bytes) -> Optional[str]:
        """The reply line to a command line; None when a fault swallows it."""
        try:
            request = parsed(line)
        except perl_json.Malformed as error:
            return _failure("failed to parse command - %s%s\n" % (error, PERL_LOCATION))
        name = request.pop("cmd", None)
        if name is None:
            return _failure("'cmd' missing")
        name = perl_json.scalar(name)
        if self.session.exiting:
            return _failure("tunnel is in exit-mode, processing '%s' cmd not possible" % name)
        if name not in COMMANDS:
            return _failure("unknown command '%s' given" % name)
        strikes = Strikes(self, name)
        strikes.before()
        say("received command '%s'" % name)
        strikes.received()
        reply = self._execute(name, request)
        return strikes.after(reply)

    def _execute(self, name: str, request: Dict[str, Any]) -> Dict[str, Any]:
        try:
            parameters = self._validate(name, request, current())
            with config_lock(self.node, self.vmid):
                self._check_state()
                result = COMMANDS[name](self.session, parameters)
            return {**(result or {}), "success": True}
        except ParamError as error:
            lines = "".join("%s: %s\n" % item for item in sorted(error.errors.items()))
            text = "400 Parameter verification failed.\n" + lines
        except Die as error:
            text = error.text.rstrip("\n") + "\n"
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            text = "%s%s\n" % (error, PERL_LOCATION)  # whatever a handler dies of, the command loop lives on
        return {"success": False, "msg": "failed to handle '%s' command - %s" % (name, text)}

    def _validate(self, name: str, request: Dict[str, Any], personality: Personality) -> Dict[str, Any]:
        wanted = SCHEMAS.get(name)
        if wanted is None:
            return request
        properties = wanted(personality)
        if properties is None:
            return request
        return schema.check(properties, request, not personality.generation.refuses_unknown, True)

    def _check_state(self) -> None:
        """Re-read the config: it must be there and carry the lock this tunnel set (mtunnel-protocol 4.1)."""
        config = vmconfig.load(self.node, self.vmid)
        expected = self.session.lock
        if expected is not None and config.lock != expected:
            raise Die("Encountered wrong lock - aborting mtunnel command handling.")

    # -- used by faults ---------------------------------------------------------------------------------------------

    def vanish(self) -> None:
        """End as after a lost connection."""
        assert self.connection is not None
        self.connection.close()
        raise Die("mtunnel exited" if self.session.exiting else "mtunnel exited unexpectedly")


def parsed(line: bytes) -> Dict[str, Any]:
    """The request of a line; a value that is no object ends the worker (mtunnel-protocol 4.1)."""
    value = perl_json.decode(line)
    try:
        return perl_json.hash_of(value, PERL_LOCATION)
    except ValueError as error:
        raise Die(str(error)) from None


def _failure(text: str) -> str:
    return json.dumps({"success": False, "msg": text}) + "\n"


def _give_away(path: str) -> None:
    """Sockets belong to www-data so that the front end may connect."""
    try:
        os.chown(path, 33, 33)
    except PermissionError:
        pass


class Strikes:
    """The faults of one command, at the three moments they can strike."""

    def __init__(self, tunnel: Tunnel, name: str) -> None:
        self.tunnel = tunnel
        self.facts: Dict[str, Any] = {"vmid": tunnel.vmid, "command": name}

    def _take(self, wanted: str, **more: Any) -> Optional[Dict[str, Any]]:
        return faults.take(wanted, self.tunnel.node.root, **self.facts, **more)

    def before(self) -> None:
        """Before the command is logged."""
        if self._take("control_cut", when="before", lock=self.tunnel.session.lock or "none"):
            self.tunnel.vanish()

    def received(self) -> None:
        """After it is logged, before it runs."""
        fault = self._take("command_delay")
        if fault:
            time.sleep(float(fault["seconds"]))
        for wanted, action in (("flock_hold", faults.hold_flock), ("qmp_hold", faults.hold_qmp)):
            fault = self._take(wanted)
            if fault:
                _hold(action, self.tunnel.vmid, float(fault["seconds"]))
        if self._take("kill_qemu", when="before"):
            self._kill()

    def after(self, reply: Dict[str, Any]) -> Optional[str]:
        """The reply line as faults leave it."""
        if self._take("kill_qemu", when="after"):
            self._kill()
        if self._take("control_cut", when="after", lock=self.tunnel.session.lock or "none"):
            assert self.tunnel.connection is not None
            self.tunnel.connection.close()
            os.kill(os.getpid(), signal.SIGPIPE)
        fault = self._take("reply_replace")
        text = json.dumps(reply) if fault is None else _replaced(reply, fault)
        fault = self._take("reply_delay")
        if fault:
            time.sleep(float(fault["seconds"]))
        return None if self._take("reply_drop") else text + "\n"

    def _kill(self) -> None:
        from lab.node import vm

        pid = vm.pid(self.tunnel.node, self.tunnel.vmid)
        if pid:
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)


def _replaced(reply: Dict[str, Any], fault: Mapping[str, Any]) -> str:
    if "raw" in fault:
        return str(fault["raw"])
    return json.dumps(_merged(reply, fault.get("merge", {})))


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
    return new


def _hold(action: Callable[..., None], vmid: int, seconds: float) -> None:
    """Let another process hold something; returns once it does."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            action(vmid, seconds, writer)
        finally:
            os._exit(0)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)


def open_tunnel(node: Node, vmid: int, user: str) -> Callable[[], None]:
    """The task's work."""

    def work() -> None:
        Tunnel(node, vmid, user).run()

    return work
