# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What stands in a certificate, read from its DER bytes, and what a node's certificate must say.

Knows the fields of direct-transports 6.1 and nothing of signatures: those are checked in a handshake (tls.py). Needed
because Python's ``ssl`` shows neither basic constraints nor key usages, and a leaf that is a CA passes OpenSSL but not
QEMU (direct-transports 6.3). Only what nodes have: the standard library.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import re
import ssl
from dataclasses import dataclass
from typing import Dict, FrozenSet, List, NoReturn, Optional, Sequence, Tuple, Union

from ..errors import Side
from .errors import CertificateUnreadable

__all__ = ["Certificate", "PublicKey", "RevocationList", "certificates_of", "leaf_problems", "lists_of", "to_pem"]

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_PEM_LIST = re.compile(r"-----BEGIN X509 CRL-----(.*?)-----END X509 CRL-----", re.DOTALL)
_MAX_SIZE = 64 * 1024  # far beyond any certificate; a peer chooses what is read here

_SEQUENCE, _SET, _OID, _BOOLEAN, _INTEGER, _BITS, _OCTETS = 0x30, 0x31, 0x06, 0x01, 0x02, 0x03, 0x04
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_SAN_DNS, _SAN_IP, _KEY_IDENTIFIER = 0x82, 0x87, 0x80

# RFC 5280: 4.2.1 (extensions, key usage bits), 4.2.1.12 (purposes); RFC 5480, 8410, 3279 (keys).
_BASIC_CONSTRAINTS, _KEY_USAGE, _EXTENDED = "2.5.29.19", "2.5.29.15", "2.5.29.37"
_SAN, _SUBJECT_KEY, _AUTHORITY_KEY = "2.5.29.17", "2.5.29.14", "2.5.29.35"
_USAGES = (
    "digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment", "keyAgreement", "keyCertSign",
    "cRLSign", "encipherOnly", "decipherOnly",
)  # fmt: skip
_PURPOSES = {"1.3.6.1.5.5.7.3.1": "serverAuth", "1.3.6.1.5.5.7.3.2": "clientAuth"}
_ATTRIBUTES = {"2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU"}
_EC, _RSA, _ED25519 = "1.2.840.10045.2.1", "1.2.840.113549.1.1.1", "1.3.101.112"
_CURVES = {"1.2.840.10045.3.1.7": "P-256", "1.3.132.0.34": "P-384", "1.3.132.0.35": "P-521"}

Extension = Tuple[bool, bytes]  # critical, value
Attributes = Tuple[Tuple[str, str], ...]


@dataclass(frozen=True)
class PublicKey:
    """The key of a certificate: ``kind`` is ``EC``, ``Ed25519``, ``RSA`` or a dotted number."""

    kind: str
    detail: str  # curve, or length in bits
    der: bytes

    @property
    def strong(self) -> bool:
        """Whether OpenSSL takes it at the security level of Debian (direct-transports 6.1: RSA 1024 is refused)."""
        if self.kind == "RSA":
            return int(self.detail) >= 2048
        return self.kind == "Ed25519" or (self.kind == "EC" and self.detail in _CURVES.values())


@dataclass(frozen=True)
class Certificate:
    """The fields of one certificate; times are seconds since 1970."""

    der: bytes
    serial: int
    issuer: Attributes
    subject: Attributes
    not_before: int
    not_after: int
    key: PublicKey
    dns_names: Tuple[str, ...]
    addresses: Tuple[str, ...]
    is_ca: bool
    usages: FrozenSet[str]
    purposes: FrozenSet[str]
    critical: FrozenSet[str]  # dotted numbers of the extensions that are critical
    present: FrozenSet[str]  # dotted numbers of all extensions
    subject_key: bytes  # identifiers of its own key and of its issuer's, empty when there are none
    authority_key: bytes

    @classmethod
    def parse(cls, der: bytes, side: Side, object: str = "certificate") -> "Certificate":
        """Reads a certificate; raises CertificateUnreadable for anything that is none.

        Args:
            der: Its bytes.
            side: Where it comes from, for the error.
            object: The file or the end it comes from, for the error.
        """
        try:
            return _certificate(der)
        except (ValueError, IndexError, OverflowError) as error:
            raise CertificateUnreadable(f"{object} is not a certificate in DER", side=side, object=object) from error

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the whole certificate, 64 hexadecimal digits."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def common_name(self) -> str:
        """The last CN of the subject; empty without one."""
        return next((value for name, value in reversed(self.subject) if name == "CN"), "")

    def names_issuer(self, authority: "Certificate") -> bool:
        """Whether it says that it was issued by this CA. Whether that is true, only a handshake tells."""
        return self.issuer == authority.subject and self.authority_key == authority.subject_key


