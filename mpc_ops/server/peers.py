"""What this operator has seen of its peers, so that a restored disk is refused at the handshake (both ways)."""

from __future__ import annotations

from mpc_ops.errors import PeerProtocolError
from mpc_ops.server.books import Books
from mpc_ops.server.context import Context
from mpc_ops.server.sync import LedgerHead
from mpc_ops.session import (
    OwnPast,
    SeenOfPeer,
    SessionMark,
    SessionState,
    check_not_rolled_back,
    decode_seen,
    encode_seen,
    from_json,
)
from mpc_ops.transport.peers import PeerHello

__all__ = ["Peers"]

_MARKS = 400  # HELLO carries at most 128 KiB


class Peers:
    """The peers' boot counters, ledger heads and session attempts."""

    def __init__(self, context: Context, books: Books) -> None:
        self._context = context
        self._books = books
        self._store = context.store

    def hello(self, peer: str) -> bytes:
        """Return what we have seen of `peer`, for our HELLO."""
        row = self._store.row("SELECT boot, length, head FROM peers WHERE peer = ?", peer) or (0, 0, "")
        marks = self._store.rows(
            "SELECT marks.run, marks.cluster, prepared, accepted, committed FROM marks JOIN sessions"
            " ON sessions.run = marks.run AND sessions.cluster = marks.cluster"
            " WHERE peer = ? AND phase != 'ERASED' ORDER BY changed_at DESC LIMIT ?",
            peer,
            _MARKS,
        )
        return encode_seen(
            SeenOfPeer(
                boot=row[0],
                ledger_length=row[1],
                ledger_head=row[2],
                sessions=tuple(
                    SessionMark(run_id=run, cluster=cluster, prepared=a, accepted=b, committed=bool(c))
                    for run, cluster, a, b, c in marks
                ),
            )
        )

    def on_hello(self, peer: str, hello: PeerHello) -> None:
        """Compare what the peer has seen of us, and what we have seen of it.

        Raises:
            LocalProtocolError, PeerProtocolError: STATE_ROLLED_BACK; the link does not come up.
        """
        check_not_rolled_back(
            OwnPast(boot=self._context.boot, ledger_head_at=self._books.head_at, session=self._own_mark),
            decode_seen(hello.state),
            peer,
        )
        known = self._store.value("SELECT boot FROM peers WHERE peer = ?", peer)
        if known is not None and hello.boot < known:
            raise PeerProtocolError(
                "STATE_ROLLED_BACK",
                "a peer's boot counter is lower than it was: its disk was restored from an old copy",
                expected=f"at least {known}",
                got=hello.boot,
                ids={"party": peer},
            )
        with self._context.unit():
            self._store.write(
                "INSERT INTO peers VALUES (?, ?, 0, '') ON CONFLICT DO UPDATE SET boot = max(boot, excluded.boot)",
                peer,
                hello.boot,
            )

    def _own_mark(self, run: str, cluster: str) -> SessionMark | None:
        data = self._store.value("SELECT state FROM sessions WHERE run = ? AND cluster = ?", run, cluster)
        if data is None:
            return None
        state = from_json(SessionState, data)
        # In PREPARED(a) the attempt a was not accepted yet; any earlier one may have been.
        accepted = state.attempt - 1 if state.phase == "PREPARED" else state.attempt
        return SessionMark(
            run_id=run,
            cluster=cluster,
            prepared=state.attempt,
            accepted=max(accepted, 0),
            committed="COMMITTED" in {state.phase, state.ended},
        )

    def on_head(self, peer: str, message: LedgerHead) -> None:
        """Remember and countersign a peer's ledger head at a stage; inside a unit."""
        row = self._store.row("SELECT length FROM peers WHERE peer = ?", peer)
        if row is not None and row[0] >= message.length:
            return
        self._store.write(
            "INSERT INTO peers VALUES (?, 0, ?, ?) ON CONFLICT DO UPDATE SET"
            " length = excluded.length, head = excluded.head",
            peer, message.length, message.head,
        )  # fmt: skip
        self._books.note(
            "checkpoint", run=message.run_id, cluster=message.cluster, sender=peer, receiver=self._context.id,
            ref=message.head,
        )  # fmt: skip
