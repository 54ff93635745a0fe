# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""pvesh: the API methods in-process as root@pam (pve-cli 4.3).

Progress text of a write comes first on stdout, the JSON value is its last line; `set` on a config prints none. A task
runs before the command returns; when it fails, the reason stands on stderr and the exit status is 0 all the same.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import quote, urlencode

from lab.api.auth import Keys
from lab.api.http import Request
from lab.api.peers import forward
from lab.api.registry import NotImplementedHere, Paged, Registry
from lab.commands.cli import say
from lab.commands.output import FORMATS, render
from lab.node.base import Die, Node, ParamError, complain

VERBS = {"get": "GET", "set": "PUT", "create": "POST", "delete": "DELETE"}
USAGE = "USAGE: pvesh <COMMAND> <api_path> [ARGS] [OPTIONS]"
OWN_OPTIONS = ("output-format", "human-readable", "noborder", "noheader", "quiet", "noproxy")
FLAGS = ("quiet", "noborder", "noheader", "noproxy")


def parse(words: Sequence[str]) -> Tuple[Dict[str, str], Dict[str, str]]:
    """Parameters of the method and pvesh's own options."""
    params: Dict[str, str] = {}
    own: Dict[str, str] = {}
    rest: List[str] = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            raise Die("400 too many arguments")
        name, sign, value = word.lstrip("-").partition("=")
        if not sign:
            bare = name in FLAGS or not rest or rest[0].startswith("--")
            value = "1" if bare else rest.pop(0)
        (own if name in OWN_OPTIONS else params)[name] = value
    return params, own


def remote(node: Node, other: str, verb: str, path: str, params: Mapping[str, str]) -> Any:
    """The same call on another node of the cluster, as root@pam."""
    now, keys = time.time(), Keys(node)
    headers = {
        "cookie": "PVEAuthCookie=" + quote(keys.login_ticket("root@pam", now), safe=""),
        "csrfpreventiontoken": keys.csrf_token("root@pam", now),
        "content-type": "application/x-www-form-urlencoded",
    }
    text = urlencode(params)
    in_query = verb in ("get", "delete")
    request = Request(
        VERBS[verb], "/api2/json" + path, text if in_query else "", headers, b"" if in_query else text.encode()
    )
    answer = forward(node, other, request)
    if answer.status != 200:
        raise Die(answer.reason)
    return json.loads(answer.body or b"{}").get("data")


def run(node: Node, verb: str, path: str, words: Sequence[str]) -> None:
    """One call."""
    params, own = parse(words)
    form = own.get("output-format", "text")
    if form not in FORMATS:
        wanted = f"value '{form}' does not have a value in the enumeration '{', '.join(FORMATS)}'"
        raise ParamError({"output-format": wanted})
    registry = Registry(node)
    entry, values = registry.find(VERBS[verb], path)
    other = registry.elsewhere(entry, values)
    data = remote(node, other, verb, path, params) if other else registry.run(entry, values, params, synchronous=True)
    if "quiet" not in own:
        say(render(data.data if isinstance(data, Paged) else data, form, "noheader" not in own, "noborder" not in own))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Entry point; the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:  # a process of its own, which ends with its reader
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if words[:1] and words[0] in VERBS and len(words) < 2:
        complain("400 not enough arguments\npvesh %s <api_path> [OPTIONS] [FORMAT_OPTIONS]" % words[0])
        return 255
    if not words or words[0] not in VERBS:
        problem = "unknown command 'pvesh %s'" % words[0] if words else "no command specified"
        complain("ERROR: %s\n%s" % (problem, USAGE))
        return 255
    try:
        run(Node(), words[0], words[1], words[2:])
    except NotImplementedHere:
        complain("No '%s' handler defined for '%s'" % (words[0], words[1]))
        return 255
    except Die as error:
        complain(error.text)
        if isinstance(error, ParamError):
            complain("pvesh %s %s [OPTIONS] [FORMAT_OPTIONS]" % (words[0], words[1]))
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
