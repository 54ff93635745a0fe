# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API of a cluster as the controller asks it: proxmoxer, with the certificate pinned.

Edge. Knows addresses, tokens and certificates; does not know what a VM is. proxmoxer pins nothing, follows any path
segment and gives up after five seconds (ansible-tooling 11); this file adds what is missing, reads only, and tells
errors apart. Tokens only: with a password proxmoxer logs in before anything could be pinned.
"""

from __future__ import annotations

import re
import warnings
from typing import Any, Dict, Optional, Protocol, Type

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import CrossclusterError, Side
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox import fingerprint
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import (
    ApiError,
    ApiRefused,
    ApiUnreachable,
    FingerprintMismatch,
    ParameterRefused,
    PrivilegeMissing,
    TokenRefused,
    printable,
)

from .clusters import Endpoint
from .errors import CertificateRefused, ClustersInvalid

try:
    import proxmoxer
    import requests
    import urllib3.exceptions
    from requests.adapters import HTTPAdapter

    MISSING: Optional[ImportError] = None
except ImportError as error:  # the message of open_api says what to install
    MISSING = error
    HTTPAdapter = object

__all__ = ["Api", "ProxmoxApi", "open_api"]

TIMEOUT = 20.0  # seconds; a busy node lists its storages in about ten
_SEGMENT = re.compile(r"[A-Za-z0-9_@!:+-][A-Za-z0-9_.@!:+-]*")
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
_BY_STATUS: Dict[int, Type[ApiError]] = {400: ParameterRefused, 401: TokenRefused, 403: PrivilegeMissing}


class Api(Protocol):
    """What the look-up needs of an API."""

    def get(self, *segments: str, **parameters: Any) -> Any:
        """The ``data`` of a GET request."""


class PinnedAdapter(HTTPAdapter):
    """Connects only to a server with this very certificate; a wrong one never sees the token."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As its parent, with the fingerprint."""
        super().init_poolmanager(*args, assert_fingerprint=self._fingerprint, **kwargs)


class ProxmoxApi:
    """One API address, read only."""

    def __init__(self, api: Any, endpoint: Endpoint, side: Side) -> None:
        self._api = api
        self._endpoint = endpoint
        self._side = side

    def get(self, *segments: str, **parameters: Any) -> Any:
        """The ``data`` of a GET request.

        Raises:
            FingerprintMismatch: FINGERPRINT_MISMATCH, the token was not sent.
            CertificateRefused: CERTIFICATE_REFUSED, the token was not sent.
            ApiError: TOKEN_REFUSED, PRIVILEGE_MISSING, PARAMETER_REFUSED, API_REFUSED.
            ApiUnreachable: API_UNREACHABLE.
        """
        for segment in segments:
            # ansible-tooling 11: segments are not escaped, "n1/../../x" would ask for something else.
            if not _SEGMENT.fullmatch(segment):
                raise ClustersInvalid(
                    f"{segment!r} cannot be part of an API path", side=Side.CONTROLLER, object="API path"
                )
        path = "/" + "/".join(segments)
        try:
            with warnings.catch_warnings():
                # An unverified but pinned certificate is not insecure.
                warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
                return self._api(path).get(**parameters)
        except proxmoxer.ResourceException as error:
            raise self._refused(path, int(error.status_code), str(error.content or error.status_message)) from None
        except proxmoxer.AuthenticationError:
            raise self._refused(path, 401, "authentication failed") from None
        except requests.exceptions.SSLError as error:
            raise self._certificate(str(error)) from None
        except requests.exceptions.RequestException as error:
            raise self._on_side(
                ApiUnreachable(
                    f"{self._where} did not answer: {type(error).__name__}",
                    object=self._where,
                    remedy="Check the address, the port and the way from the controller.",
                )
            ) from None

    @property
    def _where(self) -> str:
        return f"{self._endpoint.host}:{self._endpoint.port}"

    def _on_side(self, error: CrossclusterError) -> CrossclusterError:
        error.side = self._side
        return error

    def _refused(self, path: str, status: int, content: str) -> CrossclusterError:
        kind: Type[ApiError] = _BY_STATUS.get(status, ApiRefused)
        return self._on_side(
            kind(
                f"{self._where} answered {path} with {status}: {printable(content)}",
                object=f"token {self._endpoint.user}!{self._endpoint.token_id}",
                remedy="Check the token and its secret." if status == 401 else "",
                status=status,
            )
        )

    def _certificate(self, reason: str) -> CrossclusterError:
        if self._endpoint.fingerprint and "ingerprint" in reason:
            found = _SHA256.findall(reason.lower().replace(":", ""))
            pinned = fingerprint.normalise(self._endpoint.fingerprint)
            shown = next((fingerprint.show(digits) for digits in found if digits != pinned), "another one")
            return FingerprintMismatch(
                f"{self._where} shows the certificate {shown}, pinned is {fingerprint.show(pinned)}",
                side=self._side,
                object=self._where,
                remedy="If the certificate was renewed on purpose, declare the new fingerprint.",
            )
        return CertificateRefused(
            f"the certificate of {self._where} is not trusted",
            side=self._side,
            object=self._where,
            remedy="Declare its fingerprint, or the ca_path of the authority that issued it.",
        )


def open_api(endpoint: Endpoint, secret: Optional[str], side: Side) -> ProxmoxApi:
    """An API that has not been asked anything yet: nothing is sent here.

    Raises:
        ClustersInvalid: a library or the secret is missing.
        EndpointInvalid: ENDPOINT_INVALID, the fingerprint is none.
    """
    if MISSING is not None:
        raise ClustersInvalid(
            f"a Python library is missing on the controller: {MISSING.name}",
            side=Side.CONTROLLER,
            object="controller",
            remedy="Install what meta/ee-requirements.txt of the collection lists.",
        )
    if not secret:
        raise ClustersInvalid(
            "the secret of the API token is missing",
            side=Side.CONTROLLER,
            object=f"token {endpoint.user}!{endpoint.token_id}",
            remedy="Set api_token_secret in crosscluster_clusters, best from a vault.",
        )
    pin = fingerprint.normalise(endpoint.fingerprint) if endpoint.fingerprint else None
    # mtunnel-protocol 1.5: a pin replaces the chain of authorities, here as in the worker (Endpoint.tls_context).
    verify: Any = False if pin else endpoint.ca_path or endpoint.validate_certs
    api = proxmoxer.ProxmoxAPI(
        _bracketed(endpoint.host),
        port=endpoint.port,
        user=endpoint.user,
        token_name=endpoint.token_id,
        token_value=secret,
        verify_ssl=verify,
        timeout=TIMEOUT,
    )
    if pin:
        # _store is private to proxmoxer; a unit test notices when it changes.
        api._store["session"].mount("https://", PinnedAdapter(pin))
    return ProxmoxApi(api, endpoint, side)


def _bracketed(host: str) -> str:
    """IPv6 addresses in brackets, as an URL wants them."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
