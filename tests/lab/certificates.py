# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of a lab cluster, made by openssl: one CA per cluster, one server certificate per node."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from pathlib import Path

__all__ = ["fingerprint", "make_ca", "make_node_certificate"]

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"]


def _openssl(arguments: list[str]) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError("openssl %s: %s" % (arguments[0], done.stderr.strip()))


def make_ca(cluster: str, certificate: Path, key: Path) -> None:
    """A cluster's CA."""
    _openssl(
        [
            "req",
            "-x509",
            *KEY,
            "-keyout",
            str(key),
            "-out",
            str(certificate),
            "-subj",
            "/CN=Proxmox Virtual Environment/OU=%s/O=PVE Cluster Manager CA" % cluster,
        ]
    )


def make_node_certificate(node: str, addresses: list[str], ca: tuple[Path, Path], certificate: Path, key: Path) -> None:
    """A node's server certificate, signed by the CA (certificate, key); for its name and addresses."""
    names = ["DNS:" + node, "DNS:localhost", *("IP:" + address for address in addresses)]
    _openssl(
        [
            "req",
            "-x509",
            "-CA",
            str(ca[0]),
            "-CAkey",
            str(ca[1]),
            *KEY,
            "-keyout",
            str(key),
            "-out",
            str(certificate),
            "-subj",
            "/OU=PVE Cluster Node/O=Proxmox Virtual Environment/CN=" + node,
            "-addext",
            "subjectAltName=" + ",".join(names),
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-addext",
            "extendedKeyUsage=serverAuth",
        ]
    )


def fingerprint(certificate: Path) -> str:
    """SHA-256 of a PEM certificate as Proxmox shows it: upper case hex pairs with colons."""
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text(encoding="ascii"))
    return ":".join("%02X" % byte for byte in hashlib.sha256(der).digest())
