# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The group is that of RFC 7919, computed here from its definition, in the form that QEMU reads."""

from __future__ import annotations

import ssl
from decimal import Decimal, localcontext

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.dh_parameters import DH_PARAMETERS


def der(tag: int, content: bytes) -> bytes:
    """One long and one short form of a length are enough here."""
    size = bytes([len(content)]) if len(content) < 128 else b"\x82" + len(content).to_bytes(2, "big")
    return bytes([tag]) + size + content


def test_group_is_ffdhe3072_in_pkcs3(tmp_path):
    """RFC 7919 A.2: p = 2^3072 - 2^3008 + (floor(2^2942 * e) + 2625351) * 2^64 - 1, g = 2."""
    with localcontext() as context:
        context.prec = 1000
        e = int(Decimal(1).exp() * 2**2942)
    p = 2**3072 - 2**3008 + (e + 2625351) * 2**64 - 1
    expected = der(0x30, der(2, b"\0" + p.to_bytes(384, "big")) + der(2, b"\2"))
    framed = DH_PARAMETERS.replace("DH PARAMETERS", "CERTIFICATE")
    assert ssl.PEM_cert_to_DER_cert(framed) == expected
    (tmp_path / "dh-params.pem").write_text(DH_PARAMETERS)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_dh_params(str(tmp_path / "dh-params.pem"))
