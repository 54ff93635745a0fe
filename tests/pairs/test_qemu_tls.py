# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's own TLS between two real QEMUs, over tcp as well as over UNIX sockets, with good and with bad certificates.

Both are told what the product tells them; what they say in return is what ``tls_words`` must understand.
"""

from __future__ import annotations

import shutil
import socket
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from unit.fakes.certificates import NOW, Authority, lay

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.migration import incoming_tls
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu import mirror, tls, tls_words
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.errors import QemuTlsFailed, QmpRefused
from lab import trees
from lab.machine.image import program as program_of_tree
from pairs.qemu import DISK, DRIVE, HERE, TIMEOUT, Qemu, until

pytestmark = [
    pytest.mark.skipif(shutil.which(HERE[0]) is None, reason="needs QEMU"),
    pytest.mark.timeout(300),
]

A, B = "a1.example.com", "b1.example.com"
WAITING = ("none", "setup")  # what a target says that has let nobody in


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """What takes milliseconds takes seconds on a machine that is busy with other tests."""
    monkeypatch.setattr(incoming_tls, "_TIMEOUT", TIMEOUT)


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    """Directories of certificates: what a node has, by what is right or wrong with it."""
    place, ours, other = tmp_path_factory.mktemp("pki"), Authority("ours"), Authority("theirs")
    both = ours.pem + other.pem  # who trusts both CAs gets as far as being refused by the other side
    here = ("127.0.0.1",)
    past = -timedelta(days=2)
    revoked = ours.issue(A)
    return {
        "a": lay(place / "a", ours.pem, ours.issue(A)),
        "b": lay(place / "b", ours.pem, ours.issue(B, ips=here), ours.crl(revoked)),
        "a of another CA": lay(place / "a-ca", both, other.issue(A)),
        "b of another CA": lay(place / "b-ca", other.pem, other.issue(B)),
        "a with another name": lay(place / "a-name", ours.pem, ours.issue("x1.example.com")),
        "b with another name": lay(place / "b-name", ours.pem, ours.issue("x1.example.com")),
        "a expired": lay(place / "a-old", ours.pem, ours.issue(A, starts=past, ends=past / 2)),
        "b expired": lay(place / "b-old", ours.pem, ours.issue(B, starts=past, ends=past / 2)),
        "a revoked": lay(place / "a-revoked", ours.pem, revoked),
        "a without one": lay(place / "a-none", ours.pem, None),
        "ours": ours,
    }


def arm_target(target: Qemu, directory: Path, nbd: Path | None = None) -> None:
    """As the incoming worker does, Proxmox having opened the NBD server in the clear."""
    if nbd is not None and not target.run("query-block-exports"):
        target.run("nbd-server-start", addr={"type": "unix", "data": {"path": str(nbd)}})
        target.run("block-export-add", **tls.Export(DRIVE, DRIVE).add())
    path, exports = (None, []) if nbd is None else (str(nbd), [DRIVE])
    incoming_tls.arm(target.monitor, directory=str(directory), peer_name=A, nbd=path, exports=exports)


def arm_source(source: Qemu, directory: Path, peer_name: str = B) -> None:
    with source.session() as qmp:
        tls.disarm(qmp)
        tls.add_credentials(qmp, Side.SOURCE, str(directory))
        tls.arm_parameters(qmp, Side.SOURCE, tls.source_parameters(peer_name))


def add_node(source: Qemu, nbd: Path) -> None:
    source.run("blockdev-add", **mirror.add_node("copy", str(nbd), DRIVE), **tls.block_options(B))


def refused_disk(source: Qemu, nbd: Path) -> str:
    with pytest.raises(QmpRefused) as caught:
        add_node(source, nbd)
    return caught.value.description


def refused_ram(source: Qemu, uri: str) -> str:
    source.run("migrate", uri=uri)
    status, words = source.outcome()
    assert status == "failed"
    return words


def cause(words: str) -> str | None:
    error = tls_words.handshake_refused(words, B)
    return error and error.facts["cause"]


def assert_waits(target: Qemu) -> None:
    assert target.state() == "inmigrate"
    assert target.run("query-migrate").get("status", "none") in WAITING


def assert_nothing_left(qemu: Qemu) -> None:
    names = [entry["name"] for entry in qemu.run("qom-list", path="/objects")]
    assert not [name for name in names if name.startswith("crosscluster")]
    found = qemu.run("query-migrate-parameters")
    assert not any(found.get(name) for name in ("tls-creds", "tls-authz", "tls-hostname"))


def copy_disk(source: Qemu, nbd: Path) -> None:
    add_node(source, nbd)
    source.run("blockdev-mirror", **mirror.start("copying", DRIVE, "copy"))
    until(lambda: source.run("query-block-jobs")[0]["ready"])
    source.run("block-job-cancel", **mirror.end("copying"))
    until(lambda: source.run("query-jobs")[0]["status"] == "concluded")
    source.run("job-dismiss", **mirror.dismiss("copying"))
    source.run("blockdev-del", **mirror.delete_node("copy"))


def move(source: Qemu, target: Qemu, domain, directory: Path) -> None:
    """Disk and RAM over UNIX sockets, as in the product; afterwards nothing of it is left in either QEMU."""
    nbd, ram = directory / "nbd", directory / "ram"
    arm_target(target, domain["b"], nbd)
    arm_source(source, domain["a"])
    copy_disk(source, nbd)
    target.run("nbd-server-stop")
    source.run("migrate", uri=f"unix:{ram}")
    assert source.outcome() == ("completed", "")
    assert target.outcome()[0] == "completed"
    assert target.image.read_bytes() == b"A" * DISK
    incoming_tls.disarm(target.monitor)
    with source.session() as qmp:
        tls.disarm(qmp)
    for qemu in (source, target):
        assert_nothing_left(qemu)


def test_strangers_are_turned_away_and_the_source_is_let_in(domain, tmp_path):
    """Over UNIX sockets: the target refuses everybody else, says nothing, and goes on waiting."""
    nbd, ram = tmp_path / "nbd", tmp_path / "ram"
    with Qemu(tmp_path / "target", f"unix:{ram}") as target, Qemu(tmp_path / "source", fill=b"A") as source:
        arm_target(target, domain["b"], nbd)
        for stranger in ("a of another CA", "a with another name", "a revoked", "a without one"):
            arm_source(source, domain[stranger])
            assert cause(refused_disk(source, nbd)) is None, stranger
            assert cause(refused_ram(source, f"unix:{ram}")) is None, stranger
            assert_waits(target)
        with source.session() as qmp:
            tls.disarm(qmp)
        with pytest.raises(QmpRefused, match="TLS negotiation required"):
            source.run("blockdev-add", **mirror.add_node("copy", str(nbd), DRIVE))
        refused_ram(source, f"unix:{ram}")
        assert_waits(target)
        move(source, target, domain, tmp_path)


def test_source_refuses_another_target(domain, tmp_path):
    nbd, ram = tmp_path / "nbd", tmp_path / "ram"
    with Qemu(tmp_path / "target", f"unix:{ram}") as target, Qemu(tmp_path / "source") as source:
        arm_source(source, domain["a"])
        ends = datetime.now(timezone.utc) + timedelta(seconds=5)
        arm_target(target, lay(tmp_path / "b", domain["ours"].pem, domain["ours"].issue(B, ends=ends - NOW)), nbd)
        until(lambda: datetime.now(timezone.utc) > ends + timedelta(seconds=1))
        assert cause(refused_disk(source, nbd)) == "expired"

        arm_target(target, domain["b of another CA"], nbd)
        assert cause(refused_disk(source, nbd)) == "foreign_ca"
        assert cause(refused_ram(source, f"unix:{ram}")) == "foreign_ca"

        arm_target(target, domain["b with another name"], nbd)
        assert cause(refused_disk(source, nbd)) == "wrong_name"
        # TLS 1.3: that target believes that the handshake is done, and ends (qemu-facts 4).
        assert cause(refused_ram(source, f"unix:{ram}")) == "wrong_name"
        assert target.ended()


def test_certificate_that_qemu_cannot_use_is_named(domain, tmp_path):
    with Qemu(tmp_path / "target", f"unix:{tmp_path / 'ram'}") as target:
        with pytest.raises(QemuTlsFailed) as caught:
            arm_target(target, domain["b expired"])
        assert (caught.value.side, caught.value.facts["cause"]) == (Side.TARGET, "expired")
        assert caught.value.object == str(domain["b expired"] / "server-cert.pem")
        assert_nothing_left(target)
        with pytest.raises(QemuTlsFailed) as caught:
            arm_source(target, domain["a expired"])
        assert (caught.value.side, caught.value.facts["cause"]) == (Side.SOURCE, "expired")
        with pytest.raises(QemuTlsFailed) as caught:
            arm_source(target, tmp_path / "nowhere")
        assert caught.value.facts["cause"] == "missing"


def test_source_comes_last(domain, tmp_path):
    """Why the target is armed and read back first: in the clear it ends at the first byte of TLS."""
    with Qemu(tmp_path / "target", f"unix:{tmp_path / 'ram'}") as target, Qemu(tmp_path / "source") as source:
        arm_source(source, domain["a"])
        refused_ram(source, f"unix:{tmp_path / 'ram'}")
        assert target.ended()
        assert source.alive


def test_over_tcp(domain, tmp_path):
    """The address is in the certificate, so no name needs to be told; a told one that is not there is refused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"tcp:127.0.0.1:{port}"
    with Qemu(tmp_path / "target", uri) as target, Qemu(tmp_path / "source") as source:
        arm_target(target, domain["b"])
        # A source of its own: QEMU 7.2 may have sent everything before it hears of the refusal, and then stays paused.
        with Qemu(tmp_path / "stranger") as stranger:
            arm_source(stranger, domain["a with another name"], "")
            assert cause(refused_ram(stranger, uri)) is None
        assert_waits(target)
        arm_source(source, domain["a"], "")
        source.run("migrate", uri=uri)
        assert source.outcome() == ("completed", "")
        assert target.outcome()[0] == "completed"


