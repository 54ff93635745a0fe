# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts of refused parameters (mtunnel-protocol 4.2 and 9.3)."""

from __future__ import annotations

from typing import Any, Dict

import pytest

from lab.api.personality import Generation, Personality
from lab.api.schema import check
from lab.api.tunnel_commands import SCHEMAS
from lab.node.base import ParamError

START = {
    "start_params": {"statefile": "unix"},
    "migrate_opts": {"type": "websocket", "migratedfrom": "a1", "remote_node": "b1", "nbd_proto_version": 1},
}
UNDEFINED = "property is not defined in schema and the schema does not allow additional properties"


def errors(command: str, request: Dict[str, Any], generation: Generation = Generation.HARDENED) -> Dict[str, str]:
    properties = SCHEMAS[command](Personality(generation))
    assert properties is not None
    try:
        check(properties, request, not generation.refuses_unknown, True)
    except ParamError as error:
        return dict(error.errors)
    return {}


def start(params: Dict[str, Any], options: Dict[str, Any]) -> Dict[str, Any]:
    return {"start_params": {**START["start_params"], **params}, "migrate_opts": {**START["migrate_opts"], **options}}


@pytest.mark.parametrize(
    ("command", "request_", "wanted"),
    [
        ("bwlimit", {}, {"storages": "property is missing and it is not optional"}),
        ("bwlimit", {"storages": "local"}, {"storages": "type check ('array') failed"}),
        ("bwlimit", {"storages": [None], "bwlimit": None, "operation": "nonsense"}, {}),
        ("bwlimit", {"storages": [], "bwlimit": -1}, {"bwlimit": "value must have a minimum value of 0"}),
        ("bwlimit", {"storages": [], "bwlimit": "10000"}, {}),
        ("disk", {"storage": "local", "drive": "str"}, {"drive": "type check ('object') failed"}),
        (
            "disk",
            {"storage": "local", "drive": {}, "format": "nosuch"},
            {"format": "value 'nosuch' does not have a value in the enumeration 'raw, qcow, qed, qcow2, vmdk, cloop'"},
        ),
        ("quit", {"cleanup": "maybe"}, {"cleanup": "type check ('boolean') failed - got 'maybe'"}),
        ("quit", {"cleanup": ""}, {"cleanup": "type check ('boolean') failed - got ''"}),
        ("quit", {"cleanup": "yes"}, {"cleanup": "type check ('boolean') failed - got 'yes'"}),
        ("quit", {"cleanup": [1]}, {"cleanup": "type check ('boolean') failed - got ARRAY"}),
        ("quit", {"cleanup": False}, {}),
        ("ticket", {"path": {}}, {"path": "type check ('string') failed - got HASH"}),
        ("ticket", {"path": True}, {"path": "type check ('string') failed - got JSON::PP::Boolean"}),
        ("bwlimit", {"storages": [], "bwlimit": 1.5}, {"bwlimit": "type check ('integer') failed - got '1.5'"}),
        ("quit", {"cleanup": None}, {"cleanup": "property is missing and it is not optional"}),
        ("quit", {"cleanup": 0}, {}),
        ("ticket", {"path": "/x", "extra": 1}, {"extra": UNDEFINED}),
        ("start", start({"paused": 1}, {}), {"start_params.paused": UNDEFINED}),
        ("start", start({}, {"with_conntrack_state": 1}), {"migrate_opts.with_conntrack_state": UNDEFINED}),
        (
            "start",
            start({"statefile": "tcp"}, {}),
            {"start_params.statefile": "value 'tcp' does not have a value in the enumeration 'unix'"},
        ),
        (
            "start",
            start({}, {"network": "nocidr"}),
            {"migrate_opts.network": "invalid format - value does not look like a valid CIDR network\n"},
        ),
        ("start", start({}, {"network": None, "spice_ticket": None}), {}),
        (
            "start",
            start({}, {"nbd_proto_version": 0}),
            {"migrate_opts.nbd_proto_version": "value must have a minimum value of 1"},
        ),
        (
            "start",
            start({"forcemachine": "nosuch"}, {}),
            {
                "start_params.forcemachine": "invalid format - format error\n"
                "start_params.forcemachine.type: value does not match the regex pattern\n"
            },
        ),
    ],
)
def test_texts(command: str, request_: Dict[str, Any], wanted: Dict[str, str]) -> None:
    assert errors(command, request_) == wanted


def test_generations_differ_in_what_they_refuse() -> None:
    extra_inside, extra_outside = start({"paused": 1}, {}), {"path": "/x", "extra": 1}
    assert errors("start", extra_inside, Generation.TRANSITIONAL) == {}
    assert errors("ticket", extra_outside, Generation.TRANSITIONAL) == {}
    assert errors("start", start({"statefile": "tcp"}, {}), Generation.CLASSIC) == {}
    assert errors("start", start({"statefile": "tcp"}, {"type": "insecure"}), Generation.INSECURE) == {}


def test_numbers_keep_the_type_they_came_with() -> None:
    properties = SCHEMAS["bwlimit"](Personality())
    assert properties is not None
    assert check(properties, {"storages": [], "bwlimit": "10000"}, False, True)["bwlimit"] == "10000"
