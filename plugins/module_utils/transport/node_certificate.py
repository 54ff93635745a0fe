# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""When a node needs another certificate, which one it takes, and whether what it has lasts long enough.

Knows the rules of direct-transports 6.1; the files are those of a CredentialStore, the time is passed in.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from typing import Any, Dict, List, NoReturn, Optional, Sequence, Tuple

from .certificate import Certificate, RevocationList, certificates_of, leaf_problems, lists_of, to_pem
from .credential_store import SIDE, CredentialStore
from .dh_parameters import DH_PARAMETERS
from .errors import CertificateUnreadable, CredentialsUnusable, TlsFailed
from .tls import Cause, Credentials, check_credentials, is_node_name

__all__ = ["NodeCertificate", "Wanted"]

_LONGEST_NAME = 64  # of a CN (RFC 5280, ub-common-name)


@dataclass(frozen=True)
class Wanted:
    """What the certificate of this node must say."""

    name: str
    addresses: Tuple[str, ...]

    @classmethod
    def parse(cls, name: str, addresses: Sequence[str]) -> "Wanted":
        """Checked, for both go into a file of settings; raises CredentialsUnusable."""
        if not is_node_name(name) or len(name) > _LONGEST_NAME:
            _unusable(
                "name",
                Cause.NAME_INVALID,
                f"{name!r} is not the name of a node",
                "At most 64 letters, digits, hyphens, dots.",
            )
        try:
            return cls(name, tuple(str(ipaddress.ip_address(address)) for address in addresses))
        except ValueError:
            _unusable("addresses", Cause.NAME_INVALID, "one of the addresses is none", "Give IP addresses.")


