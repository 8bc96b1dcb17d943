"""The spool's inbox: what owners put there through the SFTP server, found by looking, never by trusting a name.

`notice.<payload digest>` holds a notice of that owner, `part.<SHA-256>` a sealed part. Files being written end in
`.part` and are not looked at. Names of another form are left alone and counted.
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path

from mpc_ops.envelope.dsse import MAX_ENVELOPE_BYTES
from mpc_ops.errors import ComityError, ConfigError, DeliveryError
from mpc_ops.federation.loaded import read_file
from mpc_ops.notices.signed import parse_notice
from mpc_ops.server.context import Context
from mpc_ops.server.durable import remove_file
from mpc_ops.server.filings import Filings
from mpc_ops.server.notices import NoticeBook, Source

__all__ = ["Intake"]

_NOTICE = re.compile(r"notice\.([0-9a-f]{64})")
_PART = re.compile(r"part\.([0-9a-f]{64})")
_FILES_PER_SCAN = 500


class Intake:
    """Looks into `spool/inbox/<owner>/` of every own owner."""

    def __init__(self, context: Context, book: NoticeBook, filings: Filings) -> None:
        self._context = context
        self._book = book
        self._filings = filings
        self._inbox = context.config.spool / "inbox"
        self._seen: dict[str, set[str]] = {}

    def find(self) -> list[tuple[str, str]]:
        """Return (owner, name) of complete files not looked at yet: notices first, bounded; reads no content."""
        found: list[tuple[str, str]] = []
        for owner in self._owners():
            try:
                names = set(os.listdir(self._inbox / owner))  # noqa: PTH208 - cheaper than Path objects, every 0.2 s
            except OSError:
                continue
            seen = self._seen.setdefault(owner, set())
            seen &= names
            fresh = sorted(name for name in names - seen if _NOTICE.fullmatch(name) or _PART.fullmatch(name))
            found += [(owner, name) for name in fresh]
        return sorted(found, key=lambda item: item[1])[:_FILES_PER_SCAN]

    def _owners(self) -> list[str]:
        return [owner for cluster in self._context.region_clusters() for owner in self._context.owners_of(cluster)]

    def take(self, found: list[tuple[str, str]]) -> None:
        """Take files that `find` returned; inside a unit."""
        for owner, name in found:
            if name.startswith("notice."):
                self._take_notice(owner, name)
            else:
                self._filings.part_arrived(owner, name.removeprefix("part."))
            self._context.afterwards(partial(self._seen.setdefault(owner, set()).add, name))

    def _take_notice(self, owner: str, name: str) -> None:
        path = self._inbox / owner / name
        try:
            data = self._read(path)
            signed = parse_notice(data)
            if signed.digest != name.removeprefix("notice."):
                raise DeliveryError("NOTICE_ALTERED", "a notice's bytes do not fit its name", ids={"owner": owner})
            with self._context.part():
                _, new = self._book.accept(data, Source("spool", owner))
            if not new and signed.kind == "filed":
                self._filings.consider(signed)
        except ComityError as error:
            self._filings.refuse(name.removeprefix("notice."), owner, error)
            self._context.afterwards(partial(remove_file, path))

    def _read(self, path: Path) -> bytes:
        if path.is_symlink() or not path.is_file():
            raise ConfigError("FILE_INVALID", "an inbox entry is not a plain file", ids={"file": path.name})
        return read_file(path, limit_bytes=MAX_ENVELOPE_BYTES)
