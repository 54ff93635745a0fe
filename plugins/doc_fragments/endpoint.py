# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that say where a VM goes and with which token."""

from __future__ import annotations


class ModuleDocFragment:
    """Twin of ``arguments.endpoint``."""

    DOCUMENTATION = r"""
options:
  target:
    description:
      - The node of the other cluster that takes the VM, and how its API is reached.
      - Required unless the VM is not to be moved (V(aborted) where a module has a state).
    type: dict
    suboptions:
      api_host:
        description:
          - Name or address of this very node. The tunnel is not passed on from one node of a cluster to another.
        type: str
        required: true
      api_port:
        description: Port of the API.
        type: int
        default: 8006
      node:
        description: Name of the node within its cluster.
        type: str
        required: true
      vmid:
        description:
          - Number of the VM on the target.
          - V(same) keeps the number, V(pool) takes the first free one of O(target.vmid_pool), or give a number.
        type: str
        default: same
      vmid_pool:
        description: Two numbers with a hyphen, such as V(20000-20999), for O(target.vmid=pool).
        type: str
      api_user:
        description: User of the token with its realm, such as V(migration@pve).
        type: str
        required: true
      api_token_id:
        description: Name of the token, the part behind the exclamation mark.
        type: str
        required: true
      validate_certs:
        description:
          - Whether the certificate must be issued by a known authority and for this name.
          - With O(target.fingerprint) the certificate is pinned, whatever this says.
        type: bool
        default: true
      ca_path:
        description: File with the certificates of the authorities to accept, on the source node.
        type: path
      fingerprint:
        description:
          - SHA-256 fingerprint of the node's certificate, in any spelling (colons, capitals or neither).
          - Compared before the token leaves the source node; a mismatch shows both.
        type: str
  target_api_token_secret:
    description:
      - Secret of the token.
      - Read from the environment variable E(CROSSCLUSTER_TARGET_API_TOKEN_SECRET) if not set.
        M(crosscluster.migration.migration) reads it from the environment of the controller,
        the other modules from that of the node they run on.
      - Required wherever O(target) is.
    type: str
"""