class NodeCertificate:
    """The certificate of this node in one trust domain.

    Args:
        store: The files.
        wanted: What the certificate must say.
        now: Seconds since 1970.
    """

    def __init__(self, store: CredentialStore, wanted: Wanted, now: float) -> None:
        self._store = store
        self._wanted = wanted
        self._now = now
        self._credentials = Credentials(str(store.directory))

    def request(self, signer: str, renew_before: float, check_mode: bool) -> Dict[str, Any]:
        """A request for a certificate if one is needed.

        Args:
            signer: PEM text of the CA that is to have signed the certificate; empty if any will do.
            renew_before: Seconds before the end from which on another one is needed.
            check_mode: Only say so.

        Raises:
            CredentialsUnusable: The certificate was revoked: who let it be revoked must say that this is over.
        """
        renewal = self._renewal(signer, renew_before)
        if not renewal:
            return {"changed": False, "csr": "", "renewal": "", **self.facts()}
        csr = self._store.requested(self._wanted.name, self._wanted.addresses)
        if csr or check_mode:
            return {"changed": not csr, "csr": csr, "renewal": renewal, **self.facts()}
        with self._store.locked():
            csr = self._store.request(self._wanted.name, self._wanted.addresses)
        return {"changed": True, "csr": csr, "renewal": renewal, **self.facts()}

    def install(self, certificate: str, ca: str, crl: str, check_mode: bool) -> Dict[str, Any]:
        """Certificate, CAs and revocation lists, as PEM texts; what is empty stays as it is.

        Raises:
            CredentialsUnusable: The certificate belongs to another key, or lacks a field that QEMU or a worker will ask
                for; or the set would not work any longer.
        """
        before = self._texts()
        texts = {**before, **self._given(certificate, ca, crl)}
        if "server-cert.pem" in texts:
            texts["dh-params.pem"] = DH_PARAMETERS
        if texts == before and not self._store.faults() and self._complete(texts):
            return {"changed": False, **self.facts()}
        if not check_mode:
            with self._store.locked():
                self._store.close_to_others()
                if texts != before or not self._complete(texts):
                    self._put(texts, is_new=texts.get("server-cert.pem") != before.get("server-cert.pem"))
        return {"changed": True, "diff": {"before": _shown(before), "after": _shown(texts)}, **self.facts()}

    def check(self, must_last: float) -> Dict[str, Any]:
        """The gate before a move: whether all of it will be taken by others for so many seconds.

        Raises:
            CredentialsUnusable: It will not.
        """
        exposed = self._store.faults()
        if exposed:
            _unusable(exposed[0], Cause.EXPOSED, f"{exposed[0]} is open to others", "Run the role certificates.")
        found = check_credentials(self._credentials, self._wanted.name, SIDE)
        problems = leaf_problems(found, self._wanted.name, self._wanted.addresses)
        if problems:
            _unusable(self._credentials.certificate(SIDE), Cause.MALFORMED, problems[0], "Run the role certificates.")
        facts = self.facts()
        if facts["remaining_s"] < must_last:
            what = f"the {facts['expires_first']} ends in {facts['remaining_s']} s, {must_last:.0f} s are needed"
            # What it renews depends on that: with the usual 4 h it may find that all of this lasts long enough.
            remedy = f"Run the role certificates with certificates_expected_duration: {must_last:.0f} s, or longer."
            _unusable(str(self._store.directory), Cause.EXPIRES_SOON, what, remedy)
        return {"changed": False, **facts}

    def remove(self, check_mode: bool) -> Dict[str, Any]:
        """Key, certificate and everything else of the domain."""
        there = self._store.exists()
        if there and not check_mode:
            self._store.remove()
        return {"changed": there, "installed": there and check_mode}

    def facts(self) -> Dict[str, Any]:
        """What is installed, for a report."""
        shown = self._leaf()
        ends = self._ends(shown)
        first = min(ends, key=lambda each: ends[each], default="")
        facts: Dict[str, Any] = {
            "installed": shown is not None,
            "expires_first": first,
            "remaining_s": max(0, int(ends[first] - self._now)) if first else 0,
            "authorities": [each.fingerprint for each in self._authorities()],
            "crl_next_update": _moment(ends["revocation list"]) if "revocation list" in ends else None,
        }
        return {**facts, **(_leaf_facts(shown) if shown else {})}

    # What is there.

    def _texts(self) -> Dict[str, str]:
        names = ("ca-cert.pem", "ca-crl.pem", "server-cert.pem", "dh-params.pem")
        found = {name: self._text(name) for name in names}
        return {name: text for name, text in found.items() if text}

    def _text(self, name: str) -> str:
        """What a file holds; nothing where that cannot be read as what it should be, so that it is made anew."""
        text = self._store.text(name)
        parse = {"ca-crl.pem": lists_of, "ca-cert.pem": certificates_of, "server-cert.pem": certificates_of}.get(name)
        try:
            if text and parse is not None:
                parse(text, SIDE, name)
        except CertificateUnreadable:
            return ""
        return text

    def _leaf(self) -> Optional[Certificate]:
        text = self._text("server-cert.pem")
        return certificates_of(text, SIDE, self._credentials.file("server-cert.pem"))[0] if text else None

    def _authorities(self) -> List[Certificate]:
        text = self._text("ca-cert.pem")
        return certificates_of(text, SIDE, self._credentials.ca) if text else []

    def _lists(self) -> List[RevocationList]:
        text = self._text("ca-crl.pem")
        return lists_of(text, SIDE, self._credentials.crl) if text else []

    def _ends(self, shown: Optional[Certificate]) -> Dict[str, int]:
        """When the certificate, its CA and the first of the lists end."""
        ends = {}
        if shown:
            ends["certificate"] = shown.not_after
            issuers = [each.not_after for each in self._authorities() if shown.names_issuer(each)]
            ends.update({"CA": max(issuers)} if issuers else {})
        lists = [each.next_update for each in self._lists()]
        if lists:
            ends["revocation list"] = min(lists)
        return ends

    def _complete(self, texts: Dict[str, str]) -> bool:
        """Whether every name that should lead to a file does; a crash may have come before."""
        names = [
            *texts,
            *(["client-cert.pem", "server-key.pem", "client-key.pem"] if "server-cert.pem" in texts else []),
        ]
        return all(self._store.text(name) for name in names)

    # Decisions.

    def _renewal(self, signer: str, renew_before: float) -> str:
        """Why another certificate is needed, in one word; empty when not."""
        shown = self._leaf()
        if shown is None:
            return "missing"
        try:
            check_credentials(self._credentials, self._wanted.name, SIDE)
        except TlsFailed as error:
            cause = str(error.facts["cause"])
            if cause == Cause.REVOKED.value:
                raise
            if cause in (Cause.CRL_EXPIRED.value, Cause.CRL_MISSING.value):
                raise  # no certificate helps against that
            return cause
        if leaf_problems(shown, self._wanted.name, self._wanted.addresses):
            return "fields"
        if signer and not shown.names_issuer(certificates_of(signer, SIDE, "signer")[0]):
            return "issuer"
        return "expires" if shown.not_after - self._now < renew_before else ""

    def _given(self, certificate: str, ca: str, crl: str) -> Dict[str, str]:
        """The texts that were given, cleaned of everything around them."""
        given: Dict[str, str] = {}
        if ca:
            given["ca-cert.pem"] = to_pem(certificates_of(ca, SIDE, "ca"))
        if crl:
            given["ca-crl.pem"] = to_pem(lists_of(crl, SIDE, "crl"))
        if certificate:
            given["server-cert.pem"] = to_pem(certificates_of(certificate, SIDE, "certificate")[:1])
        return given

    def _put(self, texts: Dict[str, str], is_new: bool) -> None:
        key_from = self._key_for(texts["server-cert.pem"]) if "server-cert.pem" in texts else ""
        if "server-cert.pem" in texts and not key_from:
            if is_new:
                remedy = "Ask for the request of this node again and sign that."
                _refused(Cause.KEY_MISMATCH, "it belongs to no key of this node", remedy)
            # Its key was damaged: without either the node asks for another certificate.
            texts = {name: text for name, text in texts.items() if name not in ("server-cert.pem", "dh-params.pem")}
        place = self._store.prepare(texts, key_from)
        try:
            if key_from:
                self._check_set(str(place), texts["server-cert.pem"], is_new)
        except TlsFailed:
            self._store.discard(place)
            raise
        self._store.switch(place, request_used=key_from == "requested")

    def _key_for(self, text: str) -> str:
        """Where the key of the certificate is; empty when this node does not have it."""
        leaf = certificates_of(text, SIDE, "certificate")[0]
        held = [which for which in ("current", "requested") if self._store.public_key(which) == leaf.key.der]
        return held[0] if held else ""

    def _check_set(self, place: str, text: str, is_new: bool) -> None:
        """A new certificate must be right in everything; with an old one only its CA must not be taken away."""
        leaf = certificates_of(text, SIDE, "certificate")[0]
        problems = leaf_problems(leaf, self._wanted.name, self._wanted.addresses) if is_new else []
        if problems:
            _refused(Cause.MALFORMED, problems[0], "Sign it with the fields of its request.")
        try:
            check_credentials(Credentials(place), self._wanted.name, SIDE)
        except CredentialsUnusable as error:
            if is_new:
                _refused(Cause(error.facts["cause"]), error.facts["reason"], error.remedy)
            if error.facts["cause"] == Cause.FOREIGN_CA.value and self._works():
                reason = "the CA that signed this node's certificate would no longer be trusted"
                remedy = "Keep trusting it until every node has a certificate of the new one."
                _unusable("ca-cert.pem", Cause.FOREIGN_CA, reason, remedy)

    def _works(self) -> bool:
        try:
            check_credentials(self._credentials, self._wanted.name, SIDE)
        except TlsFailed:
            return False
        return True