@dataclass(frozen=True)
class RevocationList:
    """The fields of one revocation list; times are seconds since 1970."""

    der: bytes
    issuer: Attributes
    this_update: int
    next_update: int
    serials: FrozenSet[int]

    @classmethod
    def parse(cls, der: bytes, side: Side, object: str = "revocation list") -> "RevocationList":
        """Reads a list; raises CertificateUnreadable for anything that is none, or that says not how long it holds."""
        try:
            return _revocation_list(der)
        except (ValueError, IndexError, OverflowError) as error:
            raise CertificateUnreadable(f"{object} is not a revocation list", side=side, object=object) from error


def certificates_of(pem: str, side: Side, object: str = "certificate") -> List[Certificate]:
    """All certificates of a PEM text, in order; raises CertificateUnreadable when one is broken or there is none."""
    try:
        found = [Certificate.parse(ssl.PEM_cert_to_DER_cert(block), side, object) for block in _PEM.findall(pem)]
    except ValueError as error:
        raise CertificateUnreadable(f"{object} is not in PEM", side=side, object=object) from error
    if not found:
        raise CertificateUnreadable(f"there is no certificate in {object}", side=side, object=object)
    return found


def lists_of(pem: str, side: Side, object: str = "revocation list") -> List[RevocationList]:
    """All revocation lists of a PEM text, in order; raises CertificateUnreadable as certificates_of."""
    try:
        blocks = [base64.b64decode(block) for block in _PEM_LIST.findall(pem)]
    except ValueError as error:
        raise CertificateUnreadable(f"{object} is not in PEM", side=side, object=object) from error
    if not blocks:
        raise CertificateUnreadable(f"there is no revocation list in {object}", side=side, object=object)
    return [RevocationList.parse(block, side, object) for block in blocks]


def to_pem(things: Sequence[Union[Certificate, RevocationList]]) -> str:
    """Their PEM text and nothing else, whatever stood around them where they came from."""
    text = ""
    for each in things:
        label = "CERTIFICATE" if isinstance(each, Certificate) else "X509 CRL"
        encoded = base64.b64encode(each.der).decode("ascii")
        body = "\n".join(encoded[start : start + 64] for start in range(0, len(encoded), 64))
        text += f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"
    return text


def leaf_problems(certificate: Certificate, name: str, addresses: Sequence[str] = ()) -> List[str]:
    """What a node's certificate lacks of direct-transports 6.1, as clauses; empty when nothing.

    Args:
        certificate: The certificate.
        name: The node's name that it must carry.
        addresses: The addresses that it must carry.
    """
    both = {"serverAuth", "clientAuth"}
    missing = [ip for ip in addresses if str(ipaddress.ip_address(ip)) not in certificate.addresses]
    rules = [
        (certificate.key.strong, f"its key is too weak: {certificate.key.kind} {certificate.key.detail}"),
        (not certificate.is_ca, "it is a CA (basicConstraints CA:TRUE)"),
        (_BASIC_CONSTRAINTS in certificate.critical, "it has no critical basicConstraints CA:FALSE"),
        (
            _KEY_USAGE in certificate.critical and {"digitalSignature", "keyEncipherment"} <= certificate.usages,
            "it has no critical keyUsage digitalSignature and keyEncipherment",
        ),
        (both <= certificate.purposes, "its extendedKeyUsage lacks serverAuth or clientAuth"),
        (certificate.subject == (("CN", name),), f"its subject is not CN={name} alone"),
        (name in certificate.dns_names, f"its subjectAltName lacks DNS:{name}"),
        (not missing, "its subjectAltName lacks " + ", ".join(f"IP:{ip}" for ip in missing)),
        (_AUTHORITY_KEY in certificate.present, "it has no authorityKeyIdentifier"),
    ]
    return [text for held, text in rules if not held]


# --- the certificate ------------------------------------------------------------------------------------------------


