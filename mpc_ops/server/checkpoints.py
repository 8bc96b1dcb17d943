"""Checkpoints of one run on this operator's disk: encrypted at rest, durable before they count. No report takes any yet; `erase` ends them."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mpc_ops.envelope.secrets import read_secret, write_secret
from mpc_ops.errors import LocalProtocolError
from mpc_ops.randomness import encode_context
from mpc_ops.server.durable import remove_file

__all__ = ["MAX_CHECKPOINT_BYTES", "FileKeeper", "checkpoint_key"]

MAX_CHECKPOINT_BYTES = 1 << 30
"""AES-GCM seals a checkpoint in one piece."""
_KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_NAME = re.compile(r"([1-9][0-9]?)\.checkpoint\Z")


def checkpoint_key(path: Path) -> bytes:
    """Return this operator's key for checkpoints; made at the first call, mode 0600.

    Raises:
        ConfigError: SECRET_PERMISSIONS, SECRET_MISSING as `read_secret`.
    """
    if not path.exists():
        write_secret(path, secrets.token_bytes(_KEY_BYTES))
    return read_secret(path, limit_bytes=_KEY_BYTES)


class FileKeeper:
    """A `mpc_ops.protocol.core.checkpoint.Keeper` in a folder of its own.

    Args:
        folder: the run's folder; made when something is saved.
        key: `checkpoint_key`.
        run: run id.
        cluster: the cluster; an operator can sit in two.
    """

    def __init__(self, folder: Path, key: bytes, *, run: str, cluster: str) -> None:
        self._folder, self._cipher = folder, AESGCM(key)
        self._run, self._cluster = run, cluster

    def numbers(self) -> Sequence[int]:
        """Return the numbers of the checkpoints that are there; drafts of a crash do not count."""
        if not self._folder.is_dir():
            return []
        found = (_NAME.match(path.name) for path in self._folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def save(self, number: int, data: bytes) -> None:
        """Store a checkpoint; durable when this returns.

        Raises:
            LocalProtocolError: CHECKPOINT_TOO_LARGE.
        """
        if len(data) > MAX_CHECKPOINT_BYTES:
            raise LocalProtocolError(
                "CHECKPOINT_TOO_LARGE",
                "a step gives more than one checkpoint can hold",
                expected=f"at most {MAX_CHECKPOINT_BYTES} bytes",
                got=f"{len(data)} bytes",
                ids=self._ids(number),
            )
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        path = self._path(number)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(nonce)
            file.write(self._cipher.encrypt(nonce, data, self._context(number)))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        self._sync()

    def read(self, number: int) -> bytes:
        """Return a checkpoint.

        Raises:
            LocalProtocolError: CHECKPOINT_INVALID if it is gone, was altered, or is of another run, cluster or step.
        """
        path = self._path(number)
        try:
            with path.open("rb") as file:
                sealed = file.read(MAX_CHECKPOINT_BYTES + _NONCE_BYTES + _TAG_BYTES + 1)
            if len(sealed) > MAX_CHECKPOINT_BYTES + _NONCE_BYTES + _TAG_BYTES:
                raise self._invalid(number)
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self._context(number))
        except (InvalidTag, ValueError, OSError):
            raise self._invalid(number) from None

    def drop(self, number: int) -> None:
        """Delete a checkpoint; gone for good when this returns."""
        if remove_file(self._path(number)):
            self._sync()

    def erase(self) -> None:
        """Delete all checkpoints of the run, drafts too."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                remove_file(path)
            self._folder.rmdir()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.checkpoint"

    def _context(self, number: int) -> bytes:
        return encode_context("comity/checkpoint-file/v1", self._run, self._cluster, number)

    def _sync(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _ids(self, number: int) -> dict[str, object]:
        return {"run": self._run[:12], "cluster": self._cluster, "checkpoint": number}

    def _invalid(self, number: int) -> LocalProtocolError:
        return LocalProtocolError(
            "CHECKPOINT_INVALID",
            "a checkpoint on disk is gone or was altered",
            ids=self._ids(number),
            hint="Delete this run's checkpoints at all three operators; it then starts from the owners' parts",
        )

    def __repr__(self) -> str:
        return f"FileKeeper(run={self._run[:12]}, cluster={self._cluster})"
