"""One operator without sockets: events in, durable changes, messages out. `app` gives it links, spool timer and API.

Tests drive it with in-memory links; every method is one event and runs in the caller's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.envelope.sealing import SealingKey
from mpc_ops.errors import ComityError, ConfigError, PeerProtocolError
from mpc_ops.federation.loaded import Federation
from mpc_ops.federation.model import PayloadClass
from mpc_ops.server.accounts import Accounts
from mpc_ops.server.admission import Admissions
from mpc_ops.server.books import Books
from mpc_ops.server.config import OperatorConfig
from mpc_ops.server.context import Context, EventLog, Post
from mpc_ops.server.filings import Filings
from mpc_ops.server.intake import Intake
from mpc_ops.server.notices import NoticeBook
from mpc_ops.server.outbox import Outbox
from mpc_ops.server.peers import Peers
from mpc_ops.server.periods import Periods
from mpc_ops.server.reports import Reports
from mpc_ops.server.runs import Runs
from mpc_ops.server.sessions import Sessions
from mpc_ops.server.stage_group import GroupStages
from mpc_ops.server.stage_region import RegionStages
from mpc_ops.server.store import DiskFull, Store, VolumeLock
from mpc_ops.server.sync import (
    BundleCopy,
    BundleWant,
    Crossed,
    CrossFrame,
    ExtractCopy,
    ExtractHeld,
    FilingClaim,
    Have,
    Holdings,
    LedgerHead,
    SyncMessage,
    Want,
    decode_bulk,
    decode_sync,
)
from mpc_ops.transport.peers import PeerHello
from mpc_ops.transport.wire import Kind

__all__ = ["Operator"]

_RELOAD_S = 5.0


class Operator:
    """All parts of an operator, wired.

    Args:
        config: its configuration.
        post: how messages leave.
        log: event log; standard error by default.
        utc: clock, replaced in tests.

    Raises:
        ConfigError: what loading federation, keys and state raises; KEY_FOREIGN, VOLUME_LOCKED.
    """

    def __init__(
        self,
        config: OperatorConfig,
        post: Post,
        *,
        log: EventLog | None = None,
        utc: Callable[[], datetime] | None = None,
    ) -> None:
        federation = Federation.load(config.federation)
        identity = IdentityKey.load(config.keys / "identity.pem")
        if federation.identity(config.id) != identity.public:
            raise ConfigError(
                "KEY_FOREIGN", "the identity key is not the one in the federation terms", ids={"operator": config.id}
            )
        self._lock = VolumeLock(config.state)
        self.store = Store(config.state / "operator.sqlite")
        self.context = Context(
            config=config,
            federation=federation,
            identity=identity,
            sealing=SealingKey.load(config.keys / "sealing.key"),
            store=self.store,
            boot=self.store.next_boot(),
            post=post,
            log=log or EventLog(config.id),
            utc=utc or (lambda: datetime.now(tz=UTC)),
        )
        self.books = Books(self.context)
        self.peers = Peers(self.context, self.books)
        self.book = NoticeBook(self.context, self.books)
        self.reports = Reports(self.context, self.book)
        self.periods = Periods(self.context, self.book, self.reports)
        self.outbox = Outbox(self.context, self.books, self.book, self.reports)
        self.filings = Filings(self.context, self.books, self.book, self.periods, self.reports)
        self.intake = Intake(self.context, self.book, self.filings)
        self.admissions = Admissions(self.context, self.books, self.book, self.reports)
        self.sessions = Sessions(self.context, self.books, self.book, self.admissions)
        self.regions = RegionStages(self.context, self.books, self.filings, self.periods, self.admissions)
        self.groups = GroupStages(self.context, self.books, self.book, self.admissions)
        self.accounts = Accounts(self.sessions, self.regions if self.context.region_clusters() else None, self.outbox)
        self.sessions.stages = {"region": self.regions, "group": self.groups}
        self.runs = Runs(self.sessions, self.regions)
        self.runs.before_erasure = self.accounts.settle_acknowledged
        self.sessions.hooks = [self.regions, self.accounts, self.runs, self.sessions.disputes]
        self.regions.to_self = self._to_self
        self._hellos: dict[str, int] = {}
        self._boots: dict[str, int] = {}
        self._next_reload = 0.0
        self._stamps: tuple[tuple[str, int], ...] = ()

    def start(self) -> None:
        """Take up what an earlier process left."""
        with self.context.unit():
            self.books.note("boot", ref=f"boot {self.context.boot}")
        for part in (self.book, self.periods, self.outbox, self.accounts):
            part.restore()
        with self.context.unit():
            self.periods.tick()
            self.filings.restore()
            self.sessions.restore()
            self.runs.restore()
        self.context.log("started", boot=self.context.boot, clusters=",".join(sorted(self.context.clusters)))

    def close(self) -> None:
        """Close the journal and give the volume back."""
        self.store.close()
        self._lock.release()

    # ------------------------------------------------------------------------------------------------------ links

    def hello(self, peer: str) -> bytes:
        """`LinkUser.hello`."""
        return self.peers.hello(peer)

    def on_hello(self, peer: str, hello: PeerHello) -> None:
        """`LinkUser.on_hello`."""
        try:
            self.peers.on_hello(peer, hello)
        except ComityError as error:
            self.context.log("hello_refused", peer=peer, code=error.code, why=error.what)
            raise
        self._hellos[peer] = hello.boot

    def link_up(self, peer: str) -> None:
        """A new connection to `peer`: say what we hold and where we stand."""
        self._event("link_up", lambda: self._link_up(peer))

    def _link_up(self, peer: str) -> None:
        boot, known = self._hellos.get(peer, 0), self._boots.get(peer)
        self._boots[peer] = boot
        self.book.announce_all(peer)
        self.filings.ask_all()
        self.sessions.link_up(peer, restarted=known is not None and boot > known)
        self.accounts.send_copies()

    def on_message(self, peer: str, kind: int, payload: bytes) -> None:
        """Take one message of a peer.

        Raises:
            PeerProtocolError: MESSAGE_INVALID: bytes that are no message; the link is closed. Anything else that is
                wrong is logged, put into the ledger and dropped.
        """
        try:
            self._event("message", lambda: self._dispatch(peer, kind, payload))
        except PeerProtocolError as error:
            self._deny(peer, error)
            if error.code == "MESSAGE_INVALID":
                raise
        except ComityError as error:
            self._deny(peer, error)

    def computed(self, work: Callable[[], object]) -> None:
        """Take what a thread computed (mpc_ops.server.computing)."""
        self._event("computed", work)

    def _deny(self, peer: str, error: ComityError) -> None:
        self.context.log("message_refused", peer=peer, code=error.code, why=error.what)
        self._event(
            "denied",
            lambda: self.books.note("denied", sender=peer, receiver=self.context.id, ref=error.code),
        )

    def _dispatch(self, peer: str, kind: int, payload: bytes) -> None:
        if kind == Kind.SESSION:
            self.sessions.on_message(peer, payload)
        elif kind == Kind.NOTICE:
            self.book.on_notice(peer, payload)
        elif kind == Kind.SYNC:
            self._sync(peer, decode_sync(payload, peer), payload)
        elif kind == Kind.FRAME:
            self._bulk(peer, payload)

    def _sync(self, peer: str, message: SyncMessage, payload: bytes) -> None:
        if isinstance(message, Have):
            self.book.on_have(peer, message)
        elif isinstance(message, Want):
            self.book.on_want(peer, message)
        elif isinstance(message, Holdings):
            self.book.on_holdings(peer, message)
        elif isinstance(message, FilingClaim):
            self.books.frame_received(payload, peer, PayloadClass.CONTROL_METADATA, ref=message.notice)
            self.filings.on_claim(peer, message)
        elif isinstance(message, Crossed):
            if self.regions.confirmed(peer, message):
                self.accounts.settle(message.run_id)
        elif isinstance(message, LedgerHead):
            self.peers.on_head(peer, message)
        elif isinstance(message, ExtractHeld):
            self.accounts.copy_held(peer, message)
        elif isinstance(message, BundleWant):
            self.accounts.give_bundle(peer, message)

    def _bulk(self, peer: str, payload: bytes) -> None:
        message = decode_bulk(payload, peer)
        if isinstance(message, CrossFrame):
            if self.groups.take(peer, message, payload):
                self.runs.inputs_changed(message.run_id)
        elif isinstance(message, ExtractCopy):
            self.accounts.take_copy(peer, message, payload)
        elif isinstance(message, BundleCopy):
            self.accounts.take_bundle(peer, message, payload)

    def _to_self(self, frame: bytes) -> None:
        message = decode_bulk(frame, self.context.id)
        if isinstance(message, CrossFrame):
            new = self.groups.take(self.context.id, message, frame)
            crossed = Crossed(run_id=message.run_id, cluster=message.cluster, digest=sha256_hex(frame))
            if self.regions.confirmed(self.context.id, crossed):
                self.accounts.settle(message.run_id)
            if new:
                self.runs.inputs_changed(message.run_id)

    # ----------------------------------------------------------------------------------------------------- timers

    def scan(self) -> int:
        """Look into the spool; return how many new files were taken."""
        found = self.intake.find()
        if found:
            self._event("scan", lambda: self.intake.take(found))
        return len(found)

    def tick(self) -> None:
        """Look at all timers."""
        self.context.write_files_again()
        self._event("tick", self._tick)

    def _tick(self) -> None:
        self._reload()
        self.periods.tick()
        self.filings.tick()
        self.book.tick()
        self.runs.tick()
        self.sessions.tick()
        self.accounts.tick()

    def _reload(self) -> None:
        """Take up a new membership list or directory; links keep their pins until the next start."""
        now = self.context.utc().timestamp()
        if now < self._next_reload:
            return
        self._next_reload = now + _RELOAD_S
        folder = self.context.config.federation
        stamps = tuple(
            sorted(
                (path.name, path.stat().st_mtime_ns) for path in (folder, *folder.glob("*.dsse"), folder / "directory")
            )
        )
        if stamps != self._stamps:
            known, self._stamps = self._stamps, stamps
            if known:
                self._load(folder)

    def _load(self, folder: Path) -> None:
        try:
            federation = Federation.load(folder)
            if federation.digest != self.context.federation.digest:
                raise ConfigError("FEDERATION_FOREIGN", "the folder holds other federation terms")
        except ComityError as error:
            self.context.log("federation_not_reloaded", code=error.code, why=error.what)
            return
        self.context.federation = federation
        self.context.log("federation_reloaded", membership=federation.membership_digest)

    def _event(self, name: str, work: Callable[[], object]) -> None:
        """One unit; where the disk is full, it is as if the event had not happened: peers and timers repeat it."""
        try:
            with self.context.unit():
                work()
        except DiskFull as error:
            self.context.log("disk_full", at_event=name, code=error.code, why=error.got)