def _certificate(der: bytes) -> Certificate:
    if len(der) > _MAX_SIZE:
        raise ValueError("too long")
    outer = _only(der, _SEQUENCE)
    body = _Reader(_Reader(outer).take(_SEQUENCE))
    body.maybe(_VERSION)
    serial = int.from_bytes(body.take(_INTEGER), "big", signed=True)
    body.take(_SEQUENCE)  # signature algorithm
    issuer = _name(body.take(_SEQUENCE))
    validity = _Reader(body.take(_SEQUENCE))
    not_before, not_after = _time(*validity.next()), _time(*validity.next())
    subject = _name(body.take(_SEQUENCE))
    key = _public_key(body.take_whole(_SEQUENCE))
    extensions: Dict[str, Extension] = {}
    while body.left:
        tag, value = body.next()
        if tag == _EXTENSIONS:
            extensions = _extensions(_only(value, _SEQUENCE))
    dns_names, addresses = _alternative_names(extensions.get(_SAN))
    return Certificate(
        der=bytes(der),
        serial=serial,
        issuer=issuer,
        subject=subject,
        not_before=not_before,
        not_after=not_after,
        key=key,
        dns_names=dns_names,
        addresses=addresses,
        is_ca=_is_ca(extensions.get(_BASIC_CONSTRAINTS)),
        usages=_usages(extensions.get(_KEY_USAGE)),
        purposes=_purposes(extensions.get(_EXTENDED)),
        critical=frozenset(number for number, (critical, _value) in extensions.items() if critical),
        present=frozenset(extensions),
        subject_key=_subject_key(extensions.get(_SUBJECT_KEY)),
        authority_key=_authority_key(extensions.get(_AUTHORITY_KEY)),
    )


def _revocation_list(der: bytes) -> RevocationList:
    body = _Reader(_Reader(_only(der, _SEQUENCE)).take(_SEQUENCE))
    body.maybe(_INTEGER)  # version
    body.take(_SEQUENCE)  # signature algorithm
    issuer = _name(body.take(_SEQUENCE))
    this_update, next_update = _time(*body.next()), _time(*body.next())
    entries = _Reader(body.maybe(_SEQUENCE) or b"")
    serials = set()
    while entries.left:
        serials.add(int.from_bytes(_Reader(entries.take(_SEQUENCE)).take(_INTEGER), "big", signed=True))
    return RevocationList(bytes(der), issuer, this_update, next_update, frozenset(serials))


def _public_key(whole: bytes) -> PublicKey:
    info = _Reader(_only(whole, _SEQUENCE))
    algorithm = _Reader(info.take(_SEQUENCE))
    number = _oid(algorithm.take(_OID))
    bits = info.take(_BITS)
    if number == _EC:
        tag, value = algorithm.next()
        curve = _oid(value) if tag == _OID else "explicit"
        return PublicKey("EC", _CURVES.get(curve, curve), whole)
    if number == _RSA:
        modulus = _Reader(_only(bits[1:], _SEQUENCE)).take(_INTEGER)
        return PublicKey("RSA", str(int.from_bytes(modulus, "big").bit_length()), whole)
    return PublicKey("Ed25519" if number == _ED25519 else number, "", whole)


def _extensions(data: bytes) -> Dict[str, Extension]:
    found: Dict[str, Extension] = {}
    reader = _Reader(data)
    while reader.left:
        entry = _Reader(reader.take(_SEQUENCE))
        number = _oid(entry.take(_OID))
        critical = entry.maybe(_BOOLEAN)
        if number in found:
            raise ValueError("an extension stands there twice")  # RFC 5280 4.2
        found[number] = (critical not in (None, b"\x00"), entry.take(_OCTETS))
    return found


def _is_ca(extension: Optional[Extension]) -> bool:
    if extension is None:
        return False
    return _Reader(_only(extension[1], _SEQUENCE)).maybe(_BOOLEAN) not in (None, b"\x00")


def _usages(extension: Optional[Extension]) -> FrozenSet[str]:
    if extension is None:
        return frozenset()
    octets = _only(extension[1], _BITS)[1:]
    bits = "".join(f"{octet:08b}" for octet in octets)
    return frozenset(name for name, bit in zip(_USAGES, bits) if bit == "1")


