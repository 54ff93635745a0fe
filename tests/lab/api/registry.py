# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of API methods, and the way from a verb and a path to an answer; used over HTTP and by pvesh alike."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union
from urllib.parse import unquote

from lab.node import simulated
from lab.node.base import Denied, Die, Node, ParamError, complain, may_all
from lab.node.cluster import Cluster
from lab.node.tasks import TaskFailed, Tasks

from . import schema
from .access import Access
from .auth import Caller

__all__ = ["Call", "Method", "Need", "NotImplementedHere", "Paged", "Registry", "method", "templates"]

ROOT = Caller("root@pam", True)
Handler = Callable[["Call"], Any]
NODE = schema.string(format="node")
VMID = schema.string(format="vmid")
PATH_FIELDS: Mapping[str, schema.Field] = {"node": NODE, "vmid": VMID, "storage": schema.string(format="storage")}


class NotImplementedHere(Exception):
    """No such method: 501."""


@dataclass(frozen=True)
class Need:
    """A privilege a method asks for before it runs; the path may hold parameters."""

    path: str
    privileges: Tuple[str, ...]
    any_of: bool = False


@dataclass(frozen=True)
class Paged:
    """A result with a total beside data."""

    data: Any
    extra: Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """One API method. ``local``: the node must be this one; otherwise a call for another node is passed on."""

    verb: str
    path: str
    properties: Mapping[str, schema.Field]
    needs: Sequence[Need]
    handler: Handler
    local: bool = False
    additional: bool = False
    pattern: "re.Pattern[str]" = field(default=re.compile(""))


@dataclass
class Call:
    """What a handler works with."""

    node: Node
    caller: Caller
    access: Access
    params: Dict[str, Any]
    synchronous: bool = False
    """pvesh: tasks run before the handler returns."""

    @property
    def cluster(self) -> Cluster:
        """The cluster file system."""
        return Cluster(self.node)

    @property
    def vmid(self) -> int:
        """The VM of the path."""
        return int(self.params["vmid"])

    def may(self, path: str, privileges: Sequence[str], any_of: bool = False) -> bool:
        """Whether the caller holds the privileges."""
        return self.access.may(self.caller.user, path, privileges, any_of)

    def need(self, path: str, *privileges: str, any_of: bool = False) -> None:
        """403 unless the caller holds the privileges."""
        may_all(self.may, path, privileges, any_of)

    def root_only(self, *keys: str) -> None:
        """400 for options that only root@pam itself may use."""
        used = [key for key in keys if self.params.get(key)]
        if used and not self.caller.is_root:
            raise ParamError({used[0]: "Only root may use this option."})

    def spawn(self, kind: str, identity: str, work: Callable[[], None]) -> str:
        """Start a task and return its UPID."""
        tasks = Tasks(self.node)
        if not self.synchronous:
            return tasks.start(kind, identity, self.caller.user, work)
        try:
            return tasks.run(kind, identity, self.caller.user, work)
        except TaskFailed as error:
            complain(error.text)  # pvesh: the reason on stderr, the task's id as the result (pve-cli 4.3)
            return error.upid


_METHODS: List[Method] = []


def method(
    verb: str,
    path: str,
    properties: Optional[Mapping[str, schema.Field]] = None,
    needs: Union[Need, Iterable[Need]] = (),
    local: bool = False,
    additional: bool = False,
) -> Callable[[Handler], Handler]:
    """Register a handler."""

    def register(handler: Handler) -> Handler:
        regex = re.compile("/".join(_part(part) for part in path.strip("/").split("/")))
        wanted = [needs] if isinstance(needs, Need) else list(needs)
        _METHODS.append(Method(verb, path, dict(properties or {}), wanted, handler, local, additional, regex))
        return handler

    return register


def templates() -> List[str]:
    """The paths of all methods."""
    return [entry.path for entry in _METHODS]


def _part(part: str) -> str:
    if part[:1] != "{":
        return re.escape(part)
    return "(?P<%s>%s)" % (part[1:-1], ".+" if part == "{volume}" else "[^/]+")  # volume ids hold a slash


