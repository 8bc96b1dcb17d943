"""The group's stage at one operator: crossings in, checked and added; commitments out first, then the sealed part.

A crossing frame is stored sealed, confirmed to its sender, and opened in memory only while an attempt computes. A later
attempt reuses the same frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from mpc_ops.engine import GroupInputs, GroupOutput, Stage, StageOutput, StageShape, group_program
from mpc_ops.envelope.canonical import canonical_bytes, sha256_hex
from mpc_ops.envelope.keys import Purpose
from mpc_ops.envelope.sealing import OVERHEAD_BYTES, SealingPublicKey
from mpc_ops.errors import ComityError, ConfigError, NotYet, PeerProtocolError, PolicyViolation, StateError
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices import model
from mpc_ops.notices.signed import parse_notice, sign_notice
from mpc_ops.plan.layout import lane_count
from mpc_ops.plan.rules import require_flow
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.terms import PartyKeys
from mpc_ops.protocol.sums import CrossRoute, ResultContext, crossing_frame_bytes
from mpc_ops.server.admission import Admission, Admissions
from mpc_ops.server.books import Books
from mpc_ops.server.context import Context
from mpc_ops.server.notices import NoticeBook, Source
from mpc_ops.server.stage_region import cross_info, cross_message, route_of, shape_ops
from mpc_ops.server.sync import BulkMessage, Crossed, CrossFrame, decode_bulk, encode_sync
from mpc_ops.session import SessionState
from mpc_ops.transport.wire import Kind

__all__ = ["GroupStages", "result_info"]


def result_info(run: str, operator: str, recipient: str) -> bytes:
    """Return the HPKE info of a sealed result part."""
    return canonical_bytes({"box": "comity/result/v1", "run": run, "operator": operator, "recipient": recipient})


class GroupStages:
    """`Stages` of group clusters."""

    def __init__(self, context: Context, books: Books, book: NoticeBook, admissions: Admissions) -> None:
        self._context = context
        self._books = books
        self._book = book
        self._admissions = admissions
        self._store = context.store

    # -------------------------------------------------------------------------------------------------- crossings

    def take(self, peer: str, frame: CrossFrame, data: bytes) -> bool:
        """Take a crossing frame of a region operator, store it, confirm it; return whether it is new.

        Raises:
            PeerProtocolError: CROSS_FOREIGN, CROSS_INVALID, SIGNATURE_INVALID, CROSS_CONFLICT.
            PolicyViolation: CROSSING_DENIED for a class that the plan does not have.
        """
        ids = {"run": frame.run_id[:16], "cluster": frame.cluster, "party": peer}
        try:
            found = self._admissions.look(frame.run_id)
        except ComityError:
            return False  # the manifest or a filing is still on its way; the sender repeats the frame
        self._check(peer, frame, found, ids)
        digest = sha256_hex(data)
        known = self._store.value(
            "SELECT digest FROM crossings_in WHERE run = ? AND cluster = ? AND sender = ?",
            frame.run_id, frame.cluster, peer,
        )  # fmt: skip
        if known is not None and known != digest:
            raise PeerProtocolError("CROSS_CONFLICT", "a sender sent two different crossings of one run", ids=ids)
        if known is None:
            self._store.write(
                "INSERT INTO crossings_in VALUES (?, ?, ?, ?, ?, ?)",
                frame.run_id, frame.cluster, peer, frame.attempt, digest, data,
            )  # fmt: skip
            self._books.frame_received(
                data, peer, PayloadClass(frame.payload_class), run=frame.run_id, cluster=found.report.group,
                attempt=frame.attempt,
            )  # fmt: skip
        confirm = Crossed(run_id=frame.run_id, cluster=frame.cluster, digest=digest)
        self._context.send(peer, Kind.SYNC, encode_sync(confirm))
        return known is None

    def _check(self, peer: str, frame: CrossFrame, found: Admission, ids: dict[str, str]) -> None:
        federation = self._context.federation
        group = federation.cluster(found.report.group).operators
        if frame.cluster not in found.clusters or peer not in federation.cluster(frame.cluster).operators:
            raise PeerProtocolError("CROSS_FOREIGN", "a crossing of a region that is not in the run", ids=ids)
        if self._context.id not in group:
            raise PeerProtocolError("CROSS_FOREIGN", "the run's group cluster is another one", ids=ids)
        if frame.payload_class != str(found.report.cross.payload_class):
            raise PolicyViolation(
                "CROSSING_DENIED", "a crossing of another class than the plan's",
                expected=found.report.cross.payload_class, got=frame.payload_class, ids=ids,
            )  # fmt: skip
        expected = crossing_frame_bytes(lane_count(found.report.plan), group.index(self._context.id)) + OVERHEAD_BYTES
        if len(frame.sealed) != expected:
            raise PeerProtocolError(
                "CROSS_INVALID", "a crossing frame has another length",
                expected=f"{expected} bytes", got=f"{len(frame.sealed)} bytes", ids=ids,
            )  # fmt: skip
        message = cross_message(frame, peer, self._context.id)
        if not federation.identity(peer).verify(frame.signature, message, Purpose.CROSS):
            raise PeerProtocolError("SIGNATURE_INVALID", "a crossing frame is not signed by its sender", ids=ids)

    def _frames(self, run: str, cluster: str) -> dict[str, CrossFrame]:
        rows = self._store.rows("SELECT sender, frame FROM crossings_in WHERE run = ? AND cluster = ?", run, cluster)
        found: dict[str, BulkMessage] = {str(sender): decode_bulk(data, str(sender)) for sender, data in rows}
        return {sender: frame for sender, frame in found.items() if isinstance(frame, CrossFrame)}

    # ----------------------------------------------------------------------------------------------------- stages

    def include(self, found: Admission, cluster: str) -> None:
        """Insist on all three frames of every region, and on no other live run of this edition."""
        self._only_run(found, cluster)
        missing = self.missing(found.run)
        if missing:
            raise NotYet(
                "CROSS_MISSING", "crossings are still to come", got=f"none from {', '.join(missing)}"[:200],
                ids={"run": found.run[:16]},
            )  # fmt: skip

    def missing(self, run: str) -> list[str]:
        """Return the region operators whose crossing has not arrived."""
        found = self._admissions.look(run)
        have = {
            (str(cluster), str(sender))
            for cluster, sender in self._store.rows("SELECT cluster, sender FROM crossings_in WHERE run = ?", run)
        }
        federation = self._context.federation
        return [
            sender
            for cluster in sorted(found.clusters)
            for sender in federation.cluster(cluster).operators
            if (cluster, sender) not in have
        ]

    def _only_run(self, found: Admission, cluster: str) -> None:
        manifest = found.manifest
        for signed in self._book.find("manifest", plan=manifest.plan, period=manifest.period, edition=manifest.edition):
            run = self._store.value("SELECT run FROM notices WHERE digest = ?", signed.digest)
            phase = self._store.value("SELECT phase FROM sessions WHERE run = ? AND cluster = ?", run, cluster)
            committed = self._book.find("state", run=str(run), author=self._context.id, cluster=cluster)
            done = any(item.expect(model.State).state == "COMMITTED" for item in committed)
            if run != found.run and (done or phase in {"PREPARED", "ACCEPTED", "COMMITTED"}):
                raise StateError(
                    "RUN_EXISTS", "another run of this edition is live or committed", ids={"run": str(run)[:16]}
                )

    def _result_context(self, found: Admission, state: SessionState) -> ResultContext:
        return ResultContext(
            run_id=found.run,
            cluster=state.cluster,
            recipient=found.report.recipient,
            attempt=state.attempt,
            lanes=lane_count(found.report.plan),
            members=state.members,
        )

    def stage(self, found: Admission, state: SessionState) -> Stage:
        """Return the program that opens every crossing, checks and adds them."""
        lanes, result = lane_count(found.report.plan), self._result_context(found, state)
        shape = StageShape(kind="group", lanes=lanes, ops=shape_ops(found.report, "group_sum", "deliver"))
        sealed = {}
        for cluster in found.clusters:
            route = route_of(self._context.federation, found.report, found.run, cluster)
            sealed[cluster] = (route, self._frames(route.run_id, route.source))

        def program(flow: Flow, keys: PartyKeys) -> Steps[StageOutput]:
            crossings = {cluster: (route, self._opened(route, frames)) for cluster, (route, frames) in sealed.items()}
            inputs = GroupInputs(shape=shape, party=state.party, crossings=crossings, result=result)
            return (yield from group_program(inputs, flow, keys, state.attempt))

        return program

    def frame_class(self, found: Admission) -> PayloadClass:
        """The group adds: its frames carry check sums only."""
        del found
        return PayloadClass.MAC_OR_COMMITMENT

    def _opened(self, route: CrossRoute, frames: Mapping[str, CrossFrame]) -> dict[int, bytes]:
        """Open the frames of one crossing, by the sender's position; reads nothing else, so a thread may do it."""
        out = {}
        for sender, frame in frames.items():
            info = cross_info(route.run_id, sender, self._context.id, frame.attempt)
            try:
                out[route.senders.index(sender)] = self._context.sealing.open(frame.sealed, info)
            except PeerProtocolError as error:
                raise PeerProtocolError(error.code, error.what, ids={**route.ids(), "party": sender}) from None
        return out

    def keep(self, found: Admission, state: SessionState, output: StageOutput) -> None:
        """Sign the commitments, seal the part to the recipient, and journal both."""
        result = cast("GroupOutput", output)
        recipient = found.report.recipient
        decisions = self._admissions.decide(found, recipient)
        self._admissions.note(found, decisions, recipient)
        require_flow(decisions, sender=self._context.id, receiver=recipient)
        entry = self._context.federation.entry(recipient)
        if entry.sealing_key is None:
            raise ConfigError(
                "DIRECTORY_INCOMPLETE", "the recipient's entry has no sealing key", ids={"party": recipient}
            )
        notice = model.ResultCommitment(
            run=found.run,
            cluster=state.cluster,
            operator=self._context.id,
            attempt=state.attempt,
            recipient=recipient,
            lanes=lane_count(found.report.plan),
            commitments=list(result.commitments),
            created_at=self._context.now,
        )
        part = SealingPublicKey.from_text(entry.sealing_key).seal(
            result.part, result_info(found.run, self._context.id, recipient)
        )
        self._store.write(
            "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)",
            found.run, state.attempt, sign_notice(notice, self._context.identity).envelope.to_bytes(), part,
        )  # fmt: skip

    def release(self, state: SessionState) -> None:
        """Publish the commitments; the part can be fetched once all three operators' commitments are here."""
        row = self._store.row(
            "SELECT commitment, part FROM results WHERE run = ? AND attempt = ?", state.run_id, state.attempt
        )
        if row is None:
            return
        signed = parse_notice(row[0])
        if self._book.get(signed.digest) is None:
            self._book.accept(row[0], Source("own", self._context.id))
        report = self._admissions.look(state.run_id).report
        if row[1] is not None:
            self._books.frame_sent(
                row[1], report.recipient, report.deliver.payload_class, run=state.run_id, cluster=state.cluster,
                attempt=state.attempt,
            )  # fmt: skip

    def part(self, run: str) -> bytes:
        """Return the sealed result part of a run, the same bytes every time.

        Raises:
            NotYet: RESULT_NOT_READY until COMMITTED here and all three commitments are here.
            StateError: RESULT_ERASED after acknowledgement, RUN_FAILED.
        """
        ids = {"run": run[:16]}
        states = {
            str(cluster): str(phase)
            for cluster, phase in self._store.rows(
                "SELECT cluster, phase FROM sessions WHERE run = ? AND kind = 'group'", run
            )
        }
        if not states:
            raise StateError("RUN_UNKNOWN", "no run with this id has a session here", ids=ids)
        ((cluster, phase),) = states.items()
        if phase == "ERASED":
            raise StateError("RESULT_ERASED", "the result was acknowledged or its time is over", ids=ids)
        if phase in {"FAILED", "REFUSED"}:
            raise StateError("RUN_FAILED", "the run ended without a result", ids=ids)
        found = self._store.value("SELECT part FROM results WHERE run = ?", run)
        members = set(self._context.federation.cluster(cluster).operators)
        said = {signed.expect(model.ResultCommitment).operator for signed in self._book.find("result", run=run)}
        if phase != "COMMITTED" or found is None or not members <= said:
            raise NotYet(
                "RESULT_NOT_READY", "the part is handed out when all three operators have committed to the result",
                got=f"{phase}, {len(said & members)} of 3 commitments", ids=ids,
            )  # fmt: skip
        return bytes(found)

    def drop(self, state: SessionState) -> None:
        """Delete the result of an attempt that was not committed."""
        self._store.write("DELETE FROM results WHERE run = ?", state.run_id)

    def erase(self, state: SessionState) -> None:
        """Delete crossings and result."""
        self._store.write("DELETE FROM crossings_in WHERE run = ?", state.run_id)
        self._store.write("DELETE FROM results WHERE run = ?", state.run_id)
        for what in ("crossing frames", "result part"):
            self._books.note(
                "erased", once=f"erased/{state.run_id}/{what}", run=state.run_id, cluster=state.cluster, ref=what
            )