def _leaf_facts(leaf: Certificate) -> Dict[str, Any]:
    return {
        "fingerprint": leaf.fingerprint,
        "serial_number": f"{leaf.serial:x}",
        "issuer": _distinguished(leaf.issuer),
        "subject": _distinguished(leaf.subject),
        "names": list(leaf.dns_names),
        "addresses": list(leaf.addresses),
        "not_before": _moment(leaf.not_before),
        "not_after": _moment(leaf.not_after),
    }


def _shown(texts: Dict[str, str]) -> Dict[str, Any]:
    """A set for people, in a difference: nothing of a key."""
    shown: Dict[str, Any] = {"authorities": [], "certificate": None, "revoked": None}
    shown["dh_parameters"] = "dh-params.pem" in texts
    if "ca-cert.pem" in texts:
        shown["authorities"] = [each.fingerprint for each in certificates_of(texts["ca-cert.pem"], SIDE)]
    if "server-cert.pem" in texts:
        shown["certificate"] = _leaf_facts(certificates_of(texts["server-cert.pem"], SIDE)[0])
    if "ca-crl.pem" in texts:
        lists = lists_of(texts["ca-crl.pem"], SIDE)
        shown["revoked"] = sorted(f"{serial:x}" for each in lists for serial in each.serials)
        shown["crl_next_update"] = _moment(min(each.next_update for each in lists))
    return shown


def _distinguished(attributes: Tuple[Tuple[str, str], ...]) -> str:
    return ",".join(f"{name}={value}" for name, value in attributes)


def _moment(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _unusable(object: str, cause: Cause, reason: str, remedy: str) -> NoReturn:
    facts = {"cause": cause.value, "reason": reason}
    raise CredentialsUnusable(f"{object}: {reason}", side=SIDE, object=object, remedy=remedy, facts=facts)


def _refused(cause: Cause, reason: str, remedy: str) -> NoReturn:
    facts = {"cause": cause.value, "reason": reason}
    raise CredentialsUnusable(
        f"the certificate is not installed: {reason}", side=SIDE, object="certificate", remedy=remedy, facts=facts
    )
