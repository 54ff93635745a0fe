# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The files of a trust domain on this node, and the node's own ``openssl`` that makes its keys.

Edge file: files and processes. Below the directory of the domain (0700) stand the names that QEMU and the workers open
(direct-transports 6). All of them lead through the one link ``current`` to a directory that holds one complete set, so
a single rename changes all at once: whatever crashes when, key and certificate belong together.

    <domain>/ca-cert.pem -> current/ca-cert.pem ...     <domain>/current -> set-2/     <domain>/request/key.pem
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Dict, Iterator, List, NoReturn, Sequence

from ..errors import Side
from ..proxmox.node_cli import Run, run_command
from .errors import CredentialsUnusable, StoreFailed

__all__ = ["NAMES", "CredentialStore"]

OPENSSL = "openssl"
SIDE = Side.SOURCE  # a node is either in turn; the error must name one
NAMES = (
    "ca-cert.pem", "ca-crl.pem", "server-cert.pem", "server-key.pem", "client-cert.pem", "client-key.pem",
    "dh-params.pem",
)  # fmt: skip
_CURRENT, _REQUEST = "current", "request"
_SET = re.compile(r"set-[0-9]+", re.ASCII)
_DOMAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_PUBLIC_KEY = re.compile(r"-----BEGIN PUBLIC KEY-----(.*?)-----END PUBLIC KEY-----", re.DOTALL)
_SECONDS = 60.0
_UNREADABLE = 1  # the exit status of `openssl pkey` for a key that is none; the shell's for no openssl is 127

# The fields of direct-transports 6.1; name and addresses are checked before they come here.
_REQUEST_SETTINGS = """\
[req]
prompt = no
string_mask = utf8only
distinguished_name = subject
req_extensions = fields
[subject]
CN = {name}
[fields]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature,keyEncipherment
extendedKeyUsage = serverAuth,clientAuth
subjectAltName = {alternatives}
"""


