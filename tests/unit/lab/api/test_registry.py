# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From verb and path to an answer, and the envelopes of errors (mtunnel-protocol 9.1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.api.auth import Caller
from lab.api.registry import NotImplementedHere, Registry, error_answer
from lab.node.base import Denied, Die, Node, ParamError

ROOT_TOKEN = Caller("root@pam!t1")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "etc/pve/nodes/beta1/qemu-server").mkdir(parents=True)
    (tmp_path / "etc/pve/user.cfg").write_text(
        "user:root@pam:1:0::::::\ntoken:root@pam!t1:0:0::\nuser:none@pve:1:0::::::\n"
    )
    return Registry(Node(root=str(tmp_path), name="beta1"))


def call(registry: Registry, verb: str, path: str, caller: Caller = ROOT_TOKEN, **params: str) -> object:
    entry, values = registry.find(verb, path)
    return registry.run(entry, values, params, caller)


def refusal(
    registry: Registry, verb: str, path: str, caller: Caller = ROOT_TOKEN, **params: str
) -> "tuple[int, str, dict]":
    with pytest.raises(Die) as refused:
        call(registry, verb, path, caller, **params)
    return error_answer(refused.value)


def test_fixed_words_win_over_parameters(registry: Registry) -> None:
    assert registry.find("GET", "/nodes/b1/qemu/100/status/current")[1] == {"node": "b1", "vmid": "100"}
    assert (
        registry.find("GET", "/nodes/b1/storage/s1/content/s1:100/vm-100-disk-0.raw")[1]["volume"]
        == "s1:100/vm-100-disk-0.raw"
    )


def test_unknown_method(registry: Registry) -> None:
    with pytest.raises(NotImplementedHere):
        registry.find("GET", "/nosuch")


def test_mtunnel_is_for_this_node_only(registry: Registry) -> None:
    status, reason, body = refusal(registry, "POST", "/nodes/nosuch/qemu/600/mtunnel")
    assert (status, reason) == (400, "Parameter verification failed.")
    assert body["errors"] == {"node": "node needs to be 'localhost' or local hostname 'beta1'"}


def test_vmid_format(registry: Registry) -> None:
    body = refusal(registry, "POST", "/nodes/beta1/qemu/99/mtunnel")[2]
    assert body["errors"] == {"vmid": "invalid format - value does not look like a valid VM ID\n"}


def test_missing_privileges_are_named_in_order(registry: Registry) -> None:
    status, reason, body = refusal(registry, "POST", "/nodes/beta1/qemu/600/mtunnel", Caller("none@pve"))
    assert (status, reason) == (403, "Permission check failed (/vms/600, VM.Allocate)")
    assert body == {"data": None, "message": reason + "\n"}


def test_privileges_come_before_parameters(registry: Registry) -> None:
    status, reason, _ = refusal(registry, "POST", "/nodes/nosuch/qemu/99/mtunnel", Caller("none@pve"), bogus="1")
    assert (status, reason) == (403, "Permission check failed (/vms/99, VM.Allocate)")


def test_a_parameter_of_the_path_cannot_be_given_anew(registry: Registry) -> None:
    body = refusal(registry, "POST", "/nodes/beta1/qemu/600/mtunnel", vmid="601")[2]
    assert body["errors"] == {"vmid": "duplicate parameter (already defined in URI with conflicting values)"}


def test_no_config(registry: Registry) -> None:
    wanted = "Configuration file 'nodes/beta1/qemu-server/211.conf' does not exist"
    assert refusal(registry, "GET", "/nodes/localhost/qemu/211/status/current")[:2] == (500, wanted)


def test_envelopes() -> None:
    assert (
        error_answer(Denied("/", ["Sys.Audit", "Sys.Modify"], True))[1]
        == "Permission check failed (/, Sys.Audit|Sys.Modify)"
    )
    assert error_answer(ParamError({"a": "b"}))[2]["errors"] == {"a": "b"}
    assert error_answer(Die("first\nsecond"))[1:] == ("first", {"data": None, "message": "first\nsecond\n"})