def _purposes(extension: Optional[Extension]) -> FrozenSet[str]:
    if extension is None:
        return frozenset()
    reader = _Reader(_only(extension[1], _SEQUENCE))
    found = set()
    while reader.left:
        number = _oid(reader.take(_OID))
        found.add(_PURPOSES.get(number, number))
    return frozenset(found)


def _subject_key(extension: Optional[Extension]) -> bytes:
    return _only(extension[1], _OCTETS) if extension else b""


def _authority_key(extension: Optional[Extension]) -> bytes:
    return (_Reader(_only(extension[1], _SEQUENCE)).maybe(_KEY_IDENTIFIER) if extension else None) or b""


def _alternative_names(extension: Optional[Extension]) -> Tuple[Tuple[str, ...], Tuple[str, ...]]:
    dns_names: List[str] = []
    addresses: List[str] = []
    reader = _Reader(_only(extension[1], _SEQUENCE) if extension else b"")
    while reader.left:
        tag, value = reader.next()
        # OpenSSL lets names pass that no node can have (RFC 5280 4.2.1.6): they are told, and are never the right one.
        if tag == _SAN_DNS:
            dns_names.append(value.decode("ascii", "backslashreplace"))
        elif tag == _SAN_IP:
            addresses.append(str(ipaddress.ip_address(value)) if len(value) in (4, 16) else value.hex())
    return tuple(dns_names), tuple(addresses)


def _name(data: bytes) -> Attributes:
    reader = _Reader(data)
    found = []
    while reader.left:
        group = _Reader(reader.take(_SET))
        while group.left:
            pair = _Reader(group.take(_SEQUENCE))
            number = _oid(pair.take(_OID))
            found.append((_ATTRIBUTES.get(number, number), pair.next()[1].decode("utf-8", "replace")))
    return tuple(found)


def _time(tag: int, value: bytes) -> int:
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if text[:2] < "50" else "19") + text  # RFC 5280 4.1.2.5.1
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    if not re.fullmatch("[0-9]{14}Z", text):
        raise ValueError("no time")
    # Not strptime, which would load half a megabyte into every pump.
    month, day, hour, minute, second = (int(text[at : at + 2]) for at in range(4, 14, 2))
    moment = datetime.datetime(int(text[:4]), month, day, hour, minute, second, tzinfo=datetime.timezone.utc)
    return int(moment.timestamp())


# --- DER ------------------------------------------------------------------------------------------------------------


class _Reader:
    """Elements of DER one after the other (X.690: tags of one octet, definite lengths)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._data)

    def next(self) -> Tuple[int, bytes]:
        """Tag and content of the next element."""
        tag, start, end = self._header()
        self._at = end
        return tag, self._data[start:end]

    def take(self, tag: int) -> bytes:
        """Content of the next element, which must have this tag."""
        found, value = self.next()
        return value if found == tag else _wrong()

    def take_whole(self, tag: int) -> bytes:
        """The next element with its header."""
        begin = self._at
        self.take(tag)
        return self._data[begin : self._at]

    def maybe(self, tag: int) -> Optional[bytes]:
        """Content of the next element if it has this tag."""
        return self.take(tag) if self.left and self._data[self._at] == tag else None

    def _header(self) -> Tuple[int, int, int]:
        tag, size, at = self._data[self._at], self._data[self._at + 1], self._at + 2
        if size & 0x80:
            count = size & 0x7F
            if not 1 <= count <= 4:
                _wrong()
            size = int.from_bytes(self._data[at : at + count], "big")
            at += count
        if at + size > len(self._data):
            _wrong()
        return tag, at, at + size


def _only(data: bytes, tag: int) -> bytes:
    """Content of the one element that ``data`` is."""
    reader = _Reader(data)
    value = reader.take(tag)
    return _wrong() if reader.left else value


def _wrong() -> NoReturn:
    raise ValueError("not the structure of a certificate")


def _oid(data: bytes) -> str:
    """A dotted number (X.690 8.19)."""
    numbers: List[int] = []
    value = 0
    for octet in data:
        value = value << 7 | octet & 0x7F
        if not octet & 0x80:
            numbers.append(value)
            value = 0
    if not numbers or value:
        _wrong()
    first = min(numbers[0] // 40, 2)
    return ".".join(str(number) for number in (first, numbers[0] - 40 * first, *numbers[1:]))
