# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""CAs that were brought, their keys behind a passphrase: first certificates, change of the CA, revocation.

A CA that the role makes itself is the molecule scenario's; what the module refuses is the integration target's.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from pathlib import Path

import pytest

from e2e.direct import assert_nobody_listens, over, rooted
from e2e.moves import assert_changes_nothing

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DOMAIN = "brought"
REHEARSE = Path(__file__).with_name("rehearse.yml")
FIELDS = """
[req]
distinguished_name = name
x509_extensions = fields
prompt = no
[name]
O = Example
CN = {name}
[fields]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""


class Domain:
    """A trust domain whose CAs somebody else has made, and the nodes of the lab in it."""

    def __init__(self, lab, controller, place: Path) -> None:
        self.controller, self._place = controller, place
        clusters = controller.clusters()
        self.alpha, self.beta = (next(iter(clusters[name]["nodes"].values())) for name in ("alpha", "beta"))
        self.hosts = {"alpha": lab.host("alpha1"), "beta": lab.host("beta1")}
        self.passphrase = secrets.token_hex(16)
        self._secret = place / "passphrase"
        self._secret.write_text(self.passphrase + "\n", encoding="ascii")
        self.options = {
            "certificates_domain": DOMAIN,
            "certificates_authority_directory": str(place),
            "certificates_authority_passphrase": self.passphrase,
            "certificates_create_authority": False,
        }

    def bring(self, generation: int, *algorithm: str) -> None:
        """Lay a CA there, as docs/certificates.md asks for it."""
        here = self._place / DOMAIN / str(generation)
        here.mkdir(parents=True)
        (here / "fields").write_text(FIELDS.format(name=f"CA {generation}"), encoding="ascii")
        behind = f"file:{self._secret}"
        make_key = ["genpkey", "-algorithm", *algorithm, "-aes256", "-pass", behind, "-out", "ca-key.pem"]
        make_ca = ["req", "-x509", "-new", "-config", "fields", "-days", "30", "-out", "ca-cert.pem"]
        for words in (make_key, [*make_ca, "-key", "ca-key.pem", "-passin", behind]):
            subprocess.run(["openssl", *words], cwd=here, check=True, capture_output=True)

    def _options_file(self, **more) -> str:
        """The options in a file: whoever gave a passphrase on the command line would show it to the whole machine."""
        path = self._place / "options.json"
        path.write_text(json.dumps({**self.options, **more}), encoding="ascii")
        return f"@{path}"

    def keep(self, *arguments: str, **more):
        """Run the public playbook."""
        argv = ["-e", self._options_file(**more), *arguments]
        return self.controller.run("certificates", *argv, extra=rooted(self.controller))

    def rehearse(self, connects, listens):
        """Have one node connect to the other."""
        places = {"connects": connects, "listens": listens}
        return self.controller.run(str(REHEARSE), "-e", self._options_file(), extra=rooted(self.controller, **places))

    def certificate(self, cluster: str, word: str) -> str:
        """What openssl says of a node's certificate."""
        path = f"/etc/crosscluster/pki/{DOMAIN}/server-cert.pem"
        return self.hosts[cluster].run(["openssl", "x509", "-in", path, "-noout", word]).stdout.strip()


@pytest.fixture
def domain(lab, controller, tmp_path):
    found = Domain(lab, controller, tmp_path)
    yield found
    found.keep(certificates_state="absent").expect(0)


def test_brought_ca_gives_way_to_another_and_a_revoked_node_stays_out(domain):
    missing = domain.keep()
    assert missing.status != 0
    assert "certificates_create_authority" in missing.output

    domain.bring(1, "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
    first = domain.keep("-vvv").expect(0)
    assert domain.passphrase not in first.output
    assert "CN = CA 1" in domain.certificate("alpha", "-issuer")
    assert_changes_nothing(domain.keep())

    # While one CA takes over from the other, a node that has changed and one that has not know each other.
    domain.bring(2, "ED25519")
    domain.keep(certificates_trusted=[1, 2]).expect(0)
    both = {"certificates_generation": 2, "certificates_trusted": [1, 2]}
    domain.keep("-e", "certificates_clusters=alpha", **both).expect(0)
    assert "CN = CA 2" in domain.certificate("alpha", "-issuer")
    assert "CN = CA 1" in domain.certificate("beta", "-issuer")
    domain.rehearse(domain.alpha, domain.beta).expect(0)

    # The other node learns of the revocation, and refuses the revoked one whichever of them connects.
    serial = domain.certificate("alpha", "-serial").partition("=")[2]
    revoked = domain.keep(certificates_revoked=[serial], **both)
    assert revoked.status != 0
    assert "CN = CA 2" in domain.certificate("beta", "-issuer")
    assert domain.passphrase not in revoked.output
    for connects, listens in ((domain.alpha, domain.beta), (domain.beta, domain.alpha)):
        refused = domain.rehearse(connects, listens)
        assert refused.status != 0
        assert "revoked" in refused.output


def test_move_that_the_certificates_do_not_outlast_is_refused_before_the_first_write(mover, certificates):
    vm = mover().create(watch=False, guest=False)
    run = vm.controller.run("migrate", extra=over(vm, "tls", move_limits={"deadline": "30 h"}))
    assert run.status != 0
    assert {"NO_TRANSPORT_USABLE", "CREDENTIALS_UNUSABLE"} <= run.codes
    assert "alpha-alpha1: /etc/crosscluster/pki/crosscluster: the " in run.output
    assert "108000 s are needed" in run.output
    assert "; beta-beta1: /etc/crosscluster/pki/crosscluster: the " in run.output
    assert "Run the role certificates with certificates_expected_duration: 108000 s, or longer" in run.output
    assert vm.records() == []
    vm.assert_nothing_on_target()
    assert_nobody_listens(vm)
