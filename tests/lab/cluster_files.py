# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fresh cluster has below /etc/pve: certificates, users, tokens, storages; one directory for all its nodes."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

from .certificates import fingerprint, make_ca, make_node_certificate
from .network import HostAddresses

__all__ = [
    "MIGRATION_TOKEN",
    "ROOT_TOKEN",
    "SMALL_STORAGE",
    "STORAGES",
    "THIN_STORAGE",
    "WEAK_TOKEN",
    "make_cluster",
    "make_node_view",
    "user_cfg",
]

MIGRATION_TOKEN = "mig@pve!migrate"
ROOT_TOKEN = "root@pam!full"
WEAK_TOKEN = "weak@pve!nothing"

STORAGES = {"local": "/var/lib/vz", "fast": "/srv/fast"}
"""Storages on the machine's disk; they outlive a reboot of the host."""
SMALL_STORAGE = ("slow", "/srv/slow")
"""A small storage that can be filled up; lost when the host reboots."""
THIN_STORAGE = ("thin", "/var/lib/lab-lvm/pve")
"""A storage that is no directory: raw volumes only, without extension (node/storage.py plays LVM-thin); what lies
behind its devices."""

STORAGE_CFG = """dir: local
\tpath /var/lib/vz
\tcontent iso,vztmpl,backup,images,import,snippets

dir: fast
\tpath /srv/fast
\tcontent images

dir: slow
\tpath /srv/slow
\tcontent images

dir: closed
\tpath /srv/closed
\tcontent images
\tdisable

dir: archive
\tpath /srv/archive
\tcontent backup,iso

lvmthin: thin
\tthinpool data
\tvgname pve
\tcontent images,rootdir
"""

# pve-cli 7: what a target token needs for one VM, here for all VMIDs; cloud-init and CD-ROM drives need the last two.
TARGET_VM = (
    "VM.Allocate,VM.Audit,VM.Config.CDROM,VM.Config.CPU,VM.Config.Cloudinit,VM.Config.Disk,VM.Config.HWType,"
    "VM.Config.Memory,VM.Config.Network,VM.Config.Options"
)


def user_cfg() -> str:
    """Users, tokens, roles and ACLs. A privilege-separated token has what both it and its user have."""
    lines = [
        "user:root@pam:1:0:::root@lab.invalid:::",
        "user:mig@pve:1:0::::::",
        "user:weak@pve:1:0::::::",
        "token:%s:0:0::" % ROOT_TOKEN,
        "token:%s:0:1::" % MIGRATION_TOKEN,
        "token:%s:0:1::" % WEAK_TOKEN,
        "",
        "",
        "",
        "role:CrossclusterIncoming:Sys.Incoming:",
        "role:CrossclusterNetwork:SDN.Use:",
        "role:CrossclusterStorage:Datastore.AllocateSpace:",
        "role:CrossclusterVM:%s:" % TARGET_VM,
        "",
    ]
    grants = [
        (0, "/", "CrossclusterIncoming"),
        (1, "/sdn/zones/localnetwork", "CrossclusterNetwork"),
        (1, "/storage", "CrossclusterStorage"),
        (1, "/vms", "CrossclusterVM"),
    ]
    lines += ["acl:%d:%s:mig@pve,%s:%s:" % (propagate, path, MIGRATION_TOKEN, role) for propagate, path, role in grants]
    return "\n".join(lines) + "\n"


def make_cluster(name: str, hosts: list[HostAddresses], directory: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Write a cluster's shared /etc/pve into directory/pve; returns its tokens' secrets and its nodes' fingerprints."""
    pve = directory / "pve"
    for sub in ("priv/lock", "ha", "firewall", "sdn", "virtual-guest"):
        (pve / sub).mkdir(parents=True)
    (pve / "priv").chmod(0o700)
    secrets = {token: str(uuid.uuid4()) for token in (MIGRATION_TOKEN, ROOT_TOKEN, WEAK_TOKEN)}
    private = pve / "priv" / "token.cfg"
    private.write_text("".join("%s %s\n" % pair for pair in secrets.items()), encoding="ascii")
    private.chmod(0o600)
    (pve / "user.cfg").write_text(user_cfg(), encoding="ascii")
    (pve / "storage.cfg").write_text(STORAGE_CFG, encoding="ascii")
    (pve / "datacenter.cfg").write_text("keyboard: en-us\n", encoding="ascii")
    ca = (pve / "pve-root-ca.pem", pve / "priv" / "pve-root-ca.key")
    make_ca(name, *ca)
    prints = {}
    for host in hosts:
        own = pve / "nodes" / host.node
        for sub in ("qemu-server", "lxc", "priv"):
            (own / sub).mkdir(parents=True)
        make_node_certificate(
            host.node, [str(host.api4.ip), str(host.api6.ip)], ca, own / "pve-ssl.pem", own / "pve-ssl.key"
        )
        prints[host.name] = fingerprint(own / "pve-ssl.pem")
    for link, target in (
        ("local", hosts[0].node),
        ("qemu-server", hosts[0].node + "/qemu-server"),
        ("lxc", hosts[0].node + "/lxc"),
    ):
        os.symlink("nodes/" + target, pve / link)
    (pve / ".members").touch()
    return secrets, prints


def make_node_view(name: str, host: HostAddresses, hosts: list[HostAddresses], directory: Path) -> None:
    """Write what only this node shows in /etc/pve: its links and the member list; mounted over the shared ones."""
    directory.mkdir(parents=True, exist_ok=True)
    for link, target in (
        ("local", host.node),
        ("qemu-server", host.node + "/qemu-server"),
        ("lxc", host.node + "/lxc"),
    ):
        if not (directory / link).is_symlink():
            os.symlink("nodes/" + target, directory / link)
    members: dict = {"nodename": host.node, "version": len(hosts) + 1}
    if len(hosts) > 1:
        members["cluster"] = {"name": name, "version": len(hosts), "nodes": len(hosts), "quorate": 1}
    members["nodelist"] = {
        each.node: {"id": number, "online": 1, "ip": str(each.api4.ip)} for number, each in enumerate(hosts, 1)
    }
    (directory / "members").write_text(json.dumps(members, indent=1) + "\n", encoding="ascii")
