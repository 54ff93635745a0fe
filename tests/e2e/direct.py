# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of the direct transports have in common: their variables, the listening port, nothing left behind."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PORTS = range(60100, 60150)  # what `incoming` chooses from
ACCEPTED = {"accepted_by": "the tests", "until": "2100-01-01"}
_LISTENS = "0A"  # the state in /proc/net/tcp


def rooted(controller: Any, **more: Any) -> dict[str, Any]:
    """Extra variables that let the role act as root on the target."""
    clusters = controller.clusters()
    for cluster in clusters.values():
        cluster["target_root"] = True
    return {"crosscluster_clusters": clusters, **more}


def certify(controller: Any) -> None:
    """Give all nodes certificates of one trust domain, with the public playbook; its CA is this controller's alone."""
    own = {"certificates_authority_directory": str(controller.directory / "authorities")}
    controller.run("certificates", extra=rooted(controller, **own)).expect(0)


def full(vm: Any, *, root: bool = True) -> dict[str, Any]:
    """The clusters with a token that has Sys.Modify, as ``qemu-tcp`` needs it; with root on the target or without."""
    clusters: dict[str, Any] = rooted(vm.controller)["crosscluster_clusters"]
    for name, cluster in clusters.items():
        host = vm.source_host if name == "alpha" else vm.target_host
        cluster.update(
            api_user="root@pam", api_token_id="full", api_token_secret=host.tokens["root@pam!full"], target_root=root
        )
    return clusters


@contextlib.contextmanager
def insecure(host: Any) -> Iterator[None]:
    """The host announces insecure-remote; afterwards it is as it was."""
    path = Path(host.path("/etc/lab/personality.json"))
    assert not path.exists()
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"personality": "insecure"}), encoding="utf-8")
    try:
        yield
    finally:
        path.unlink()


def patched(host: Any, transport: str) -> contextlib.AbstractContextManager[None]:
    """The target has the patch series, where the transport needs it."""
    return insecure(host) if transport == "qemu-tcp" else contextlib.nullcontext()


def over(vm: Any, transport: str, **more: Any) -> dict[str, Any]:
    """Extra variables of a move by one transport; in clear text with its proof of the network and its acceptance."""
    network = {"network": str(vm.target_host.addresses.migration4.network), "outside": ["localhost"]}
    clear = {"migrate_vm_incoming": network, "migrate_vm_clear_text": ACCEPTED} if "tcp" in transport else {}
    clusters = {"crosscluster_clusters": full(vm)} if transport == "qemu-tcp" else rooted(vm.controller)
    return vm.extra(migrate_vm_transports=[transport], **clear, **clusters, **more)


def listeners(host: Any, ports: range) -> set[int]:
    """Those of some ports on which something listens in a host, over IPv4."""
    found = set()
    for line in Path(f"/proc/{host.pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        words = line.split()
        port = int(words[1].rpartition(":")[2], 16)
        if words[3] == _LISTENS and port in ports:
            found.add(port)
    return found


def listening_port(host: Any) -> int:
    """The port on which an incoming worker listens in a host; 0 when none does."""
    return next(iter(listeners(host, PORTS)), 0)


def incoming_logs(host: Any) -> dict[str, str]:
    """What each of the incoming workers of a host has logged, by the name of its file."""
    base = Path(host.path("/var/lib/crosscluster/incoming"))
    return {path.name: path.read_text(encoding="utf-8") for path in base.glob("*.log")}


def assert_nobody_listens(vm: Any) -> None:
    """No listener, no rule, no file of an incoming worker is left on the target."""
    assert json.loads(vm.target_host.run(["nft", "-j", "list", "tables"]).stdout)["nftables"][1:] == []
    assert listening_port(vm.target_host) == 0
    names = vm.target_host.run(["ls", "/run/crosscluster"], check=False).stdout.split()
    assert [name for name in names if not name.startswith("vm-")] == []  # locks of moves away from there stay


def assert_refused(vm: Any, run: Any) -> None:
    """No listed transport could be used, and nothing is left on either side."""
    assert run.status != 0
    assert "NO_TRANSPORT_USABLE" in run.codes
    vm.assert_stayed()
    vm.assert_nothing_on_target()
    assert_nobody_listens(vm)
