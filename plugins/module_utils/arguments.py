# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: may change at any time.
"""The groups of options that several modules share, and the rules between options.

Knows names, types and defaults. Does not know what an option leads to: the meaning of a value (does this text name a
rate, is this VMID free) is checked by the rooms. Every group has a twin of the same name in ``doc_fragments/``; a unit
test compares the two. Used by modules, by the action plugin on the controller, and by nothing else.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from ansible.module_utils.basic import env_fallback

__all__ = [
    "ABORTED",
    "COMPLETED",
    "INCOMING_KEY",
    "SECRET",
    "TRANSPORTS",
    "broken_rule",
    "endpoint",
    "identity",
    "mapping",
    "migration_arguments",
    "milestone_arguments",
    "source",
    "transport",
    "waiting",
    "wrong_shape",
]

ArgumentSpec = Dict[str, Any]

COMPLETED = "completed"
ABORTED = "aborted"
TRANSPORTS = ("websocket", "tls", "tcp", "qemu-tls", "qemu-tcp")
SECRET = "target_api_token_secret"
INCOMING_KEY = "incoming_key"
SECRET_ENVIRONMENT = "CROSSCLUSTER_TARGET_API_TOKEN_SECRET"


def source() -> ArgumentSpec:
    """The VM on the source node."""
    return {
        "source": {
            "type": "dict",
            "required": True,
            "options": {"vmid": {"type": "int", "required": True}, "uuid": {"type": "str"}},
        }
    }


def identity() -> ArgumentSpec:
    """A VM or a migration, for those who only look."""
    return {
        "source": {"type": "dict", "options": {"vmid": {"type": "int"}, "uuid": {"type": "str"}}},
        "migration_id": {"type": "str"},
    }


def endpoint() -> ArgumentSpec:
    """The node of the other cluster and the token for it; the secret is flat because sub-options leak on misuse."""
    return {
        "target": {
            "type": "dict",
            "options": {
                "api_host": {"type": "str", "required": True},
                "api_port": {"type": "int", "default": 8006},
                "node": {"type": "str", "required": True},
                "vmid": {"type": "str", "default": "same"},
                "vmid_pool": {"type": "str"},
                "api_user": {"type": "str", "required": True},
                "api_token_id": {"type": "str", "required": True, "no_log": False},
                "validate_certs": {"type": "bool", "default": True},
                "ca_path": {"type": "path"},
                "fingerprint": {"type": "str"},
            },
        },
        SECRET: {"type": "str", "no_log": True, "fallback": (env_fallback, [SECRET_ENVIRONMENT])},
    }


def mapping() -> ArgumentSpec:
    """Which disk goes to which storage, which NIC to which bridge, and whether a stopped VM may be moved."""
    return {
        "disks": {"type": "dict", "default": {}},
        "nics": {"type": "dict", "default": {}},
        "offline": {"type": "bool", "default": False},
    }


def transport() -> ArgumentSpec:
    """How the bytes travel."""
    return {
        "transports": {"type": "list", "elements": "str", "choices": list(TRANSPORTS), "default": ["websocket"]},
        "incoming": {
            "type": "dict",
            "options": {
                "migration_id": {"type": "str"},
                "address": {"type": "str"},
                "port": {"type": "int"},
                "peer_name": {"type": "str"},
                "own_name": {"type": "str"},
                "planes": {"type": "list", "elements": "str", "choices": ["tls", "tcp"], "default": []},
                "own_address": {"type": "str"},
                "domain": {"type": "str"},
                "rejected": {"type": "dict", "default": {}},
                "limits": {"type": "dict", "default": {}},
                "network": {"type": "dict", "default": {}},
            },
        },
        "clear_text": {"type": "dict", "options": {"accepted_by": {"type": "str"}, "until": {"type": "str"}}},
        INCOMING_KEY: {"type": "str", "no_log": True},
    }


def waiting() -> ArgumentSpec:
    """Limits, and how long a migration waits for whom."""
    return {
        "limits": {
            "type": "dict",
            "options": {"bandwidth": {"type": "str"}, "downtime": {"type": "str"}, "deadline": {"type": "str"}},
        },
        "on_controller_loss": {"type": "str", "choices": ["rollback", "continue"], "default": "rollback"},
        "controller_timeout": {"type": "str", "default": "120 s"},
        "reservation_timeout": {"type": "str", "default": "30 min"},
    }


def milestone_arguments() -> ArgumentSpec:
    """All options of ``tunnel``, ``target_disk`` and ``target_vm``: one spec, so the same words everywhere."""
    spec: ArgumentSpec = {}
    for group in (source, endpoint, mapping, transport, waiting):
        spec.update(group())
    return spec


def migration_arguments() -> ArgumentSpec:
    """All options of ``migration``."""
    spec = milestone_arguments()
    spec["state"] = {"type": "str", "choices": [COMPLETED, ABORTED], "default": COMPLETED}
    spec["wait"] = {"type": "bool", "default": True}
    # Names one run of the play, opens nothing: whoever could use it is root on the node already.
    spec["lease"] = {"type": "str", "no_log": False}
    spec["forward"] = {"type": "bool", "default": False}
    return spec


def broken_rule(parameters: Mapping[str, Any]) -> Optional[str]:
    """The first rule between options that validated parameters break, as one sentence, or None.

    Rules that an argument spec cannot say: what C(state), C(lease) and C(forward) make necessary.
    """
    if parameters.get("state") == ABORTED or parameters.get("lease") or parameters.get("forward"):
        return None
    for name in ("target", SECRET):
        if not parameters.get(name):
            hint = f" (or the environment variable {SECRET_ENVIRONMENT})" if name == SECRET else ""
            return f"option {name} is required{hint}"
    if parameters.get("wait") is False and parameters.get("on_controller_loss") != "continue":
        return "wait: false needs on_controller_loss: continue, because nobody would renew the lease of this run"
    return _misshapen_mapping(parameters)


def wrong_shape(spec: Mapping[str, Any], arguments: Mapping[str, Any]) -> Optional[str]:
    """The first option that is unknown or no dictionary where one is wanted; its value is never named.

    Called before any validator sees the arguments: a token given where a dictionary belongs would otherwise be
    returned in the clear (ansible-tooling 6).
    """
    for name in arguments:
        if name not in spec:
            return f"unknown option {name}; known are {', '.join(sorted(spec))}"
    for name, option in spec.items():
        value = arguments.get(name)
        if option["type"] == "dict" and value is not None and not isinstance(value, Mapping):
            return f"option {name} must be a dictionary, not {_kind(value)}"
        if option["type"] == "str" and isinstance(value, (Mapping, list, tuple)):
            return f"option {name} must be text, not {_kind(value)}"
        inner = wrong_shape(option["options"], value) if isinstance(value, Mapping) and "options" in option else None
        if inner:
            return f"{inner}, in option {name}"
    return None


def _kind(value: object) -> str:
    """What a user would call a value of this type."""
    if isinstance(value, Mapping):
        return "a dictionary"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "text" if isinstance(value, str) else "a single value"


_ENTRY_KEYS = {"disks": ("storage", {"storage", "format"}), "nics": ("bridge", {"bridge", "tag", "firewall"})}


def _misshapen_mapping(parameters: Mapping[str, Any]) -> Optional[str]:
    """The first entry of ``disks`` or ``nics`` that is neither a name nor a dictionary with the known keys."""
    for name, (leading, known) in _ENTRY_KEYS.items():
        for key, entry in (parameters.get(name) or {}).items():
            if isinstance(entry, str) and entry:
                continue
            if not isinstance(entry, Mapping) or not entry.get(leading):
                return f"{name}.{key} must be the name of a {leading}, or a dictionary with {leading}"
            unknown = sorted(set(entry) - known)
            if unknown:
                return f"unknown key {unknown[0]} in {name}.{key}; known are {', '.join(sorted(known))}"
    return None
