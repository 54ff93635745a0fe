# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate authority for tests, which can make every mistake of direct-transports 6.3. Keys are EC: quick."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.dh_parameters import DH_PARAMETERS

__all__ = ["NOW", "Authority", "Issued", "lay", "new_key"]

NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


def new_key(kind="ec"):
    if kind == "ec":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=int(kind))


def key_pem(key) -> str:
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, plain).decode()


def pem(thing) -> str:
    return thing.public_bytes(serialization.Encoding.PEM).decode()


def common_name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def usage(*names):
    first = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
    every = [*first, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(**{name: name in names for name in every})


class Issued:
    """A certificate and its key."""

    def __init__(self, certificate, key):
        self.certificate = certificate
        self.pem = pem(certificate)
        self.key_pem = key_pem(key)
        self.der = certificate.public_bytes(serialization.Encoding.DER)


class Authority:
    """A CA; the arguments after the name are its mistakes."""

    def __init__(self, name="trust domain", *, starts=-DAY, ends=10 * DAY, critical=True, identifier=True, sign=True):
        self.key = new_key()
        self.name = common_name(name)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + starts)
            .not_valid_after(NOW + ends)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical)
            .add_extension(usage("crl_sign", *(["key_cert_sign"] if sign else [])), True)
        )
        if identifier:
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False)
        self.certificate = builder.sign(self.key, hashes.SHA256())
        self.pem = pem(self.certificate)

    def issue(
        self,
        name="node-a",
        *,
        dns=None,
        ips=("192.0.2.1",),
        starts=-datetime.timedelta(minutes=10),
        ends=DAY,
        purposes=(SERVER, CLIENT),
        usages=("digital_signature", "key_encipherment"),
        ca=False,
        constraints=True,
        authority=True,
        critical=True,
        key=None,
        subject=None,
    ) -> Issued:
        """A leaf, right unless told otherwise."""
        key = key or new_key()
        names = [x509.DNSName(text) for text in ([name] if dns is None else dns)]
        names += [x509.IPAddress(ipaddress.ip_address(text)) for text in ips]
        builder = (
            x509.CertificateBuilder()
            .subject_name(common_name(name) if subject is None else subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + starts)
            .not_valid_after(NOW + ends)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )
        if constraints:
            builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical)
        if usages:
            builder = builder.add_extension(usage(*usages), critical)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        if authority:
            issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
            builder = builder.add_extension(issuer, False)
        return Issued(builder.sign(self.key, hashes.SHA256()), key)

    def crl(self, *revoked: Issued, starts=-DAY, ends=DAY) -> str:
        """A revocation list, PEM."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(NOW + starts).next_update(NOW + ends)
        for issued in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(issued.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(NOW - DAY).build())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(issuer, False).add_extension(x509.CRLNumber(1), False)
        return pem(builder.sign(self.key, hashes.SHA256()))


def lay(directory: Path, ca: str, issued: Issued | None, crl: str = "") -> Path:
    """The files of a trust domain on a node."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / "ca-cert.pem").write_text(ca)
    if crl:
        (directory / "ca-crl.pem").write_text(crl)
    for role in ("server", "client") if issued else ():
        (directory / f"{role}-cert.pem").write_text(issued.pem)
        (directory / f"{role}-key.pem").write_text(issued.key_pem)
    if issued:
        (directory / "dh-params.pem").write_text(DH_PARAMETERS)
    return directory
