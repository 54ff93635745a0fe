# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the source may ask of the target node, against a node of plain values."""

from __future__ import annotations

import dataclasses

import pytest
from unit.fakes.tls_monitor import NODES, TlsMonitor

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import CrossclusterError, Side
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.incoming_requests import (
    Attachment,
    World,
    carry_out,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.vm_config import VmConfig
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.errors import QmpUnreachable

ID, UUID = "5d" * 16, "6f7d5a10-0a4e-4f0e-9d6d-0d8c2f4f9b11"
UPID = "UPID:b1:0000002A:00C4D5E6:65F0000A:qmtunnel:117:m@pve!move:"
RAM, NBD, IMPORT = "/run/qemu-server/117.migrate", "/run/qemu-server/117_nbd.migrate", "/run/qemu-server/117.storage"
ATTACH = {"vmid": 117, "uuid": UUID, "ram": RAM, "nbd": NBD}
RECORDED = {"vmid": 117, "uuid": UUID, "volumes": ["fast:117/vm-117-disk-0.raw"]}


@dataclasses.dataclass
class Node:
    """A target node with one VM."""

    lock: str = "migrate"
    uuid: str = UUID
    there: bool = True
    state: str | None = "inmigrate"
    tunnel: bool = False
    log: list | None = None
    sockets: tuple = (RAM, NBD, IMPORT)
    done: list = dataclasses.field(default_factory=list)
    qemu: TlsMonitor = dataclasses.field(default_factory=TlsMonitor)

    def config(self, vmid):
        if not self.there or vmid != 117:
            return None
        uuid = f"smbios1: uuid={self.uuid}\n" if self.uuid else ""
        return VmConfig.read(f"lock: {self.lock}\n{uuid}".encode())

    def task_running(self, _upid, _vmid):
        return self.tunnel

    def task_alive(self, _upid):
        return self.tunnel

    def end_task(self, upid):
        self.done.append(("end", upid))

    def task_log(self, _upid):
        return self.log

    def owner(self, _vmid):
        return None

    def written_by_task(self, _vmid, _upid):
        return False

    def run_state(self, _vmid):
        return self.state

    def loaded(self, _vmid):
        return self.state == "paused"

    def exists(self, _volume, _vmid):
        return self.there

    def referrer(self, _volume, _vmid):
        return None

    def carry_out(self, step, vmid):
        self.done.append((step.action.value, vmid))
        if step.action.value == "destroy":
            self.there, self.state = False, None
        if step.action.value == "resume":
            self.state = "running"

    # the rest of the world

    def run(self, command):
        if self.state == "unknown":
            raise QmpUnreachable("gone", side=Side.SOURCE, object="qmp")
        return {"status": "failed", "error-desc": "load of migration failed"} if command == "query-migrate" else {}

    def within(self, seconds):
        return self.qemu.within(seconds)

    def world(self, credentials="/pki/lab", peer_name="a1"):
        return World(
            self,
            lambda _vmid: self,
            lambda path: path in self.sockets,
            lambda p: self.done.append(("rm", p)),
            credentials,
            peer_name,
        )


def ask(op, request, node=None, attachment=None):
    return carry_out(op, attachment or Attachment(ID), request, (node or Node()).world())


def attached():
    return ask("attach", ATTACH)[1]


def code_of(op, request, **more):
    with pytest.raises(CrossclusterError) as refusal:
        ask(op, request, **more)
    return refusal.value.code


def test_attach_gives_the_sockets_of_the_streams():
    answer, attachment = ask("attach", ATTACH)
    assert answer == {"vmid": 117, "uuid": UUID, "paths": {"ram": RAM, "disk": NBD}}
    assert attachment.path("ram") == attachment.path("ram.2") == RAM
    assert attachment.path("disk/scsi0") == attachment.path("disk/virtio3.4") == NBD
    assert attachment.path("import/tpmstate0") is None
    assert ask("attach", ATTACH, attachment=attachment) == (answer, attachment)


def test_attach_of_a_vm_without_disks_has_ram_alone():
    answer, _attachment = ask("attach", {**ATTACH, "nbd": None}, Node(sockets=(RAM,)))
    assert answer["paths"] == {"ram": RAM}


@pytest.mark.parametrize(
    "change",
    [
        {"ram": "/run/qemu-server/118.migrate"},
        {"ram": "/run/qemu-server/../qemu-server/117.migrate"},
        {"ram": None},
        {"nbd": RAM},
        {"vmid": "117"},
        {"vmid": True},
        {"vmid": 99},
        {"uuid": "nobody"},
    ],
)
def test_attach_takes_nothing_but_the_exact_words(change):
    assert code_of("attach", {**ATTACH, **change}) == "REQUEST_INVALID"


@pytest.mark.parametrize(
    "node",
    [
        Node(lock="create"),
        Node(lock="backup"),
        Node(uuid="00000000-0000-0000-0000-000000000001"),
        Node(uuid=""),
        Node(there=False),
        Node(sockets=(NBD,)),
        Node(sockets=(RAM,)),
    ],
)
def test_attach_to_what_is_not_that_vm_is_refused(node):
    assert code_of("attach", ATTACH, node=node) == "ATTACH_REFUSED"


def test_attachment_is_final():
    assert code_of("attach", {**ATTACH, "nbd": None}, attachment=Attachment(ID, 118)) == "ATTACH_REFUSED"
    other = {**ATTACH, "uuid": "00000000-0000-0000-0000-000000000001"}
    node = Node(uuid="00000000-0000-0000-0000-000000000001")
    assert code_of("attach", other, node=node, attachment=attached()) == "ATTACH_REFUSED"


def test_import_is_attached_while_the_vm_is_made():
    answer, attachment = ask("attach_import", {"vmid": 117}, Node(lock="create", uuid=""))
    assert answer == {"vmid": 117, "path": IMPORT}
    assert attachment.path("import/cloudinit") == IMPORT
    assert ask("attach", ATTACH, attachment=attachment)[1].path("import/cloudinit") == IMPORT
    assert code_of("attach", {**ATTACH, "vmid": 118}, attachment=attachment) in ("ATTACH_REFUSED", "REQUEST_INVALID")


@pytest.mark.parametrize("node", [Node(lock="backup"), Node(there=False), Node(sockets=(RAM, NBD))])
def test_import_into_what_is_not_being_made_is_refused(node):
    assert code_of("attach_import", {"vmid": 117}, node=node) == "ATTACH_REFUSED"


def test_state_tells_lock_run_state_and_migration():
    answer, _attachment = ask("state", {}, attachment=attached())
    migrate = {"status": "failed", "error": "load of migration failed"}
    expected = {"vmid": 117, "exists": True, "uuid": UUID, "lock": "migrate", "run_state": "inmigrate"}
    assert answer == {**expected, "migrate": migrate}


def test_state_of_a_vm_that_is_gone_is_no_error():
    answer, _attachment = ask("state", {}, Node(there=False, state=None), attached())
    assert (answer["exists"], answer["run_state"], answer["migrate"]) == (False, None, {})


def test_state_of_a_qemu_that_does_not_answer_is_unknown():
    answer, _attachment = ask("state", {}, Node(state="unknown"), attached())
    assert (answer["run_state"], answer["migrate"]["status"]) == ("unknown", "unknown")


def test_state_before_attach_is_refused():
    assert code_of("state", {}) == "NOT_ATTACHED"


@pytest.mark.parametrize(
    ("log", "received"),
    [(None, None), (["mtunnel started"], False), (["mtunnel started", "received command 'resume'"], True)],
    ids=["no log", "not received", "received"],
)
@pytest.mark.parametrize("running", [True, False])
def test_task_tells_whether_it_has_ended_and_what_it_was_told(running, log, received):
    answer, _attachment = ask("task", {"upid": UPID}, Node(tunnel=running, log=log), attached())
    assert answer == {"running": running, "resume_received": received}


def test_log_of_a_task_is_read_after_its_process_was_looked_for():
    """The other way round a command that came in between would be in neither (safety 5)."""
    node = Node()
    node.task_alive = lambda _upid: bool(node.done.append("process"))
    node.task_log = lambda _upid: node.done.append("log")
    ask("task", {"upid": UPID}, node, attached())
    assert node.done == ["process", "log"]


def test_task_is_ended_for_the_source():
    node = Node(tunnel=True)
    assert ask("end_task", {"upid": UPID}, node, attached())[0] == {}
    assert node.done == [("end", UPID)]


@pytest.mark.parametrize("op", ["task", "end_task"])
@pytest.mark.parametrize(
    "upid",
    [
        None,
        117,
        "",
        UPID.replace("117", "118"),
        UPID.replace("qmtunnel", "qmstart"),
        UPID + "\n",
        UPID.replace("m@pve", "../m@pve"),
        UPID.replace("m@pve", "m" * 300),
        UPID.replace("0000002A", "-000002A"),
        [UPID],
    ],
)
def test_no_other_task_is_looked_at_or_ended(op, upid):
    node = Node()
    assert code_of(op, {"upid": upid}, node=node, attachment=attached()) == "RECORD_INVALID"
    assert node.done == []


def test_task_before_attach_is_refused():
    assert code_of("task", {"upid": UPID}) == code_of("end_task", {"upid": UPID}) == "NOT_ATTACHED"


def test_remove_takes_the_vm_and_the_sockets_that_are_left():
    node = Node()
    answer, _attachment = ask("remove", {"recorded": RECORDED}, node, attached())
    assert [step["action"] for step in answer["steps"]] == ["stop", "destroy", "free"]
    assert node.done[:3] == [("stop", 117), ("destroy", 117), ("free", 117)]
    assert node.done[3:] == [("rm", RAM), ("rm", NBD), ("rm", IMPORT)]


@pytest.mark.parametrize(
    ("change", "node", "code"),
    [
        ({}, Node(tunnel=True), "TUNNEL_TASK_RUNNING"),
        ({}, Node(state="running"), "TARGET_MAY_HAVE_RUN"),
        ({}, Node(lock="backup"), "TARGET_LOCK_CHANGED"),
        ({"vmid": 118}, Node(), "ATTACH_REFUSED"),
        ({"uuid": "00000000-0000-0000-0000-000000000001"}, Node(), "ATTACH_REFUSED"),
        ({"uuid": None}, Node(), "RECORD_INVALID"),
        ({"volumes": ["../etc"]}, Node(), "RECORD_INVALID"),
        ({"migration_id": "00" * 16, "uuid": "x"}, Node(), "RECORD_INVALID"),
    ],
)
def test_remove_keeps_every_rule_of_the_recovery(change, node, code):
    assert code_of("remove", {"recorded": {**RECORDED, **change}}, node=node, attachment=attached()) == code
    assert node.done == []


def test_resume_needs_the_word_of_the_source():
    node = Node(state="paused")
    assert code_of("resume", {"recorded": RECORDED}, node=node, attachment=attached()) == "COMMIT_INTENT_MISSING"
    assert node.done == []
    answer, _attachment = ask("resume", {"recorded": {**RECORDED, "commit_intent": True}}, node, attached())
    assert [step["action"] for step in answer["steps"]] == ["resume"]


def test_fenced_source_has_the_lock_taken_off():
    node = Node(state="running")
    fenced = {**RECORDED, "commit_intent": True, "source_fenced": True}
    ask("resume", {"recorded": fenced}, node, attached())
    assert node.done == [("unlock", 117)]


@pytest.mark.parametrize("request_", [{}, {"recorded": None}, {"recorded": []}, {"recorded": {}}, RECORDED])
def test_request_without_a_record_is_refused(request_):
    assert code_of("remove", request_) == "REQUEST_INVALID"


def test_tls_is_for_the_source_that_was_named_at_the_start():
    node = Node()
    answer, attachment = ask("tls_arm", {"exports": list(NODES), "peer_name": "x", "dir": "/tmp"}, node, attached())
    assert (answer, attachment.armed) == ({"exports": list(NODES)}, True)
    assert node.qemu.objects["crosscluster-tls"]["dir"] == "/pki/lab"
    assert node.qemu.objects["crosscluster-authz"]["identity"] == "CN=a1"
    assert node.qemu.server["addr"]["data"]["path"] == NBD
    assert ask("attach", ATTACH, attachment=attachment)[1].armed
    assert not ask("tls_disarm", {}, node, attachment)[1].armed
    assert node.qemu.objects == {}


@pytest.mark.parametrize(
    "exports", [None, "drive-scsi0", ["scsi0"], ["drive-scsi0; x"], [3]], ids=["none", "text", "other", "odd", "number"]
)
def test_tls_takes_nothing_but_disks(exports):
    assert code_of("tls_arm", {"exports": exports}, attachment=attached()) == "REQUEST_INVALID"


def test_tls_needs_an_attached_vm_and_certificates():
    assert code_of("tls_arm", {"exports": []}) == code_of("tls_disarm", {}) == "NOT_ATTACHED"
    import_only = Attachment(ID, 117, "", {"import": IMPORT})
    assert code_of("tls_arm", {"exports": []}, attachment=import_only) == "REQUEST_INVALID"
    with pytest.raises(CrossclusterError, match="without certificates"):
        carry_out("tls_arm", attached(), {"exports": []}, Node().world("", ""))
