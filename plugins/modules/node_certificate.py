#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 crosscluster contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate of a node, by which the workers and QEMU of two nodes know each other."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_certificate
short_description: Asks for, installs, checks or removes the certificate of a node
version_added: 0.1.0
author:
  - crosscluster contributors (@crosscluster)
description:
  - The transports V(tls) and V(qemu-tls) of M(crosscluster.migration.migration) need a certificate on both nodes.
    This module keeps it on the node it runs on. The key is made there, by the node's own C(openssl), and never leaves.
  - With O(state=requested) it says whether the node needs a certificate, and if so returns a request to be signed.
    With O(state=present) the signed certificate is installed with the CA and its revocation list.
  - The role P(crosscluster.migration.certificates#role) does both, and signs on the controller.
  - Key, certificate, CA and revocation list change all at once. What was there works until then.
  - With the certificate comes C(dh-params.pem), a group of RFC 7919, so that QEMU need not make one at each migration.
  - A certificate is installed only if the node itself, in the role of a client and in that of a server, would be
    accepted with it.
requirements:
  - C(openssl) on the node
options:
  state:
    description:
      - V(requested) returns RV(csr) if a certificate is needed. The same request is returned until it is answered.
      - V(present) installs what is given of O(certificate), O(ca) and O(crl), and leaves the rest as it is.
      - V(checked) changes nothing and fails unless everything will do for another O(must_last).
      - V(absent) removes key, certificate and everything else of the domain.
    type: str
    choices: [requested, present, checked, absent]
    default: present
  domain:
    description: Name of the trust domain, a subdirectory of O(directory).
    type: str
    required: true
  directory:
    description: Where the trust domains are kept. Never below C(/etc/pve), whose files are sent to all nodes.
    type: path
    default: /etc/crosscluster/pki
  name:
    description: Name of the node, by which others know it. Required unless O(state=absent).
    type: str
  addresses:
    description: IP addresses that the certificate must name too.
    type: list
    elements: str
    default: []
  certificate:
    description: The signed certificate, PEM.
    type: str
  ca:
    description: The CA, PEM. All of them, one behind the other, while a new one takes over from an old one.
    type: str
  crl:
    description: The revocation lists, PEM, one for each CA.
    type: str
  signer:
    description: The CA, PEM, that is to have signed the certificate. Without it any trusted one will do.
    type: str
  renew_before:
    description: With O(state=requested), how long before its end another certificate is asked for.
    type: str
    default: 8 h
  must_last:
    description: With O(state=checked), for how long certificate, CA and revocation lists must still be valid.
    type: str
    default: 4 h
extends_documentation_fragment:
  - crosscluster.migration.attributes
seealso:
  - module: crosscluster.migration.tls_rehearsal
"""

EXAMPLES = r"""
- name: Ask whether the node needs a certificate
  crosscluster.migration.node_certificate:
    state: requested
    domain: production
    name: a1.alpha
    addresses: [192.0.2.11]
  register: request

- name: Install what was signed
  crosscluster.migration.node_certificate:
    domain: production
    name: a1.alpha
    addresses: [192.0.2.11]
    certificate: "{{ signed.certificate }}"
    ca: "{{ lookup('ansible.builtin.file', 'ca-cert.pem') }}"
  when: request.csr != ''

- name: Let nothing move that the certificate does not outlast
  crosscluster.migration.node_certificate:
    state: checked
    domain: production
    name: a1.alpha
    must_last: 6 h
"""

RETURN = r"""
csr:
  description: The request to be signed, PEM. Empty if none is needed, and in check mode.
  type: str
  returned: with O(state=requested)
renewal:
  description:
    - Why a certificate is needed, such as V(missing), V(expires), V(expired), V(issuer), V(fields) or V(wrong_name).
      Empty if none is needed.
  type: str
  returned: with O(state=requested)
  sample: expires
installed:
  description: Whether a certificate is installed.
  type: bool
  returned: success
remaining_s:
  description: Seconds until the first of certificate, its CA and the revocation lists ends.
  type: int
  returned: unless O(state=absent)
  sample: 85800
expires_first:
  description: Which of them that is, V(certificate), V(CA) or V(revocation list).
  type: str
  returned: unless O(state=absent)
authorities:
  description: SHA-256 fingerprints of the CAs that are trusted.
  type: list
  elements: str
  returned: unless O(state=absent)
crl_next_update:
  description: When the first of the revocation lists ends.
  type: str
  returned: unless O(state=absent)
  sample: "2026-11-23T00:20:00Z"
fingerprint:
  description: SHA-256 fingerprint of the certificate.
  type: str
  returned: if a certificate is installed
serial_number:
  description: Serial number of the certificate, hexadecimal.
  type: str
  returned: if a certificate is installed
issuer:
  description: The CA that signed it.
  type: str
  returned: if a certificate is installed
  sample: CN=crosscluster production 1
subject:
  description: Whom it names.
  type: str
  returned: if a certificate is installed
  sample: CN=a1.alpha
names:
  description: DNS names in it.
  type: list
  elements: str
  returned: if a certificate is installed
  sample: [a1.alpha]
addresses:
  description: IP addresses in it.
  type: list
  elements: str
  returned: if a certificate is installed
  sample: [192.0.2.11]
not_before:
  description: When it begins.
  type: str
  returned: if a certificate is installed
  sample: "2026-11-22T00:10:00Z"
not_after:
  description: When it ends.
  type: str
  returned: if a certificate is installed
  sample: "2026-11-23T00:20:00Z"
diff:
  description: What was installed and what is then, without anything of a key.
  type: dict
  returned: with O(state=present) if something changes
code:
  description: Stable name of what went wrong, see the table of error codes.
  type: str
  returned: failure
  sample: CREDENTIALS_UNUSABLE
side:
  description: Where the matter lies. A node is source and target in turn, so this says V(source).
  type: str
  returned: failure
  sample: source
object:
  description: The file or option that the message is about.
  type: str
  returned: failure
  sample: /etc/crosscluster/pki/production/server-cert.pem
message:
  description: What went wrong, in one sentence.
  type: str
  returned: failure
remedy:
  description: What can be done about it, empty if nothing.
  type: str
  returned: failure
facts:
  description: Details for programs, among them C(cause), why in one word.
  type: dict
  returned: failure
  sample:
    cause: expired
"""

import time

from ansible_collections.crosscluster.migration.plugins.module_utils.face import FaceModule, run
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.spec import parse_duration
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.credential_store import CredentialStore
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.node_certificate import (
    NodeCertificate,
    Wanted,
)


def arguments():
    return {
        "state": {"type": "str", "choices": ["requested", "present", "checked", "absent"], "default": "present"},
        "domain": {"type": "str", "required": True},
        "directory": {"type": "path", "default": "/etc/crosscluster/pki"},
        "name": {"type": "str"},
        "addresses": {"type": "list", "elements": "str", "default": []},
        "certificate": {"type": "str"},
        "ca": {"type": "str"},
        "crl": {"type": "str"},
        "signer": {"type": "str"},
        "renew_before": {"type": "str", "default": "8 h"},
        "must_last": {"type": "str", "default": "4 h"},
    }


def work(given, check_mode):
    wanted = Wanted.parse(given["name"] or "any", given["addresses"])
    node = NodeCertificate(CredentialStore(given["directory"], given["domain"]), wanted, time.time())
    if given["state"] == "requested":
        renew_before = parse_duration(given["renew_before"], "renew_before")
        return node.request(given["signer"] or "", renew_before, check_mode)
    if given["state"] == "checked":
        return node.check(parse_duration(given["must_last"], "must_last"))
    if given["state"] == "absent":
        return node.remove(check_mode)
    return node.install(given["certificate"] or "", given["ca"] or "", given["crl"] or "", check_mode)


def main() -> None:
    module = FaceModule(
        argument_spec=arguments(),
        supports_check_mode=True,
        required_if=[("state", state, ["name"]) for state in ("requested", "present", "checked")],
    )
    run(module, lambda parameters: work(parameters, module.check_mode))


if __name__ == "__main__":
    main()
