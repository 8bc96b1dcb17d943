"""The owner's mirror of notices: what its operators' outboxes showed, each verified here, kept in state.

Three operators relay everything that concerns an owner, and any one of them suffices: a relay can withhold, but not
change or invent. What does not verify is left out, so that one operator cannot stop an owner with junk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from local_stores.config import OwnerHome, State
from local_stores.errors import ComityError, ConfigError, PeerProtocolError, TransportError
from mpc_ops.federation.loaded import Federation
from mpc_ops.ids import Digest, check_digest
from mpc_ops.notices.model import NOTICE_KINDS
from mpc_ops.notices.signed import SignedNotice, parse_notice, verify_notice

if TYPE_CHECKING:
    import paramiko

__all__ = ["MIRRORED", "Mirror", "OpenSftp", "directory_sftp", "sync"]

T = TypeVar("T")
OpenSftp = Callable[[str], AbstractContextManager["paramiko.SFTPClient"]]
"""Opens the owner's drop-box at an operator."""

MIRRORED = (
    "release", "reference", "period_key", "receipt", "rejected", "manifest", "cancel", "reopen", "state", "statement", "erased",
    "ack", "outcome", "filed",
)  # fmt: skip
_LIMIT_BYTES = 64 << 20


class Mirror:
    """Verified notices of one owner.

    Args:
        state: the site's state; notices lie under `notices/<owner>/<kind>/<digest>.dsse`.
        federation: verifies them.
        owner: whose mirror.
    """

    def __init__(self, state: State, federation: Federation, owner: str) -> None:
        self._state = state
        self._federation = federation
        self._folder = f"notices/{owner}"

    def known(self, kind: str) -> set[str]:
        """Return the file names of a kind."""
        return set(self._state.names(f"{self._folder}/{kind}"))

    def add(self, data: bytes) -> SignedNotice:
        """Verify a notice and keep it; raises what `parse_notice` and `verify_notice` raise."""
        signed = verify_notice(parse_notice(data), self._federation)
        self._state.write(f"{self._folder}/{signed.kind}/{signed.digest}.dsse", signed.envelope.to_bytes())
        return signed

    def notices(self, kind: str) -> list[SignedNotice]:
        """Return all kept notices of a kind that verify against the present federation, in order of their digests."""
        found = []
        for name in self._state.names(f"{self._folder}/{kind}"):
            data = self._state.read(f"{self._folder}/{kind}/{name}", limit_bytes=_LIMIT_BYTES)
            signed = None if data is None else _verified(data, self._federation)
            if signed is not None and signed.kind == kind:
                found.append(signed)
        return found

    def of(self, kind: type[T]) -> Iterator[tuple[Digest, T]]:
        """Yield (digest, notice) of every kept notice of a class."""
        tag = next(name for name, known in NOTICE_KINDS.items() if known is kind)
        for signed in self.notices(tag):
            yield Digest(signed.digest), signed.expect(kind)


class _Key:
    """Federations are compared by digests, so that verified notices are remembered while nothing changes."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self._facts = (federation.digest, federation.membership_digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other._facts == self._facts

    def __hash__(self) -> int:
        return hash(self._facts)


def _verified(data: bytes, federation: Federation) -> SignedNotice | None:
    return _verified_once(data, _Key(federation))


@lru_cache(maxsize=4096)
def _verified_once(data: bytes, key: _Key) -> SignedNotice | None:
    try:
        return verify_notice(parse_notice(data), key.federation)
    except ComityError:
        return None


def directory_sftp(federation: Federation, home: OwnerHome) -> OpenSftp:
    """Return an opener that takes endpoint and host keys from the directory and the key from the owner's home."""

    def opener(operator: str) -> AbstractContextManager[paramiko.SFTPClient]:
        from local_stores.delivery.sftp import SftpEndpoint, connect  # noqa: PLC0415 - paramiko, only where used

        entry = federation.entry(operator)
        host, _, port = (entry.sftp or "").rpartition(":")
        if not host or not port.isdigit() or not entry.ssh_host_keys:
            raise ConfigError(
                "DIRECTORY_MISSING", "the directory names no SFTP server and host key", ids={"party": operator}
            )
        endpoint = SftpEndpoint(operator, host.strip("[]"), int(port))
        return connect(endpoint, home.id, home.ssh_key_path, entry.ssh_host_keys)

    return opener


def sync(
    mirror: Mirror,
    operators: Iterable[str],
    open_sftp: OpenSftp,
    *,
    kinds: Iterable[str] = MIRRORED,
    enough: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Fetch new notices from the operators' outboxes, one operator after another until there is enough.

    Args:
        mirror: where verified notices go.
        operators: the owner's region operators.
        open_sftp: opens the owner's drop-box at one of them.
        kinds: which folders of the outbox.
        enough: asked before every operator but the first; True ends it.

    Returns:
        The operators that answered.

    Raises:
        TransportError: the last operator's, if none answered.
    """
    answered: list[str] = []
    failure: TransportError | None = None
    wanted = list(kinds)
    for operator in operators:
        if answered and enough():
            break
        try:
            with open_sftp(operator) as session:
                for kind in wanted:
                    _fetch(mirror, session, kind, operator)
        except TransportError as error:
            failure = error
        except PeerProtocolError as error:
            # An outbox that is no outbox is one relay less; the others serve.
            failure = TransportError(error.code, error.what, ids=error.ids)
        else:
            answered.append(operator)
    if not answered and failure is not None:
        raise failure
    return answered


def _fetch(mirror: Mirror, session: paramiko.SFTPClient, kind: str, operator: str) -> None:
    from local_stores.delivery.sftp import fetch_new  # noqa: PLC0415 - paramiko, only where used

    known = mirror.known(kind)
    while files := fetch_new(session, kind, known, _LIMIT_BYTES, party=operator):
        for name, data in files:
            known.add(name)
            try:
                check_digest(name.removesuffix(".dsse"), "name")
                signed = parse_notice(data)
                if (f"{signed.digest}.dsse", signed.kind) == (name, kind):
                    mirror.add(data)
            except ComityError:
                continue
