"""What every part of the operator process works with: who it is, its journal, its clock, and how it speaks.

All parts run in one thread. `unit` is one event: state, ledger and messages are on disk when it ends, and only then do
messages and files go out.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol, TextIO

from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.envelope.sealing import SealingKey
from mpc_ops.errors import ConfigError
from mpc_ops.federation.loaded import Federation
from mpc_ops.notices.signed import utc_text
from mpc_ops.server.config import OperatorConfig
from mpc_ops.server.store import Store

__all__ = ["Context", "EventLog", "Post", "moment"]


def moment(text: str) -> datetime:
    """Return the aware moment of `YYYY-MM-DDTHH:MM:SSZ`."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


class Post(Protocol):
    """Best-effort delivery to peers; the state machines repeat what gets lost."""

    def up(self, peer: str) -> bool:
        """Return whether there is a link to `peer` now."""

    def post(self, peer: str, kind: int, payload: bytes) -> None:
        """Queue one message; dropped where there is no link."""


class EventLog:
    """One JSON object per line: ids, codes and counts, never values, keys or shares."""

    def __init__(self, operator: str, stream: TextIO | None = None) -> None:
        self._operator = operator
        self._stream = stream or sys.stderr

    def __call__(self, event: str, **ids: object) -> None:
        """Write one line."""
        line = {"at": datetime.now(tz=UTC).isoformat(timespec="milliseconds"), "operator": self._operator}
        line |= {"event": event} | {name: str(value) for name, value in ids.items() if value is not None}
        with contextlib.suppress(OSError):  # a log that can't be written, on a full disk say, stops nobody
            print(json.dumps(line, ensure_ascii=True), file=self._stream, flush=True)


@dataclass
class Context:
    """See the module's text.

    Attributes:
        sealing: HPKE key of the directory entry: crossings to a group operator are sealed to it.
        boot: boot counter of this start.
        utc: returns the present moment; replaced in tests.
        at_end: called after every unit.
    """

    config: OperatorConfig
    federation: Federation
    identity: IdentityKey
    sealing: SealingKey
    store: Store
    boot: int
    post: Post
    log: EventLog
    utc: Callable[[], datetime] = field(default=lambda: datetime.now(tz=UTC))
    at_end: list[Callable[[], None]] = field(default_factory=list)
    _messages: list[tuple[str, int, bytes]] = field(default_factory=list)
    _afterwards: list[Callable[[], object]] = field(default_factory=list)
    _undone: deque[Callable[[], object]] = field(default_factory=deque)

    @property
    def id(self) -> str:
        """Own operator id."""
        return self.config.id

    @property
    def now(self) -> str:
        """The present as `YYYY-MM-DDTHH:MM:SSZ`."""
        return utc_text(self.utc())

    def later(self, seconds: float) -> str:
        """The moment in `seconds` from now."""
        return utc_text(self.utc() + timedelta(seconds=seconds))

    @property
    def clusters(self) -> dict[str, int]:
        """{cluster: own position}."""
        return self.federation.clusters_of(self.id)

    def region_clusters(self) -> dict[str, int]:
        """{region cluster: own position}."""
        terms = self.federation.terms
        return {name: at for name, at in self.clusters.items() if terms.clusters[name].kind == "region"}

    def group_clusters(self) -> dict[str, int]:
        """{group cluster: own position}."""
        terms = self.federation.terms
        return {name: at for name, at in self.clusters.items() if terms.clusters[name].kind == "group"}

    def owners_of(self, cluster: str) -> list[str]:
        """Owners whose region is served by `cluster`."""
        regions = {name for name, region in self.federation.terms.regions.items() if region.cluster == cluster}
        return sorted(name for name, owner in self.federation.owners.items() if owner.region in regions)

    def cluster_of(self, owner: str) -> str:
        """Region cluster of an owner; ConfigError PARTY_UNKNOWN, or PARTY_FOREIGN if it is not one of ours."""
        cluster = self.federation.region_of(owner)[1].cluster
        if cluster not in self.clusters:
            raise ConfigError("PARTY_FOREIGN", "the owner files with another region's operators", ids={"owner": owner})
        return cluster

    def send(self, peer: str, kind: int, payload: bytes) -> None:
        """Send when the unit is durable; dropped if there is no link then."""
        self._messages.append((peer, kind, payload))

    def afterwards(self, work: Callable[[], object]) -> None:
        """Do `work` (idempotent, repeated at start-up) when the unit is durable."""
        self._afterwards.append(work)

    def write_files(self, work: Callable[[], object]) -> None:
        """Do `work` on files outside the journal (idempotent) now; where the volume refuses it, when it has room again."""
        self._undone.append(work)
        if len(self._undone) == 1:
            self.write_files_again()

    def write_files_again(self) -> None:
        """Do what a full volume refused, in its order, as far as it goes now."""
        while self._undone:
            try:
                self._undone[0]()
            except OSError as error:
                why = os.strerror(error.errno) if error.errno else "not written"
                self.log("disk_full", at_event="files", code="DISK_FULL", why=why, waiting=len(self._undone))
                return
            self._undone.popleft()

    @contextmanager
    def part(self) -> Iterator[None]:
        """A part of a unit that may fail alone: an exception undoes what it wrote and what it would have sent."""
        messages, afterwards = len(self._messages), len(self._afterwards)
        try:
            with self.store.part():
                yield
        except BaseException:
            del self._messages[messages:], self._afterwards[afterwards:]
            raise

    @contextmanager
    def unit(self) -> Iterator[None]:
        """One event, durable as a whole before anything leaves this process."""
        self._messages, self._afterwards = [], []
        with self.store.unit():
            yield
        messages, afterwards = self._messages, self._afterwards
        self._messages, self._afterwards = [], []
        for work in afterwards:
            self.write_files(work)
        for peer, kind, payload in messages:
            self.post.post(peer, kind, payload)
        for flush in self.at_end:
            flush()