class Registry:
    """Finds methods and runs them."""

    def __init__(self, node: Node) -> None:
        self.node = node
        from . import methods

        methods.load()

    def find(self, verb: str, path: str) -> Tuple[Method, Dict[str, str]]:
        """The method for a verb and a path, with the path's parameters."""
        trimmed = path.strip("/")
        best: Optional[Tuple[Method, Dict[str, str]]] = None
        for entry in _METHODS:
            match = entry.pattern.fullmatch(trimmed)
            if match and entry.verb == verb:
                values = {key: unquote(value) for key, value in match.groupdict().items()}
                if best is None or len(values) < len(best[1]):
                    best = (entry, values)
        if best is None:
            raise NotImplementedHere("Method '%s /%s' not implemented" % (verb, trimmed))
        return best

    def elsewhere(self, entry: Method, values: Mapping[str, str]) -> Optional[str]:
        """The other node a call must be passed on to, or None."""
        name = values.get("node")
        if name is None or entry.local or name in ("localhost", self.node.name):
            return None
        if name in Cluster(self.node).nodes():
            return None if name in simulated.names(self.node) else name
        raise Die(
            "hostname lookup '%s' failed - failed to get address info for: %s: Name or service not known" % (name, name)
        )

    def run(
        self,
        entry: Method,
        values: Mapping[str, str],
        given: Mapping[str, Any],
        caller: Caller = ROOT,
        synchronous: bool = False,
    ) -> Any:
        """Check privileges, then parameters, run the handler.

        Privileges come first: who may not call learns nothing about the call (mtunnel-protocol 3.1 and 9.1; both kinds
        of errors at once are in no recording).
        """
        self._privileges(entry, {**given, **values}, caller)
        params = self._parameters(entry, values, given)
        node = simulated.as_node(self.node, params.get("node"))
        return entry.handler(Call(node, caller, Access.of(node), params, synchronous))

    def _privileges(self, entry: Method, raw: Mapping[str, Any], caller: Caller) -> None:
        call = Call(self.node, caller, Access.of(self.node), {})
        named = {key: str(value) for key, value in raw.items()}
        if named.get("node") == "localhost":
            named["node"] = self.node.name
        for need in entry.needs:
            path = re.sub(r"\{(\w+)\}", lambda match: named.get(match[1], ""), need.path)
            call.need(path, *need.privileges, any_of=need.any_of)

    def _parameters(self, entry: Method, values: Mapping[str, str], given: Mapping[str, Any]) -> Dict[str, Any]:
        for key in values:
            if key in given and str(given[key]) != values[key]:
                raise ParamError({key: "duplicate parameter (already defined in URI with conflicting values)"})
        properties = dict(entry.properties)
        for key in values:
            properties.setdefault(key, PATH_FIELDS.get(key, schema.string()))
        params = schema.check(properties, {**given, **values}, entry.additional)
        if "node" in params:
            if entry.local and params["node"] not in ("localhost", self.node.name):
                text = "node needs to be 'localhost' or local hostname '%s'" % self.node.name
                raise ParamError({"node": text})
            params["node"] = simulated.as_node(self.node, params["node"]).name
        return params


def error_answer(error: Exception) -> Tuple[int, str, Dict[str, Any]]:
    """Status, reason and body of a failed call; the reason repeats the message (mtunnel-protocol 9.1)."""
    if isinstance(error, ParamError):
        return (
            400,
            "Parameter verification failed.",
            {"data": None, "errors": dict(error.errors), "message": "Parameter verification failed.\n"},
        )
    if isinstance(error, Denied):
        return 403, error.reason, {"data": None, "message": error.reason + "\n"}
    if isinstance(error, NotImplementedHere):
        return 501, str(error), {"data": None, "message": str(error) + "\n"}
    if isinstance(error, Die):
        return 500, error.text.split("\n")[0], {"data": None, "message": error.text.rstrip("\n") + "\n"}
    complain("".join(traceback.format_exception(error)))
    return 500, "internal error: %s" % type(error).__name__, {"data": None, "message": "%s\n" % error}