def _of_tree() -> list[str]:
    tree = trees.tree()
    data = [part for name in ("qemu", "seabios") for part in ("-L", str(tree / "usr" / "share" / name))]
    return [*program_of_tree(tree, HERE[0]), *data]


def takes_its_group(directory: Path, program: list[str] | tuple[str, ...], certificates: Path) -> None:
    """QEMU reads the group beside the certificate, so it need not make one: it says so when it cannot read it."""
    spoilt = directory / "spoilt"
    shutil.copytree(certificates, spoilt)
    (spoilt / "dh-params.pem").write_text("-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n")
    with Qemu(directory / "target", f"unix:{directory / 'ram'}", program) as target:
        with pytest.raises(QemuTlsFailed):
            arm_target(target, spoilt)
        arm_target(target, certificates)


def test_group_beside_the_certificate_is_taken(domain, tmp_path):
    takes_its_group(tmp_path, HERE, domain["b"])


@pytest.mark.mixed
def test_group_beside_the_certificate_is_taken_by_qemu_10(domain, tmp_path):
    takes_its_group(tmp_path, _of_tree(), domain["b"])


@pytest.mark.mixed
@pytest.mark.parametrize("newer", ["source", "target", "both"])
def test_qemu_10_on_either_side(domain, tmp_path, newer):
    """The QEMU of Debian 13 with the one of this machine."""
    newest = _of_tree()
    there, here = (newest if newer in (side, "both") else HERE for side in ("target", "source"))
    with (
        Qemu(tmp_path / "target", f"unix:{tmp_path / 'ram'}", there) as target,
        Qemu(tmp_path / "source", "", here, b"A") as source,
    ):
        move(source, target, domain, tmp_path)
