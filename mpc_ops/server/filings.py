"""Filings at a region operator: checks of a `filed` notice and its part, and the driver of the filing machine.

A part is opened in memory only; on disk stay the sealed file and the period key. Whatever is not acceptable is answered
with a signed `rejected` notice that carries a stable code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mpc_ops.envelope.canonical import canonical_bytes, sha256_hex
from mpc_ops.envelope.sealing import OVERHEAD_BYTES, SealingKey
from mpc_ops.errors import ComityError, DeliveryError, NotYet, PeerProtocolError, StateError
from mpc_ops.federation.loaded import read_file
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices import model
from mpc_ops.notices.signed import SignedNotice
from mpc_ops.plan.layout import measures, shared_lane_count, unit_limits
from mpc_ops.server.books import Books
from mpc_ops.server.context import Context
from mpc_ops.server.durable import remove_file
from mpc_ops.server.notices import NoticeBook, Source
from mpc_ops.server.periods import EditionRow, Periods
from mpc_ops.server.reports import Report, Reports
from mpc_ops.server.signoffs import check_sign_offs
from mpc_ops.server.sync import FilingClaim, encode_sync
from mpc_ops.session import (
    FILING,
    AnnounceFiling,
    AskFiling,
    EraseParts,
    ExpireFiling,
    Filed,
    FilingEvent,
    FilingRejected,
    FilingState,
    HolderClaim,
    HolderDisputes,
    SendClaim,
    SendReceipt,
    Withdrawn,
    from_json,
    new_filing,
    to_json,
)
from mpc_ops.sharing import FilingContext, PartPayload, check_part, part_limit_bytes, read_part
from mpc_ops.transport.wire import Kind

__all__ = ["Filings", "part_info"]

_ASK_CAP_S = 300.0


def part_info(filed: model.Filed, operator: str) -> bytes:
    """Return the HPKE info of a sealed part."""
    return canonical_bytes(
        {
            "box": "comity/part/v1",
            "plan": filed.plan,
            "period": filed.period,
            "owner": filed.owner,
            "edition": filed.edition,
            "take": filed.take,
            "operator": operator,
        }
    )


@dataclass(frozen=True)
class _Checked:
    """A `filed` notice that fits its report, before its part was looked at."""

    filed: model.Filed
    report: Report
    edition: EditionRow
    cluster: str
    part: model.Part | None


class Filings:
    """All filings of the owners of this operator's regions; methods that write are called inside a unit."""

    def __init__(self, context: Context, books: Books, book: NoticeBook, periods: Periods, reports: Reports) -> None:
        self._context = context
        self._books = books
        self._book = book
        self._periods = periods
        self._reports = reports
        self._store = context.store
        self._waiting: dict[str, float] = {}
        """Filings whose part, plan or reference data has not arrived, and since when they wait for the latter two."""
        self._asked: dict[str, tuple[float, float]] = {}
        """Filings that wait for the other holders' claims: when they ask next, and the pause after that."""
        book.subscribe(self._on_notice)

    # ---------------------------------------------------------------------------------------------------- events

    def _on_notice(self, signed: SignedNotice, source: Source) -> None:
        notice = signed.notice
        if isinstance(notice, model.Filed) and self._is_own(notice.owner):
            self.consider(signed)
        elif isinstance(notice, model.Withdrawal) and self._is_own(notice.owner):
            for state in self.of_owner(notice.plan, notice.owner):
                self._step(state, Withdrawn())
        elif isinstance(notice, model.Rejected) and source.channel == "link":
            self._on_rejected(notice)

    def _is_own(self, owner: str) -> bool:
        federation = self._context.federation
        return owner in federation.owners and federation.region_of(owner)[1].cluster in self._context.clusters

    def _on_rejected(self, notice: model.Rejected) -> None:
        """A holder of our cluster can't accept its part of a filing that is good here."""
        signed = self._book.get(notice.filing)
        if signed is None or not isinstance(signed.notice, model.Filed) or not self._is_own(signed.notice.owner):
            return
        filed = signed.notice
        if notice.operator not in self._context.federation.operators_of(filed.owner):
            return
        state = self.state(filed.plan, filed.period, filed.owner, filed.edition)
        if state.notice == signed.digest:
            blamed = tuple(notice.pair[:2]) or (notice.operator, filed.owner)
            self._step(state, HolderDisputes(filed.take, notice.code, blamed))

    def consider(self, signed: SignedNotice) -> None:
        """Look at a `filed` notice: accept it, reject it, or wait for what is missing."""
        filed = signed.expect(model.Filed)
        state = self.state(filed.plan, filed.period, filed.owner, filed.edition)
        if state.notice == signed.digest and state.phase != "REJECTED":
            self._waiting.pop(signed.digest, None)
            return
        try:
            checked = self._checked(filed)
            self._check_take(state, signed)
            if checked.part is not None and not self._part_path(filed.owner, checked.part.sha256).exists():
                self._waiting.setdefault(signed.digest, 0.0)
                return
            self._receive(signed, checked)
        except NotYet as error:
            self._wait(signed, error)
        except ComityError as error:
            self.reject(signed, error)

    def _wait(self, signed: SignedNotice, error: NotYet) -> None:
        now = self._context.utc().timestamp()
        since = self._waiting.setdefault(signed.digest, now) or now
        self._waiting[signed.digest] = since
        if now - since > self._context.config.limits.settle_s:
            self.reject(signed, DeliveryError(error.code, error.what, ids=error.ids))

    def part_arrived(self, owner: str, sha256: str) -> None:
        """A part file is complete in the spool: look again at the filings that wait for it."""
        for digest in list(self._waiting):
            signed = self._book.get(digest)
            if signed is not None and isinstance(signed.notice, model.Filed) and signed.notice.owner == owner:
                mine = [part for part in signed.notice.parts if part.operator == self._context.id]
                if any(part.sha256 == sha256 for part in mine):
                    self.consider(signed)

    def on_claim(self, peer: str, claim: FilingClaim) -> None:
        """A peer of the region cluster says which notice its checked part belongs to."""
        if not self._is_own(claim.owner) or peer not in self._context.federation.operators_of(claim.owner):
            raise PeerProtocolError("CLAIM_FOREIGN", "a claim on another region's filing", ids={"party": peer})
        if self._periods.find(claim.plan, claim.period, claim.edition) is None:
            return  # it is asked again when the filing is here
        party = self._context.federation.operators_of(claim.owner).index(peer)
        state = self.state(claim.plan, claim.period, claim.owner, claim.edition)
        self._step(state, HolderClaim(party, claim.take, claim.notice, claim.ask))

    def ask_all(self) -> None:
        """Repeat claims: a link came up."""
        for state in self._in_phases(("RECEIVED",)):
            self._step(state, AskFiling())

    def _ask_late(self) -> None:
        """Ask for claims that did not come, less and less often: a peer may have had no use for them when they came."""
        now, waiting = self._context.utc().timestamp(), {}
        for state in self._in_phases(("RECEIVED",)):
            due, pause = self._asked.get(state.notice, (0.0, self._context.config.limits.ask_s))
            if due and now >= due:
                self._step(state, AskFiling())
                due, pause = 0.0, min(pause * 2, _ASK_CAP_S)
            waiting[state.notice] = (due or now + pause, pause)
        self._asked = waiting

    def tick(self) -> None:
        """Look again at what waits; expire what is over."""
        self._ask_late()
        for digest in list(self._waiting):
            signed = self._book.get(digest)
            if signed is None:
                del self._waiting[digest]
            elif self._waiting[digest]:
                self.consider(signed)
        now = self._context.now
        rows = self._store.rows(
            "SELECT plan, period, edition FROM editions WHERE expires_at <= ? AND destroyed = 0", now
        )
        for plan, period, edition in rows:
            self._expire(str(plan), str(period), int(edition))

    def _expire(self, plan: str, period: str, edition: int) -> None:
        rows = self._store.rows(
            "SELECT state FROM filings WHERE plan = ? AND period = ? AND edition = ?", plan, period, edition
        )
        states = [from_json(FilingState, data) for (data,) in rows]
        if any(state.phase == "INCLUDED" for state in states):
            return  # the run decides first; its own ttl erases it
        for state in states:
            self._step(state, ExpireFiling())
        if self._periods.destroy(plan, period, edition):
            self._books.note("erased", ref=f"period key {period} edition {edition}: expired")

    def restore(self) -> None:
        """At start-up: look again at every filing of an open edition that is not settled, and repeat claims."""
        for plan, period, edition in self._store.rows("SELECT plan, period, edition FROM editions WHERE destroyed = 0"):
            for signed in self._book.find("filed", plan=plan, period=period, edition=edition):
                if self._is_own(signed.expect(model.Filed).owner):
                    state = self._of(signed)
                    refused = self._store.row("SELECT 1 FROM refusals WHERE digest = ?", signed.digest)
                    if state.take < signed.expect(model.Filed).take or (state.phase == "REJECTED" and not refused):
                        self.consider(signed)
        self.ask_all()

    # ---------------------------------------------------------------------------------------------------- checks

    def _checked(self, filed: model.Filed) -> _Checked:
        """Compare a notice with its report.

        Raises:
            NotYet: PLAN_UNKNOWN, REFERENCE_UNKNOWN while it may still be on its way. ComityError: what is wrong.
        """
        ids = {"owner": filed.owner, "period": filed.period, "edition": filed.edition, "take": filed.take}
        if not self._reports.known(filed.plan):
            raise NotYet("PLAN_UNKNOWN", "no release of this plan is known here", ids={**ids, "plan": filed.plan[:16]})
        report = self._reports.report(filed.plan)
        if filed.owner not in self._reports.own_owners(report):
            raise DeliveryError("PLAN_FOREIGN", "the report does not ask the owner's region", ids=ids)
        report.row(filed.period)
        self._periods.tick()
        edition = self._periods.require_open(filed.plan, filed.period, filed.edition)
        self._check_reference(filed, report)
        if report.gate.where == "owner" and filed.gate_k < report.gate.k:
            raise DeliveryError(
                "GATE_TOO_LOW", "the owner's Gate used a smaller k than the terms demand",
                expected=f"at least {report.gate.k}", got=filed.gate_k, ids=ids,
            )  # fmt: skip
        check_sign_offs(filed, report, self._context.federation.owner(filed.owner))
        return _Checked(filed, report, edition, self._context.cluster_of(filed.owner), self._own_part(filed, report))

    def _check_reference(self, filed: model.Filed, report: Report) -> None:
        ids = {"owner": filed.owner, "period": filed.period}
        if filed.reference is None:
            if filed.kind_of == "data" and any(measure.translate for measure in measures(report.plan)):
                raise DeliveryError("REFERENCE_MISSING", "amounts are translated, but no rates are named", ids=ids)
            return
        signed = self._book.get(filed.reference)
        if signed is None:
            raise NotYet("REFERENCE_UNKNOWN", "the reference data that a filing names is not known here", ids=ids)
        if signed.expect(model.Reference).period != filed.period:
            raise DeliveryError("REFERENCE_FOREIGN", "the reference data belongs to another period", ids=ids)

    def _own_part(self, filed: model.Filed, report: Report) -> model.Part | None:
        ids = {"owner": filed.owner, "period": filed.period, "take": filed.take}
        operators = self._context.federation.operators_of(filed.owner)
        if filed.kind_of == "nil":
            if filed.parts or filed.commitments:
                raise DeliveryError("FILING_INVALID", "a nil filing has no parts and no commitments", ids=ids)
            return None
        if [part.operator for part in filed.parts] != operators or len(set(filed.commitments)) != 3:
            raise DeliveryError(
                "FILING_INVALID",
                "a filing names three parts, in the order of its operators, and three commitments",
                ids=ids,
            )
        part = filed.parts[operators.index(self._context.id)]
        bound = part_limit_bytes(shared_lane_count(report.plan), unit_limits(report.plan)) + OVERHEAD_BYTES
        if part.size > min(bound, self._context.config.limits.max_part_bytes):
            raise DeliveryError(
                "PART_OVER_BOUND", "the part is longer than the plan allows",
                expected=f"at most {bound} bytes", got=f"{part.size} bytes", ids=ids,
            )  # fmt: skip
        self._check_not_used(filed, part, ids)
        return part

    def _check_not_used(self, filed: model.Filed, part: model.Part, ids: dict[str, object]) -> None:
        own = (filed.plan, filed.period, filed.owner, filed.edition, filed.take)
        rows = self._store.rows(
            "SELECT plan, period, owner, edition, take FROM parts WHERE sha256 = ? AND filing != ''", part.sha256
        )
        for row in rows:
            if row[2] != filed.owner:
                raise DeliveryError("PART_FOREIGN", "the part was filed by another owner", ids=ids)
            if row != own:
                raise DeliveryError("PART_REPLAYED", "the part was used in an earlier filing", ids=ids)

    def _check_take(self, state: FilingState, signed: SignedNotice) -> None:
        filed = signed.expect(model.Filed)
        if state.phase in {"INCLUDED", "LATE", "WITHDRAWN", "ERASED", "EXPIRED"}:
            FILING.step(state, Filed(filed.take, signed.digest, filed.kind_of == "nil"))  # says why not
        if state.take == filed.take and state.notice not in {"", signed.digest}:
            raise DeliveryError("FILING_DUPLICATE", "this take was filed already with another content", ids=state.ids())
        if filed.take < state.take:
            raise StateError(
                "FILING_SUPERSEDED", "a newer take was filed already",
                expected=f"take {state.take}", got=f"take {filed.take}", ids=state.ids(),
            )  # fmt: skip

    def _receive(self, signed: SignedNotice, checked: _Checked) -> None:
        filed, part = checked.filed, checked.part
        if part is not None:
            sealed = self._read_sealed(filed, part)
            self._open(self._periods.key(checked.edition), sealed, checked)
            self._store.write(
                "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                signed.digest, filed.plan, filed.period, filed.owner, filed.edition, filed.take, part.sha256,
            )  # fmt: skip
            self._books.frame_received(sealed, filed.owner, checked.report.gate.shared_class, ref=signed.digest)
        state = self.state(filed.plan, filed.period, filed.owner, filed.edition)
        self._waiting.pop(signed.digest, None)
        self._store.write("DELETE FROM refusals WHERE digest = ?", signed.digest)
        self._step(state, Filed(filed.take, signed.digest, filed.kind_of == "nil"))
        for other in self._book.find("rejected", about=signed.digest):
            self._on_rejected(other.expect(model.Rejected))  # it may have been faster than the owner's file

    def _part_path(self, owner: str, sha256: str) -> Path:
        return self._context.config.spool / "inbox" / owner / f"part.{sha256}"

    def _read_sealed(self, filed: model.Filed, part: model.Part) -> bytes:
        ids = {"owner": filed.owner, "period": filed.period, "take": filed.take}
        data = read_file(self._part_path(filed.owner, part.sha256), limit_bytes=part.size + 1)
        if len(data) < part.size:
            raise DeliveryError(
                "PART_TRUNCATED", "a part is shorter than its owner signed",
                expected=f"{part.size} bytes", got=f"{len(data)} bytes", ids=ids,
            )  # fmt: skip
        if len(data) != part.size or sha256_hex(data) != part.sha256:
            raise DeliveryError("PART_ALTERED", "a part is not the one its owner signed", ids=ids)
        return data

    def _open(self, key: SealingKey, sealed: bytes, checked: _Checked) -> PartPayload:
        filed = checked.filed
        data = key.open(sealed, part_info(filed, self._context.id))
        where = FilingContext(
            plan_digest=filed.plan, period=filed.period, owner=filed.owner, edition=filed.edition, take=filed.take
        )
        plan = checked.report.plan
        payload = read_part(
            data, where, self._context.clusters[checked.cluster], shared_lane_count(plan), unit_limits(plan)
        )
        check_part(payload, filed.commitments)
        return payload

    def payload(self, signed: SignedNotice) -> Callable[[], PartPayload | None]:
        """Return what opens the part of an included filing again, with every check; it gives None for a nil filing.

        Opening takes its time and reads nothing but the part's file, so it may run in another thread.
        """
        checked = self._checked_again(signed)
        part = checked.part
        if part is None:
            return lambda: None
        key = self._periods.key(checked.edition)
        return lambda: self._open(key, self._read_sealed(checked.filed, part), checked)

    def _checked_again(self, signed: SignedNotice) -> _Checked:
        filed = signed.expect(model.Filed)
        report = self._reports.report(filed.plan)
        row = self._periods.find(filed.plan, filed.period, filed.edition)
        if row is None:
            raise StateError("PERIOD_NOT_OPEN", "this edition of the period is not open", ids={"period": filed.period})
        mine = [part for part in filed.parts if part.operator == self._context.id]
        return _Checked(filed, report, row, self._context.cluster_of(filed.owner), mine[0] if mine else None)

    # -------------------------------------------------------------------------------------------------- rejecting

    def reject(self, signed: SignedNotice, error: ComityError) -> None:
        """Answer a `filed` notice of an own owner with a signed rejection, and step its machine."""
        filed = signed.expect(model.Filed)
        self._waiting.pop(signed.digest, None)
        pair = [self._context.id, filed.owner] if error.code in {"COMMITMENT_MISMATCH", "PART_INVALID"} else []
        self.refuse(signed.digest, filed.owner, error, pair=pair)
        if error.code.startswith(("PART_", "SEAL_")):
            for part in filed.parts:
                if part.operator == self._context.id:
                    path = self._part_path(filed.owner, part.sha256)
                    self._context.afterwards(partial(remove_file, path))
        state = self.state(filed.plan, filed.period, filed.owner, filed.edition)
        known = self._periods.find(filed.plan, filed.period, filed.edition) is not None
        if known and error.code not in {"FILING_SUPERSEDED", "FILING_DUPLICATE"}:
            self._step(state, FilingRejected(filed.take, error.code))

    def refuse(self, digest: str, owner: str, error: ComityError, *, pair: Iterable[str] = ()) -> None:
        """Issue one signed `rejected` notice for a notice of an owner, whatever kind it is."""
        if self._store.row("SELECT 1 FROM refusals WHERE digest = ? AND code = ?", digest, error.code):
            return
        self._store.write("INSERT OR REPLACE INTO refusals VALUES (?, ?, ?)", digest, owner, error.code)
        self._book.issue(
            model.Rejected(
                filing=digest,
                operator=self._context.id,
                code=error.code,
                reason=error.what[:300],
                pair=list(pair),
                created_at=self._context.now,
            )
        )
        self._books.note("denied", sender=owner, receiver=self._context.id, ref=error.code)
        self._context.log("filing_rejected", owner=owner, code=error.code, filing=digest[:16])

    # ---------------------------------------------------------------------------------------------------- machine

    def state(self, plan: str, period: str, owner: str, edition: int) -> FilingState:
        """Return the state of a filing, EXPECTED if nothing is known."""
        data = self._store.value(
            "SELECT state FROM filings WHERE plan = ? AND period = ? AND owner = ? AND edition = ?",
            plan, period, owner, edition,
        )  # fmt: skip
        if data is not None:
            return from_json(FilingState, data)
        return new_filing(plan, period, owner, edition, self._context.clusters[self._context.cluster_of(owner)])

    def _of(self, signed: SignedNotice) -> FilingState:
        filed = signed.expect(model.Filed)
        return self.state(filed.plan, filed.period, filed.owner, filed.edition)

    def of_owner(self, plan: str, owner: str) -> list[FilingState]:
        """Return all filings of an owner for a plan."""
        rows = self._store.rows("SELECT state FROM filings WHERE plan = ? AND owner = ?", plan, owner)
        return [from_json(FilingState, data) for (data,) in rows]

    def of_period(self, plan: str, period: str) -> list[FilingState]:
        """Return all filings of a period."""
        rows = self._store.rows("SELECT state FROM filings WHERE plan = ? AND period = ?", plan, period)
        return [from_json(FilingState, data) for (data,) in rows]

    def of_run(self, run: str) -> list[FilingState]:
        """Return the filings that a run includes or leaves out."""
        rows = self._store.rows("SELECT state FROM filings WHERE run = ?", run)
        return [from_json(FilingState, data) for (data,) in rows]

    def _in_phases(self, phases: tuple[str, ...]) -> list[FilingState]:
        marks = ",".join("?" * len(phases))
        rows = self._store.rows(f"SELECT state FROM filings WHERE phase IN ({marks})", *phases)  # noqa: S608 - question marks
        return [from_json(FilingState, data) for (data,) in rows]

    def step(self, state: FilingState, event: FilingEvent) -> FilingState:
        """Step a filing's machine, store the state and carry out its actions; raises what the table raises."""
        after, actions = FILING.step(state, event)
        if after != state:
            self._store.write(
                "INSERT INTO filings VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " phase = excluded.phase, run = excluded.run, state = excluded.state",
                after.plan, after.period, after.owner, after.edition, after.phase, after.run_id, to_json(after),
            )  # fmt: skip
        for action in actions:
            if isinstance(action, SendClaim):
                self._claim(after, action)
            elif isinstance(action, SendReceipt):
                self._receipt(action)
            elif isinstance(action, AnnounceFiling):
                self._announce(after, action)
            elif isinstance(action, EraseParts):
                self._erase(after, action)
        return after

    def _step(self, state: FilingState, event: FilingEvent) -> None:
        try:
            with self._context.part():
                self.step(state, event)
        except ComityError as error:
            self._context.log("filing_event_refused", code=error.code, **state.ids())

    def _claim(self, state: FilingState, action: SendClaim) -> None:
        message = encode_sync(
            FilingClaim(
                plan=state.plan,
                period=state.period,
                owner=state.owner,
                edition=state.edition,
                take=action.take,
                notice=action.notice,
                ask=action.ask,
            )
        )
        for peer in self._context.federation.operators_of(state.owner):
            if peer != self._context.id and self._context.post.up(peer):
                self._books.frame_sent(message, peer, PayloadClass.CONTROL_METADATA, ref=action.notice)
                self._context.send(peer, Kind.SYNC, message)

    def _receipt(self, action: SendReceipt) -> None:
        if not self._book.find("receipt", about=action.notice, author=self._context.id):
            self._book.issue(
                model.Receipt(filing=action.notice, operator=self._context.id, received_at=self._context.now)
            )

    def _announce(self, state: FilingState, action: AnnounceFiling) -> None:
        self._context.log("filing", code=action.code or None, **state.ids())
        if action.phase == "DISPUTED":
            error = DeliveryError(action.code, "the holders of a component do not agree")
            self.refuse(state.notice, state.owner, error, pair=action.blamed)

    def _erase(self, state: FilingState, action: EraseParts) -> None:
        rows = self._store.rows(
            "SELECT filing, sha256 FROM parts WHERE plan = ? AND period = ? AND owner = ? AND edition = ? AND take <= ?"
            " AND erased = 0",
            state.plan, state.period, state.owner, state.edition, action.take,
        )  # fmt: skip
        for filing, sha256 in rows:
            self._store.write("UPDATE parts SET erased = 1 WHERE filing = ?", filing)
            self._books.note("erased", run=state.run_id or None, ref=f"part of filing {str(filing)[:16]}")
            path = self._part_path(state.owner, str(sha256))
            self._context.afterwards(partial(remove_file, path))