class CredentialStore:
    """One trust domain on this node.

    Args:
        base: Directory of all domains.
        domain: Name of the trust domain.
        run: Runs a command; injected for tests.

    Raises:
        StoreFailed: The directory is not one for keys.
    """

    def __init__(self, base: str, domain: str, run: Run = run_command) -> None:
        if not _DOMAIN.fullmatch(domain):
            _failed(domain, "is not the name of a trust domain", "Use lower-case letters, digits, hyphens.")
        self.directory = Path(base, domain)
        real = os.path.realpath(str(self.directory))
        if not os.path.isabs(base) or real == "/etc/pve" or real.startswith("/etc/pve/"):
            # pmxcfs sends every file to all nodes of the cluster, and keys must never leave theirs.
            _failed(str(self.directory), "is no place for keys", "Give an absolute path that is not below /etc/pve.")
        self._run = run

    # What is there.

    def text(self, name: str) -> str:
        """Content of one of the files; empty when there is none."""
        return _read(self.directory / name)

    def exists(self) -> bool:
        """Whether there is anything that :meth:`remove` would remove."""
        if not self.directory.is_dir():
            return False
        ours = {*NAMES, _CURRENT, _REQUEST, *(path.name for path in self._sets())}
        found = {path.name for path in self.directory.iterdir()}
        return not found or bool(found & ours)

    def faults(self) -> List[str]:
        """Paths that others than their owner may enter or read, or that somebody else owns."""
        kept = [self.directory, self._set, self.directory / _REQUEST]
        kept += [self.directory / name for name in NAMES if name.endswith("-key.pem")]
        kept += [self.directory / _REQUEST / "key.pem"]
        return [str(path) for path in kept if path.exists() and _open_to_others(path.stat())]

    def requested(self, name: str, addresses: Sequence[str]) -> str:
        """The request for these that waits for its certificate; empty when there is none."""
        place = self.directory / _REQUEST
        fits = _read(place / "request.cnf") == _settings(name, addresses)
        return _read(place / "request.pem") if fits else ""

    def public_key(self, which: str) -> bytes:
        """Public half, DER, of the key that is ``requested`` or ``current``; empty when there is none to be read."""
        path = self.directory / (f"{_REQUEST}/key.pem" if which == "requested" else "server-key.pem")
        if not path.exists():
            return b""
        found = _PUBLIC_KEY.search(self._openssl(["pkey", "-in", str(path), "-pubout"], allowed=(0, _UNREADABLE)))
        return base64.b64decode(found[1]) if found else b""

    # What changes something.

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the directory; one at a time works in it."""
        try:
            self.directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700, exist_ok=True)
            handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            _failed(str(self.directory), f"cannot be made: {error.strerror}", "See what stands in its place.")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        except OSError as error:
            _failed(str(error.filename or self.directory), f"cannot be written: {error.strerror}", "Look at the disk.")
        finally:
            os.close(handle)

    def request(self, name: str, addresses: Sequence[str]) -> str:
        """A new key, which stays here, and the request for a certificate; the key in use is not touched."""
        place = self.directory / _REQUEST
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
        settings = place / "request.cnf"
        _write(settings, _settings(name, addresses), 0o600)
        key = place / "key.pem"
        _write(key, self._openssl(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]), 0o600)
        text = self._openssl(["req", "-new", "-sha256", "-key", str(key), "-config", str(settings)])
        _write(place / "request.pem", text, 0o600)
        _sync(place)
        return text

    def prepare(self, texts: Dict[str, str], key_from: str) -> Path:
        """A complete set beside the one in use, for checking; nobody sees it yet.

        Args:
            texts: ``ca-cert.pem``, and where there are such ``ca-crl.pem``, ``server-cert.pem``, ``dh-params.pem``.
            key_from: ``requested``, ``current``, or empty for a set without a certificate.
        """
        place = self.directory / f"set-{1 + max([0, *(int(path.name[4:]) for path in self._sets())])}"
        place.mkdir(mode=0o700)
        for name, text in texts.items():
            _write(place / name, text, 0o600)
        if key_from:
            source = self.directory / (f"{_REQUEST}/key.pem" if key_from == "requested" else "server-key.pem")
            _write(place / "server-key.pem", _read(source), 0o600)
            for name in ("cert", "key"):
                os.symlink(f"server-{name}.pem", place / f"client-{name}.pem")
        _sync(place)
        _sync(self.directory)
        return place

    def discard(self, place: Path) -> None:
        """A prepared set that will not be used."""
        shutil.rmtree(place, ignore_errors=True)

    def switch(self, place: Path, request_used: bool) -> None:
        """The prepared set becomes the one in use, all its files at once; what is no longer needed goes."""
        for name in NAMES:
            link = self.directory / name
            if (place / name).exists():
                _link(link, f"{_CURRENT}/{name}")  # before the switch it leads nowhere, or to the old set
        _link(self.directory / _CURRENT, place.name)
        _sync(self.directory)
        for name in NAMES:
            if not (place / name).exists():
                (self.directory / name).unlink(missing_ok=True)
        if request_used:
            shutil.rmtree(self.directory / _REQUEST, ignore_errors=True)
        for other in self._sets():
            if other.name != place.name:
                shutil.rmtree(other, ignore_errors=True)

    def close_to_others(self) -> None:
        """Modes as they should be; what another user owns is left to its owner and stays a fault."""
        for path in map(Path, self.faults()):
            path.chmod(0o700 if path.is_dir() else 0o600)

    def remove(self) -> bool:
        """Removes what this class made; False when something else stands there too, which is left."""
        for name in (*NAMES, _CURRENT):
            (self.directory / name).unlink(missing_ok=True)
        for place in (*self._sets(), self.directory / _REQUEST):
            shutil.rmtree(place, ignore_errors=True)
        try:
            self.directory.rmdir()
        except OSError:
            return False
        return True

    @property
    def _set(self) -> Path:
        return self.directory / _CURRENT

    def _sets(self) -> List[Path]:
        return [path for path in self.directory.iterdir() if _SET.fullmatch(path.name)]

    def _openssl(self, arguments: Sequence[str], allowed: Sequence[int] = (0,)) -> str:
        """What ``openssl`` writes; its words about a failure are no secret, its output may be."""
        done = self._run([OPENSSL, *arguments], _SECONDS)
        if done.returncode not in allowed:
            words = " ".join(done.stderr.split())[:200]
            _failed(f"openssl {arguments[0]}", f"failed: {words}", "Install openssl on the node.")
        return done.stdout


def _failed(object: str, what: str, remedy: str) -> NoReturn:
    raise StoreFailed(f"{object} {what}", side=SIDE, object=object, remedy=remedy)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        facts = {"cause": "unreadable", "reason": "it cannot be read"}
        raise CredentialsUnusable(f"{path} cannot be read", side=SIDE, object=str(path), facts=facts) from error


def _write(path: Path, text: str, mode: int) -> None:
    """A new file, on the disk when this returns; never readable by others, not even for a moment."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _link(link: Path, target: str) -> None:
    """A symbolic link, replaced by a rename if it leads elsewhere."""
    if link.is_symlink() and os.readlink(link) == target:
        return
    fresh = link.with_name(link.name + ".new")
    fresh.unlink(missing_ok=True)
    os.symlink(target, fresh)
    os.replace(fresh, link)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _settings(name: str, addresses: Sequence[str]) -> str:
    alternatives = ",".join([f"DNS:{name}", *(f"IP:{address}" for address in addresses)])
    return _REQUEST_SETTINGS.format(name=name, alternatives=alternatives)


def _open_to_others(found: os.stat_result) -> bool:
    return bool(stat.S_IMODE(found.st_mode) & 0o077) or found.st_uid != os.geteuid()
