# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls for another node of the cluster are passed on to it with the caller's own credentials."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Dict

from lab.node.base import Die, Node

from .http import Answer, Request

__all__ = ["addresses", "forward"]

PASSED_ON = ("authorization", "cookie", "csrfpreventiontoken", "content-type")


def addresses(node: Node) -> Dict[str, str]:
    """Node name -> API address, from /etc/pve/.members."""
    try:
        members = json.loads(node.path("/etc/pve/.members").read_text("utf-8"))
        return {name: entry["ip"] for name, entry in members["nodelist"].items() if entry.get("ip")}
    except (FileNotFoundError, KeyError, ValueError):
        return {}


def forward(node: Node, name: str, request: Request) -> Answer:
    """The other node's answer; nodes of one cluster trust each other's certificates."""
    address = addresses(node).get(name)
    if address is None:
        raise Die("unable to resolve address of node '%s'" % name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    headers = {key: request.headers[key] for key in PASSED_ON if key in request.headers}
    target = request.path + ("?" + request.query if request.query else "")
    connection = http.client.HTTPSConnection(address, 8006, context=context, timeout=60)
    try:
        connection.request(request.method, target, request.body or None, headers)
        response = connection.getresponse()
        return Answer(response.status, response.reason, response.read(), response.getheader("Content-Type"))
    except OSError as error:
        return Answer(595, "%s" % (error.strerror or error), b"", None)
    finally:
        connection.close()
