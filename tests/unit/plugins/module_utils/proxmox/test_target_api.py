# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The calls on the target, with a session that answers from a table."""

from __future__ import annotations

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox import target_api
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import (
    AnswerMalformed,
    ApiRefused,
    VmAbsent,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.target_api import TargetApi, VmStatus

UPID = "UPID:b1:0000AAAA:00BBBBBB:4EEC61E2:qmtunnel:200:mig@pve!t1:"
TICKET = "PVETUNNEL:4EEC61E2::" + "A" * 342 + "=="
GRANT = {"upid": UPID, "ticket": TICKET, "socket": "/run/qemu-server/200.mtunnel"}


class FakeSession:
    """Answers `METHOD path` from a table; a function is called with the parameters, an exception raised."""

    def __init__(self, answers):
        self.answers = answers
        self.calls = []

    def _answer(self, method, segments, params):
        call = f"{method} {'/'.join(segments)}"
        self.calls.append((call, params))
        answer = self.answers[call]
        if isinstance(answer, Exception):
            raise answer
        return answer(params) if callable(answer) else answer

    def get(self, *segments, **params):
        return self._answer("GET", segments, params)

    def page(self, *segments, **params):
        return self._answer("GET", segments, params)

    def request(self, method, segments, params, timeout=None):
        self.timeout = timeout
        return self._answer(method, segments, params)

    def post(self, *segments, **params):
        return self._answer("POST", segments, params)

    def delete(self, *segments, **params):
        return self._answer("DELETE", segments, params)


class Clock:
    """Moves by a step at each look."""

    def __init__(self, step=0.0):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def api(answers, step=0.0):
    session = FakeSession(answers)
    return TargetApi(session, "b1", Clock(step)), session


def test_open_tunnel_sends_both_lists():
    target, session = api({"POST nodes/b1/qemu/200/mtunnel": GRANT})
    grant = target.open_tunnel(200, ["fast", "slow"], [])
    assert (grant.upid, grant.socket) == (UPID, GRANT["socket"])
    assert session.calls[0][1] == {"storages": "fast,slow", "bridges": ""}


def test_grant_does_not_show_its_ticket():
    target, _session = api({"POST nodes/b1/qemu/200/mtunnel": GRANT})
    assert TICKET not in repr(target.open_tunnel(200, [], []))


@pytest.mark.parametrize(
    "changes",
    [{"socket": "/run/qemu-server/201.mtunnel"}, {"socket": "/run/qemu-server/200.mtunnel\n"}, {"socket": None},
     {"ticket": "x"}, {"ticket": None}, {"upid": UPID.replace("200", "201")},
     {"upid": UPID.replace("qmtunnel", "qmstart")},
     {"upid": "UPID:x"}, {"upid": UPID + "/../../x"}],
    ids=str,
)  # fmt: skip
def test_open_tunnel_refuses_grant(changes):
    target, _session = api({"POST nodes/b1/qemu/200/mtunnel": {**GRANT, **changes}})
    with pytest.raises(AnswerMalformed):
        target.open_tunnel(200, [], [])


def test_tunnel_path_encodes_ticket_and_socket():
    target, _session = api({})
    path = target.tunnel_path(200, "PVETUNNEL:4E::a+b/c=", "/run/qemu-server/200.mtunnel")
    assert path == (
        "/api2/json/nodes/b1/qemu/200/mtunnelwebsocket"
        "?ticket=PVETUNNEL%3A4E%3A%3Aa%2Bb%2Fc%3D&socket=%2Frun%2Fqemu-server%2F200.mtunnel"
    )


@pytest.mark.parametrize(
    ("raw", "running", "exitstatus"),
    [({"status": "running"}, True, ""), ({"status": "stopped", "exitstatus": "OK"}, False, "OK"),
     ({"status": "stopped", "exitstatus": "mtunnel exited unexpectedly"}, False, "mtunnel exited unexpectedly")],
    ids=["running", "ok", "lost"],
)  # fmt: skip
def test_task_status(raw, running, exitstatus):
    target, _session = api({f"GET nodes/b1/tasks/{UPID}/status": raw})
    assert target.task_status(UPID) == target_api.TaskStatus(running, exitstatus)


def log_of(length, at_once=500):
    """A log as the target pages it out; ``at_once`` is the most that it gives in one answer."""

    def page(params):
        end = min(length, params["start"] + min(at_once, params["limit"]))
        return [{"n": n + 1, "t": f"line {n}"} for n in range(params["start"], end)], length

    return {f"GET nodes/b1/tasks/{UPID}/log": page}


def test_task_log_is_read_page_by_page():
    target, session = api(log_of(700))
    assert target.task_log(UPID) == [f"line {n}" for n in range(700)]
    assert len(session.calls) == 2


@pytest.mark.parametrize(("length", "at_once"), [(20_000, 500), (700, 50)], ids=["long", "short pages"])
def test_task_log_is_read_to_its_end(length, at_once):
    target, _session = api(log_of(length, at_once))
    assert target.task_log(UPID)[-1] == f"line {length - 1}"


@pytest.mark.parametrize(
    "page",
    [([{"n": 1, "t": "x"}] * 500, 1 << 30), ([], 700), ([{"n": 1, "t": "x"}] * 7, None)],
    ids=["never ends", "stops early", "does not say its length"],
)
def test_task_log_that_cannot_be_read_to_its_end_is_none(page):
    answers = iter([page] * 1000)
    target, _session = api({f"GET nodes/b1/tasks/{UPID}/log": lambda _params: next(answers, ([], None))})
    with pytest.raises(AnswerMalformed):
        target.task_log(UPID)


def test_delete_task_ends_our_own():
    target, session = api({f"DELETE nodes/b1/tasks/{UPID}": None})
    target.delete_task(UPID)
    assert session.calls == [(f"DELETE nodes/b1/tasks/{UPID}", {})]


CURRENT = {
    "status": "running",
    "qmpstatus": "running",
    "lock": "migrate",
    "running-qemu": "11.1.3",
    "running-machine": "q35",
}


def test_vm_status_is_genuine_when_qmp_answered():
    target, _session = api({"GET nodes/b1/qemu/200/status/current": CURRENT}, step=0.02)
    found = target.vm_status(200)
    assert found == VmStatus("running", "running", "migrate", True, "q35")
    assert found.runs


@pytest.mark.parametrize(
    ("raw", "step"),
    [({**CURRENT, "running-qemu": None}, 0.02), (CURRENT, 3.0), ({"status": "running", "qmpstatus": "running"}, 3.0)],
    ids=["no-qemu", "late", "both"],
)
def test_vm_status_running_without_proof_does_not_count(raw, step):
    target, _session = api({"GET nodes/b1/qemu/200/status/current": raw}, step=step)
    assert not target.vm_status(200).runs


@pytest.mark.parametrize("word", ["inmigrate", "paused", "prelaunch"])
def test_vm_status_that_is_not_running(word):
    target, _session = api({"GET nodes/b1/qemu/200/status/current": {**CURRENT, "qmpstatus": word}})
    found = target.vm_status(200)
    assert (found.qmpstatus, found.runs, found.genuine) == (word, False, True)


def test_vm_status_raises_absent_for_an_unknown_vmid():
    text = "GET x was refused with HTTP 500: Configuration file 'nodes/b1/qemu-server/200.conf' does not exist"
    refused = ApiRefused(text, object="x", status=500)
    target, _session = api({"GET nodes/b1/qemu/200/status/current": refused, "GET nodes/b1/qemu/200/config": refused})
    with pytest.raises(VmAbsent):
        target.vm_status(200)
    with pytest.raises(VmAbsent):
        target.vm_config(200)


def test_vm_status_raises_what_is_no_absence():
    refused = ApiRefused("GET x was refused with HTTP 500: got timeout", object="x", status=500)
    target, _session = api({"GET nodes/b1/qemu/200/status/current": refused})
    with pytest.raises(ApiRefused) as caught:
        target.vm_status(200)
    assert not isinstance(caught.value, VmAbsent)


@pytest.mark.parametrize("raw", [None, [], {}, {"status": "on"}, {"status": 1}, {**CURRENT, "lock": 5}], ids=str)
def test_vm_status_refuses(raw):
    target, _session = api({"GET nodes/b1/qemu/200/status/current": raw})
    with pytest.raises(AnswerMalformed):
        target.vm_status(200)


def test_vm_resources_are_the_virtual_machines():
    raw = [
        {"type": "qemu", "vmid": 100, "node": "b1", "name": "a", "status": "running", "hastate": "ignored"},
        {"type": "lxc", "vmid": 101, "node": "b1"},
        {"type": "qemu", "vmid": 102, "node": "b1", "status": "stopped", "template": 1},
    ]
    target, _session = api({"GET cluster/resources": raw})
    assert target.vm_resources() == [
        target_api.VmResource(100, "b1", "a", "running"),
        target_api.VmResource(102, "b1", "", "stopped", True),
    ]


def test_storages_and_bridges():
    target, _session = api({
        "GET nodes/b1/storage": [{"storage": "fast", "type": "lvmthin", "avail": 10, "total": 20, "active": 1}],
        "GET nodes/b1/network": [{"iface": "vmbr0", "type": "bridge", "active": 1}],
    })  # fmt: skip
    assert target.storages() == [target_api.StorageInfo("fast", "lvmthin", 10, 20, True)]
    assert target.bridge_names() == ["vmbr0"]


def test_volumes_of_a_vmid():
    target, session = api({"GET nodes/b1/storage/fast/content": [{"volid": "fast:vm-200-disk-1"}, {"volid": "fast:a"}]})
    assert target.volumes_of("fast", 200) == ["fast:a", "fast:vm-200-disk-1"]
    assert session.calls[0][1] == {"vmid": 200}


def test_own_tunnel_task_is_the_running_one_of_the_vmid():
    other = UPID.replace(":200:", ":201:")
    done = {"upid": UPID.replace("AAAA", "CCCC"), "endtime": 5}
    target, _session = api({"GET nodes/b1/tasks": [{"upid": other}, done, {"upid": UPID}]})
    assert target.own_tunnel_task(200) == UPID
    target, _session = api({"GET nodes/b1/tasks": [done]})
    assert target.own_tunnel_task(200) is None


def test_version_and_permissions():
    target, _session = api({
        "GET version": {"version": "9.2.11"}, "GET access/permissions": {"/": {"Sys.Incoming": 1, "Sys.Audit": 1}},
    })  # fmt: skip
    assert target.version() == "9.2.11"
    assert target.permissions() == {"/": ["Sys.Audit", "Sys.Incoming"]}


def test_machines_are_the_ids_of_the_list():
    path = "GET nodes/b1/capabilities/qemu/machines"
    session = FakeSession({path: [{"id": "pc-q35-9.2+pve1", "type": "q35"}, {"id": "pc-i440fx-7.2"}]})
    assert TargetApi(session, "b1").machines() == ["pc-q35-9.2+pve1", "pc-i440fx-7.2"]


def test_vm_of_another_node_is_asked_there():
    answers = {"GET nodes/b2/qemu/200/config": {"lock": "migrate"}, "GET nodes/b2/qemu/200/status/current": CURRENT}
    target, _session = api(answers)
    assert target.vm_config(200, "b2") == {"lock": "migrate"}
    assert target.vm_status(200, node="b2") == target_api.VmStatus.parse(CURRENT, 0.0)
