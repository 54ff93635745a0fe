# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameter schemas of the REST methods and of the tunnel's commands, with the real texts (mtunnel-protocol 4.2, 9)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from lab.node.base import ParamError
from lab.node.texts import MISSING, UNDEFINED

from .perl_json import scalar, type_name

__all__ = ["Field", "array", "boolean", "check", "enum", "integer", "obj", "string"]

Errors = Dict[str, str]
TRUE = ("1", "on", "yes", "true")
FALSE = ("0", "off", "no", "false")


@dataclass(frozen=True)
class Field:
    """One property: its type, whether it may be absent, and what its value must look like."""

    type: str
    optional: bool = False
    minimum: Optional[float] = None
    maximum: Optional[float] = None
    choices: Sequence[str] = ()
    format: str = ""
    properties: Mapping[str, "Field"] = field(default_factory=dict)
    additional: bool = True
    default: Any = None


def integer(**options: Any) -> Field:
    """A whole number; text of digits passes and stays text."""
    return Field("integer", **options)


def boolean(**options: Any) -> Field:
    """A truth value in any of the accepted spellings."""
    return Field("boolean", **options)


def string(**options: Any) -> Field:
    """Text."""
    return Field("string", **options)


def enum(*choices: str, **options: Any) -> Field:
    """One of a closed set of words."""
    return Field("string", choices=choices, **options)


def array(**options: Any) -> Field:
    """A JSON array; elements are not looked at."""
    return Field("array", **options)


def obj(properties: Mapping[str, Field], additional: bool, **options: Any) -> Field:
    """A JSON object."""
    return Field("object", properties=properties, additional=additional, **options)


def _vmid(text: str) -> Optional[str]:
    if re.fullmatch(r"[1-9][0-9]{2,8}", text):
        return None
    return "invalid format - value does not look like a valid VM ID\n"


def _node(text: str) -> Optional[str]:
    if re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?", text):
        return None
    return "invalid format - value does not look like a valid node name\n"


def _storage(text: str) -> Optional[str]:
    if len(text) < 2:
        return "invalid format - storage ID '%s' cannot be shorter than 2 characters\n" % text
    if re.fullmatch(r"[a-zA-Z][a-zA-Z0-9._-]*[a-zA-Z0-9]", text):
        return None
    return "invalid format - storage ID '%s' contains illegal characters\n" % text


def _storage_list(text: str) -> Optional[str]:
    for name in re.split(r"[,;\s\0]+", text):
        if name:
            refused = _storage(name)
            if refused:
                return refused
    return None


def _bridge_list(text: str) -> Optional[str]:
    return None


def _cidr(text: str) -> Optional[str]:
    try:
        ipaddress.ip_network(text, strict=False)
        if "/" in text:
            return None
    except ValueError:
        pass
    return "invalid format - value does not look like a valid CIDR network\n"


def _machine(text: str) -> Optional[str]:
    kind = text.split(",")[0]
    kind = kind[5:] if kind.startswith("type=") else kind
    if re.fullmatch(r"(pc|q35|virt|pc-(i440fx|q35)-\d+(\.\d+)+(\+pve\d+)?(\.pxe)?|virt-\d+(\.\d+)+(\+pve\d+)?)", kind):
        return None
    return "invalid format - format error\n%s.type: value does not match the regex pattern\n"


def _hex(text: str) -> Optional[str]:
    return None if re.fullmatch(r"[a-fA-F0-9]+", text) else "value does not match the regex pattern"


FORMATS: Dict[str, Callable[[str], Optional[str]]] = {
    "vmid": _vmid,
    "node": _node,
    "storage": _storage,
    "storage-list": _storage_list,
    "bridge-list": _bridge_list,
    "cidr": _cidr,
    "machine": _machine,
    "hex": _hex,
}


def check(
    properties: Mapping[str, Field], given: Mapping[str, Any], additional: bool = False, json_values: bool = False
) -> Dict[str, Any]:
    """The parameters with their types applied, or ParamError naming every bad key.

    ``json_values``: values come from a JSON line of the tunnel; there null counts as absent and numbers keep the type
    they came with. Otherwise they are form texts and numbers are converted.
    """
    errors: Errors = {}
    result = _check_object(properties, given, additional, "", errors, json_values)
    if errors:
        raise ParamError(errors)
    return result


def _check_object(
    properties: Mapping[str, Field], given: Mapping[str, Any], additional: bool, prefix: str, errors: Errors, raw: bool
) -> Dict[str, Any]:
    result: Dict[str, Any] = {}
    for key in sorted(set(given) - set(properties)):
        if not additional:
            errors[prefix + key] = UNDEFINED
        else:
            result[key] = given[key]
    for key, want in properties.items():
        value = given.get(key)
        if value is None:
            if not want.optional:
                errors[prefix + key] = MISSING
            elif want.default is not None:
                result[key] = want.default
            continue
        result[key] = _check_value(want, value, prefix + key, errors, raw)
    return result


def _check_value(want: Field, value: Any, path: str, errors: Errors, raw: bool) -> Any:
    if want.type == "object":
        if not isinstance(value, dict):
            errors[path] = "type check ('object') failed"
            return value
        return _check_object(want.properties, value, want.additional, path + ".", errors, raw)
    if want.type == "array":
        if not isinstance(value, list):
            errors[path] = "type check ('array') failed"
        return value
    text = scalar(value)
    refused = _refusal(want, value, text, path, raw)
    if refused:
        errors[path] = refused
        return value
    return value if raw and want.type in ("integer", "number") else _typed(want, text)


def _refusal(want: Field, value: Any, text: str, path: str, raw: bool) -> Optional[str]:
    failed = "type check ('%s') failed - got '%s'" % (want.type, text)
    if isinstance(value, (dict, list)) or (raw and isinstance(value, bool) and want.type != "boolean"):
        return "type check ('%s') failed - got %s" % (want.type, type_name(value))
    # a line of the tunnel knows only these two spellings (mtunnel-protocol 4.2)
    if want.type == "boolean" and text.lower() not in (("1", "0") if raw else TRUE + FALSE):
        return failed
    if want.type == "integer" and not re.fullmatch(r"[+-]?\d+", text):
        return failed
    if want.type == "number" and not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        return failed
    if want.type in ("integer", "number"):
        return _range_refusal(want, float(text))
    if want.choices and text not in want.choices:
        return "value '%s' does not have a value in the enumeration '%s'" % (text, ", ".join(want.choices))
    if want.format:
        refused = FORMATS[want.format](text)
        return refused.replace("%s", path) if refused else None
    return None


def _range_refusal(want: Field, number: float) -> Optional[str]:
    if want.minimum is not None and number < want.minimum:
        return "value must have a minimum value of %d" % want.minimum
    if want.maximum is not None and number > want.maximum:
        return "value must have a maximum value of %d" % want.maximum
    return None


def _typed(want: Field, text: str) -> Any:
    if want.type == "boolean":
        return text.lower() in TRUE
    if want.type == "integer":
        return int(text)
    if want.type == "number":
        return float(text)
    return text


def split_list(text: Optional[str]) -> List[str]:
    """Members of one of Proxmox's list values."""
    return [part for part in re.split(r"[,;\s\0]+", text or "") if part]
