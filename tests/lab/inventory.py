# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files by which Ansible and ssh reach a lab: inventory.yml (DESIGN 9), ssh_config, known_hosts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from .trees import HostType

if TYPE_CHECKING:
    from .instance import Lab

__all__ = ["clusters_variable", "known_hosts", "ssh_config", "to_yaml", "write_files"]

VMID_POOL_START, VMID_POOL_SIZE = 10000, 1000


def to_yaml(value: object, indent: int = 0) -> str:
    """Mappings and scalars as block YAML; every string is quoted, so that nothing is taken for something else."""
    if not isinstance(value, dict):
        return " " + json.dumps(value) + "\n"
    if not value:
        return " {}\n"
    lines = "".join("%s%s:%s" % ("  " * indent, key, to_yaml(inner, indent + 1)) for key, inner in value.items())
    return lines if indent == 0 else "\n" + lines


def clusters_variable(lab: Lab, token: str, target_root: bool) -> dict:
    """crosscluster_clusters for this lab, with that token on every cluster."""
    user, _, token_id = token.partition("!")
    found = {}
    for number, name in enumerate(lab.plan.clusters, 1):
        hosts = [host for host in lab.hosts.values() if host.cluster == name]
        start = VMID_POOL_START * number
        found[name] = {
            "api_host": hosts[0].api_host,
            "api_port": 8006,
            "api_user": user,
            "api_token_id": token_id,
            "api_token_secret": hosts[0].tokens[token],
            "validate_certs": True,
            "fingerprint": hosts[0].fingerprint,
            "vmid_pool": "%d-%d" % (start, start + VMID_POOL_SIZE - 1),
            "target_root": target_root,
            "nodes": {
                host.node: {
                    "inventory_host": host.inventory_host,
                    "api_host": host.api_host,
                    "fingerprint": host.fingerprint,
                    "migration_address": host.migration_address,
                    "certificate_name": host.node,
                }
                for host in hosts
            },
        }
    return found


def inventory(lab: Lab, token: str, target_root: bool) -> dict:
    """The whole inventory as a mapping."""
    children = {}
    for name in lab.plan.clusters:
        children[name] = {
            "hosts": {
                host.inventory_host: {"ansible_host": host.api_host}
                for host in lab.hosts.values()
                if host.cluster == name
            }
        }
    emulated = any(host.addresses.kind is HostType.MACHINE for host in lab.hosts.values())
    return {
        "all": {
            "vars": {
                **({"ansible_timeout": 60} if emulated else {}),  # a key exchange takes its time there
                "ansible_user": "root",
                "ansible_python_interpreter": "/usr/bin/python3",
                "ansible_pipelining": True,
                "ansible_ssh_private_key_file": str(lab.directory / "id_ed25519"),
                "ansible_ssh_common_args": "-F %s" % _quoted(lab.directory / "ssh_config"),
                "ansible_ssh_args": "-o ControlMaster=auto -o ControlPersist=60s",
                "ansible_control_path_dir": lab.plan.control_sockets,
                "crosscluster_clusters": clusters_variable(lab, token, target_root),
            },
            "children": {"lab_nodes": {"children": children}},
        }
    }


def _quoted(path: Path) -> str:
    return "'%s'" % path if " " in str(path) else str(path)


def ssh_config(lab: Lab) -> str:
    """ssh -F file: node names and addresses, the instance's key and known hosts, strict checking."""
    lines = []
    for host in lab.hosts.values():
        lines += [
            "Host %s %s" % (host.name, host.inventory_host),
            "  HostName %s" % host.api_host,
            "  HostKeyAlias %s" % host.api_host,
        ]
    lines += [
        "Host *",
        "  User root",
        '  IdentityFile "%s"' % (lab.directory / "id_ed25519"),
        "  IdentitiesOnly yes",
        '  UserKnownHostsFile "%s"' % (lab.directory / "known_hosts"),
        "  StrictHostKeyChecking yes",
        "  PasswordAuthentication no",
        "  LogLevel ERROR",
    ]
    return "\n".join(lines) + "\n"


def known_hosts(lab: Lab) -> str:
    """Each host's key under its name and both addresses."""
    lines = []
    for host in lab.hosts.values():
        public = (host.state / "host_key.pub").read_text(encoding="ascii").split()[:2]
        names = ",".join((host.name, host.inventory_host, host.api_host, str(host.addresses.api6.ip)))
        lines.append("%s %s" % (names, " ".join(public)))
    return "\n".join(lines) + "\n"


def write_files(lab: Lab, token: str, target_root: bool) -> None:
    """Write all three into the instance's directory."""
    (lab.directory / "inventory.yml").write_text(to_yaml(inventory(lab, token, target_root)), encoding="utf-8")
    (lab.directory / "inventory.yml").chmod(0o600)
    (lab.directory / "ssh_config").write_text(ssh_config(lab), encoding="utf-8")
    (lab.directory / "known_hosts").write_text(known_hosts(lab), encoding="utf-8")
