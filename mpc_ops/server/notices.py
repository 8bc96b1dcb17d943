"""The set of notices an operator holds, and how operators swap what is missing.

A notice is accepted from a source that may bring it, if its signature is its author's and this operator is meant to hold
it; everything else is refused with a code. Accepting one again does nothing. Operators announce digests (`Have`), ask for
what they lack (`Want`) from one peer at a time, and send the notices asked for. A relay can only withhold.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.errors import ComityError, PeerProtocolError, StateError
from mpc_ops.federation.loaded import Federation
from mpc_ops.notices.model import DisputeNotice, Manifest, Notice, Release
from mpc_ops.notices.signed import SignedNotice, parse_notice, run_id_of, sign_notice, verify_notice
from mpc_ops.plan.checks import read_plan
from mpc_ops.server.books import Books
from mpc_ops.server.context import Context
from mpc_ops.server.routing import class_of, concerns, peers_of, run_named_by
from mpc_ops.server.sync import MAX_ANNOUNCED, Have, Holdings, Want, encode_sync
from mpc_ops.transport.wire import Kind

__all__ = ["Handler", "NoticeBook", "Source"]

_ASK_AGAIN_S = 3.0
_COMPARE_S = 15.0
_REMEMBERED = 50_000
_MOST_DISPUTES = 32
_FROM_OWNER = frozenset({"approval", "withdrawal", "filed", "outcome"})
_FROM_RECIPIENT = frozenset({"release", "reference", "manifest", "cancel", "reopen", "ack", "outcome"})


@dataclass(frozen=True, slots=True)
class Source:
    """Where a notice came from: `own` (signed here), `spool` (an owner's inbox), `api` (a recipient), `link` (a peer)."""

    channel: Literal["own", "spool", "api", "link"]
    party: str


Handler: TypeAlias = Callable[[SignedNotice, Source], None]


def _author(signed: SignedNotice) -> str:
    notice = signed.notice
    for name in ("owner", "recipient", "author", "party", "operator"):
        found = getattr(notice, name, None)
        # a manifest names a recipient, a receipt an operator: the first that is there is who signed
        if found is not None and not (name == "recipient" and hasattr(notice, "operator")):
            return str(found)
    return "unknown"


class NoticeBook:
    """All notices of this operator; methods that write are called inside a unit."""

    def __init__(self, context: Context, books: Books) -> None:
        self._context = context
        self._books = books
        self._store = context.store
        self._peers = peers_of(context.federation, context.id)
        self._handlers: list[Handler] = []
        self._asked: OrderedDict[str, tuple[float, list[str]]] = OrderedDict()
        self._holdings: dict[str, tuple[int, int]] = dict.fromkeys(self._peers, (0, 0))
        self._next_compare = 0.0
        self._news: list[tuple[SignedNotice, str]] = []
        context.at_end.append(self._tell)
        self._refused: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._cache: OrderedDict[str, SignedNotice] = OrderedDict()

    def subscribe(self, handler: Handler) -> None:
        """Call `handler` in the same unit for every notice that is new."""
        self._handlers.append(handler)

    # ------------------------------------------------------------------------------------------------- accepting

    def accept(self, data: bytes, source: Source) -> tuple[SignedNotice, bool]:
        """Verify and store a notice.

        Returns:
            The notice and whether it is new.

        Raises:
            ConfigError, EvidenceError: form, signature or party. PeerProtocolError: NOTICE_UNWANTED, NOTICE_FOREIGN.
            PlanError: a release whose plan does not pass its checks (PLAN_INVALID, UNSUPPORTED_NODE).
            StateError: NOTICE_LIMIT.
        """
        signed = parse_notice(data)
        if self.get(signed.digest) is not None:
            return signed, False
        federation = self._federation
        self._check_source(signed, source)
        if not concerns(federation, self._context.id, signed.notice):
            raise PeerProtocolError(
                "NOTICE_UNWANTED", "a notice does not concern this operator", ids={"kind": signed.kind}
            )
        verified = verify_notice(signed, federation)
        if isinstance(verified.notice, Release):
            read_plan(verified.notice.plan.encode("utf-8"), federation)
        self._check_room(verified)
        run = self._run_of(verified)
        if source.channel != "own":
            self._books.notice_received(
                verified.digest, len(data), source.party, run=run, kind=class_of(verified.notice)
            )
        self._insert(verified, run, data, source)
        return verified, True

    def issue(self, notice: Notice) -> SignedNotice:
        """Sign a notice of this operator, store it and pass it on."""
        signed = sign_notice(notice, self._context.identity)
        self._insert(signed, self._run_of(signed), signed.envelope.to_bytes(), Source("own", self._context.id))
        return signed

    def _check_source(self, signed: SignedNotice, source: Source) -> None:
        allowed = {"spool": _FROM_OWNER, "api": _FROM_RECIPIENT}.get(source.channel)
        if allowed is not None and signed.kind not in allowed:
            raise PeerProtocolError(
                "NOTICE_UNWANTED", "this kind of notice is not taken here", got=signed.kind, ids={"from": source.party}
            )
        owner = getattr(signed.notice, "owner", getattr(signed.notice, "party", None))
        if source.channel == "spool" and owner != source.party:
            raise PeerProtocolError(
                "NOTICE_FOREIGN", "a notice of another owner lies in this owner's inbox", ids={"owner": source.party}
            )
        recipient = getattr(signed.notice, "recipient", getattr(signed.notice, "party", None))
        if source.channel == "api" and recipient not in {None, source.party}:
            raise PeerProtocolError(
                "NOTICE_FOREIGN", "a notice of another recipient was posted", ids={"recipient": source.party}
            )

    def _check_room(self, signed: SignedNotice) -> None:
        limits = self._context.config.limits
        total = self._store.value("SELECT count(*) FROM notices")
        author = self._store.value("SELECT count(*) FROM notices WHERE author = ?", _author(signed))
        if isinstance(signed.notice, DisputeNotice):
            self._check_disputes(signed, signed.notice)
        if total >= limits.max_notices or author >= limits.max_notices_per_author:
            raise StateError(
                "NOTICE_LIMIT",
                "no more notices are taken"
                if total >= limits.max_notices
                else "no more notices of this author are taken",
                ids={"author": _author(signed)},
                hint="The operator's administrator can raise the limit",
            )

    def _check_disputes(self, signed: SignedNotice, notice: DisputeNotice) -> None:
        held = self._store.value(
            "SELECT count(*) FROM notices WHERE kind = 'dispute' AND author = ? AND run = ? AND cluster = ?",
            _author(signed), notice.run, notice.cluster,
        )  # fmt: skip
        if held >= _MOST_DISPUTES:
            raise StateError(
                "NOTICE_LIMIT", "no more statements of this operator about one session are taken",
                ids={"author": notice.operator, "run": notice.run[:12]},
            )  # fmt: skip

    def _run_of(self, signed: SignedNotice) -> str | None:
        return str(run_id_of(signed)) if isinstance(signed.notice, Manifest) else run_named_by(signed.notice)

    def _insert(self, signed: SignedNotice, run: str | None, data: bytes, source: Source) -> None:
        notice: Any = signed.notice
        plan = sha256_hex(notice.plan.encode()) if isinstance(notice, Release) else getattr(notice, "plan", None)
        about = getattr(notice, "filing", getattr(notice, "owner", None))
        changed = self._store.write(
            "INSERT OR IGNORE INTO notices (digest, kind, plan, period, edition, run, about, author, cluster, received_at,"
            " data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            signed.digest,
            signed.kind,
            plan,
            getattr(notice, "period", None),
            getattr(notice, "edition", None),
            run,
            about,
            _author(signed),
            getattr(notice, "cluster", None),
            self._context.now,
            data,
        )
        if not changed:
            return
        self._asked.pop(signed.digest, None)
        self._context.afterwards(partial(self._count, signed))
        self._announce(signed, source)
        for handler in self._handlers:
            try:
                with self._context.part():
                    handler(signed, source)
            except ComityError as error:  # the notice is good; what one part makes of it must not undo it
                self._context.log("handler_failed", kind=signed.kind, notice=signed.digest[:16], code=error.code)

    # ------------------------------------------------------------------------------------------------- looking up

    @property
    def _federation(self) -> Federation:
        return self._context.federation

    def get(self, digest: str) -> SignedNotice | None:
        """Return a notice by digest, None if it is not here."""
        data = self._store.value("SELECT data FROM notices WHERE digest = ?", digest)
        return None if data is None else self._parsed(digest, data)

    def data(self, digest: str) -> bytes | None:
        """Return the envelope's bytes, None if it is not here."""
        found = self._store.value("SELECT data FROM notices WHERE digest = ?", digest)
        return None if found is None else bytes(found)

    def find(self, kind: str, **where: str | int) -> list[SignedNotice]:
        """Return notices of a kind in the order of arrival; `where`: plan, period, edition, run, about, author, cluster."""
        clauses = "".join(f" AND {name} = ?" for name in where)
        rows = self._store.rows(
            f"SELECT digest, data FROM notices WHERE kind = ?{clauses} ORDER BY seq",  # noqa: S608 - names are our own
            kind,
            *where.values(),
        )
        return [self._parsed(digest, data) for digest, data in rows]

    def received_at(self, digest: str) -> str | None:
        """Return when a notice arrived here."""
        found = self._store.value("SELECT received_at FROM notices WHERE digest = ?", digest)
        return None if found is None else str(found)

    def _parsed(self, digest: str, data: bytes) -> SignedNotice:
        if digest not in self._cache:
            self._cache[digest] = parse_notice(data)
            while len(self._cache) > 2000:
                self._cache.popitem(last=False)
        self._cache.move_to_end(digest)
        return self._cache[digest]

    # ------------------------------------------------------------------------------------------------- swapping

    def _announce(self, signed: SignedNotice, source: Source) -> None:
        """Tell every peer that is meant to hold it: one message per peer and unit."""
        self._news.append((signed, source.party))

    def _tell(self) -> None:
        if not self._news:
            return
        # A part of the unit may have been undone since.
        news = [item for item in self._news if self.data(item[0].digest) is not None]
        self._news = []
        for peer in self._peers:
            digests = [
                bytes.fromhex(signed.digest)
                for signed, source in news
                if source != peer and concerns(self._federation, peer, signed.notice)
            ]
            if digests and self._context.post.up(peer):
                self._context.post.post(peer, Kind.SYNC, encode_sync(Have(digests=tuple(digests))))

    def _count(self, signed: SignedNotice) -> None:
        number = int(signed.digest, 16)
        for peer in self._peers:
            if concerns(self._federation, peer, signed.notice):
                count, mark = self._holdings[peer]
                self._holdings[peer] = (count + 1, mark ^ number)

    def restore(self) -> None:
        """At start-up: count what is held for each peer."""
        self._holdings = dict.fromkeys(self._peers, (0, 0))
        for digest, data in self._store.rows("SELECT digest, data FROM notices"):
            self._count(self._parsed(str(digest), data))

    def tick(self) -> None:
        """Ask again for what did not come; now and then compare holdings with every peer."""
        self.ask_again()
        now = self._context.utc().timestamp()
        if now < self._next_compare:
            return
        self._next_compare = now + _COMPARE_S
        for peer, (count, mark) in self._holdings.items():
            if self._context.post.up(peer):
                message = Holdings(count=count, fingerprint=mark.to_bytes(32, "big"))
                self._context.send(peer, Kind.SYNC, encode_sync(message))

    def on_holdings(self, peer: str, message: Holdings) -> None:
        """A peer holds another set than we do: tell it all we hold; it does the same when it hears from us."""
        ours = self._holdings[peer]
        if ours != (message.count, int.from_bytes(message.fingerprint, "big")):
            self.announce_all(peer)

    def announce_all(self, peer: str) -> None:
        """Tell a peer whose link came up what is held for it, newest first up to the bound."""
        rows = self._store.rows("SELECT digest, data FROM notices ORDER BY seq DESC LIMIT ?", MAX_ANNOUNCED)
        held = [
            bytes.fromhex(digest)
            for digest, data in rows
            if concerns(self._federation, peer, self._parsed(digest, data).notice)
        ]
        if held:
            self._context.send(peer, Kind.SYNC, encode_sync(Have(digests=tuple(held))))

    def on_have(self, peer: str, message: Have) -> None:
        """Ask for what is not here, unless another peer was asked a moment ago."""
        now = self._context.utc().timestamp()
        wanted = []
        for raw in message.digests:
            digest = raw.hex()
            if (peer, digest) in self._refused or self._store.row("SELECT 1 FROM notices WHERE digest = ?", digest):
                continue
            if digest in self._asked:
                since, others = self._asked[digest]
                if peer not in others and len(others) < 16:
                    self._asked[digest] = (since, [*others, peer])
                continue
            self._asked[digest] = (now, [])
            wanted.append(raw)
        while len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)
        self._ask(peer, wanted)

    def ask_again(self) -> None:
        """Ask the next peer that announced a notice which the first one did not send."""
        now = self._context.utc().timestamp()
        due = [(digest, others) for digest, (since, others) in self._asked.items() if now - since > _ASK_AGAIN_S]
        by_peer: dict[str, list[bytes]] = {}
        for digest, others in due:
            del self._asked[digest]
            if others:
                self._asked[digest] = (now, others[1:])
                by_peer.setdefault(others[0], []).append(bytes.fromhex(digest))
        for peer, wanted in by_peer.items():
            self._ask(peer, wanted)

    def _ask(self, peer: str, wanted: Iterable[bytes]) -> None:
        digests = tuple(wanted)
        if digests:
            self._context.send(peer, Kind.SYNC, encode_sync(Want(digests=digests)))

    def on_want(self, peer: str, message: Want) -> None:
        """Send what a peer asked for, if it is meant to hold it."""
        for raw in message.digests:
            signed = self.get(raw.hex())
            if signed is None or not concerns(self._federation, peer, signed.notice):
                continue
            data = self.data(signed.digest) or b""
            self._books.notice_sent(
                signed.digest, len(data), peer, run=self._run_of(signed), kind=class_of(signed.notice)
            )
            self._context.send(peer, Kind.NOTICE, data)

    def on_notice(self, peer: str, data: bytes) -> None:
        """Take a notice from a peer; what is refused is logged and not asked for again from this peer."""
        try:
            with self._context.part():
                self.accept(data, Source("link", peer))
        except ComityError as error:
            digest = "none"
            with contextlib.suppress(ComityError):
                digest = parse_notice(data).digest
            self._refused[peer, digest] = error.code
            while len(self._refused) > _REMEMBERED:
                self._refused.popitem(last=False)
            self._asked.pop(digest, None)
            self._books.note(
                "denied", once=f"denied/{peer}/{digest}", sender=peer, receiver=self._context.id, ref=error.code
            )
            self._context.log("notice_refused", peer=peer, code=error.code, notice=digest[:16])
