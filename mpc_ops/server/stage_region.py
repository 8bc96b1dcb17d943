"""The region's stage at one operator: open the parts of the manifest's filings, add, re-share over the border.

Before each byte crosses, the sending operator asks the rules again: a frame of a class that they do not allow is not made
and not sent. Frames are sealed to the group operator, signed, and journaled before ACCEPTED.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from mpc_ops.engine import RegionInputs, RegionOutput, Stage, StageOutput, region_shape, region_stage_of
from mpc_ops.envelope.canonical import canonical_bytes, sha256_hex
from mpc_ops.envelope.keys import Purpose
from mpc_ops.envelope.sealing import SealingPublicKey
from mpc_ops.errors import ComityError, ConfigError, NotYet
from mpc_ops.federation.loaded import Federation
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices import model
from mpc_ops.plan.layout import lane_count
from mpc_ops.plan.rules import require_flow
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.terms import PartyKeys
from mpc_ops.protocol.sums import CrossRoute
from mpc_ops.server.admission import Admission, Admissions
from mpc_ops.server.books import Books
from mpc_ops.server.context import Context
from mpc_ops.server.filings import Filings
from mpc_ops.server.periods import Periods
from mpc_ops.server.reports import Report
from mpc_ops.server.sync import Crossed, CrossFrame, encode_sync
from mpc_ops.session import FILING, ManifestNames, ManifestOmits, RunEnded, SessionState
from mpc_ops.transport.wire import Kind

__all__ = ["RegionStages", "cross_info", "cross_message", "route_of", "shape_ops"]


def shape_ops(report: Report, *names: str) -> tuple[str, ...]:
    """Return the plan's node ops that stand after the owner's `share`, of the stage that has `names`."""
    ops = [str(type(node).__struct_config__.tag) for node in report.plan.nodes]
    after = ops[ops.index("share") + 1 :]
    cut = after.index("cross") + 1
    return tuple(after[:cut] if "cross" in names else after[cut:])


def route_of(federation: Federation, report: Report, run: str, cluster: str) -> CrossRoute:
    """Return the crossing of a region cluster in a run."""
    senders, receivers = federation.cluster(cluster).operators, federation.cluster(report.group).operators
    return CrossRoute(
        run_id=run,
        source=cluster,
        target=report.group,
        crossing=report.cross.id,
        lanes=lane_count(report.plan),
        senders=(senders[0], senders[1], senders[2]),
        receivers=(receivers[0], receivers[1], receivers[2]),
    )


def cross_info(run: str, sender: str, receiver: str, attempt: int) -> bytes:
    """Return the HPKE info of a sealed crossing frame."""
    return canonical_bytes(
        {"box": "comity/cross/v1", "run": run, "sender": sender, "receiver": receiver, "attempt": attempt}
    )


def cross_message(frame: CrossFrame, sender: str, receiver: str) -> bytes:
    """Return what the sender signs (purpose CROSS): the place of the frame and the digest of its ciphertext."""
    return canonical_bytes(
        {
            "run": frame.run_id,
            "cluster": frame.cluster,
            "sender": sender,
            "receiver": receiver,
            "attempt": frame.attempt,
            "payload_class": frame.payload_class,
            "sha256": sha256_hex(frame.sealed),
        }
    )


class RegionStages:
    """`Stages` of region clusters."""

    def __init__(
        self, context: Context, books: Books, filings: Filings, periods: Periods, admissions: Admissions
    ) -> None:
        self._context = context
        self._books = books
        self._filings = filings
        self._periods = periods
        self._admissions = admissions
        self._store = context.store
        self.to_self: Callable[[bytes], None] | None = None
        """Takes a crossing whose receiver is this very operator (it sits in both clusters)."""

    def include(self, found: Admission, cluster: str) -> None:
        """Step the filings of the region: named ones INCLUDED, the others LATE."""
        manifest = found.manifest
        for owner in self._context.owners_of(cluster):
            state = self._filings.state(manifest.plan, manifest.period, owner, manifest.edition)
            signed = found.filings.get(owner)
            if signed is None:
                if self._periods.find(manifest.plan, manifest.period, manifest.edition) is not None:
                    self._filings.step(state, ManifestOmits(found.run))
                continue
            take = signed.expect(model.Filed).take
            if state.phase in {"EXPECTED", "RECEIVED"} or (state.phase in {"AGREED", "REJECTED"} and state.take < take):
                # Its part, or the other holders' claims, may be a moment behind the manifest.
                raise NotYet("FILING_NOT_AGREED", "a filing of the manifest is not agreed here", ids=state.ids())
            self._filings.step(state, ManifestNames(found.run, take, signed.digest))

    def omit(self, found: Admission) -> None:
        """Where a whole region of ours is left out, its owners are late."""
        manifest = found.manifest
        if self._periods.find(manifest.plan, manifest.period, manifest.edition) is None:
            return
        for owner in sorted({*manifest.late, *manifest.excluded}):
            cluster = self._context.federation.region_of(owner)[1].cluster
            if cluster in self._context.clusters and cluster not in found.clusters:
                state = self._filings.state(manifest.plan, manifest.period, owner, manifest.edition)
                self._filings.step(state, ManifestOmits(found.run))

    def stage(self, found: Admission, state: SessionState) -> Stage:
        """Return the program that opens all parts again, adds them and, where the plan says so, passes the Gate."""
        openers = [self._filings.payload(found.filings[owner]) for owner in found.clusters[state.cluster]]
        plan, route = found.report.plan, route_of(self._context.federation, found.report, found.run, state.cluster)
        shape = region_shape(plan, shape_ops(found.report, "region_sum", "cross"))

        def program(flow: Flow, keys: PartyKeys) -> Steps[StageOutput]:
            parts = [opener() for opener in openers]
            inputs = RegionInputs(shape=shape, party=state.party, parts=parts, route=route)
            return (yield from region_stage_of(plan, inputs, state.attempt)(flow, keys))

        return program

    def frame_class(self, found: Admission) -> PayloadClass:
        """Frames of a Gate on shares carry what the owners' parts carry; those of sums carry check sums only."""
        gate = found.report.plan.gate
        return gate.shared_class if gate.where == "region" else PayloadClass.MAC_OR_COMMITMENT

    def keep(self, found: Admission, state: SessionState, output: StageOutput) -> None:
        """Ask the rules, seal and sign one frame for each group operator, and journal them unsent."""
        bodies = cast("RegionOutput", output).crossings
        receivers = self._context.federation.cluster(found.report.group).operators
        for receiver, body in zip(receivers, bodies, strict=True):
            self._require(found, receiver)
            frame = self._sealed(found, state, receiver, body)
            self._store.write(
                "INSERT OR REPLACE INTO crossings_out VALUES (?, ?, ?, ?, ?, ?, 0)",
                found.run, state.cluster, receiver, state.attempt, frame.payload_class, encode_sync(frame),
            )  # fmt: skip

    def _require(self, found: Admission, receiver: str) -> None:
        decisions = self._admissions.decide(found, receiver)
        self._admissions.note(found, decisions, receiver)
        require_flow(decisions, sender=self._context.id, receiver=receiver)

    def _sealed(self, found: Admission, state: SessionState, receiver: str, body: bytes) -> CrossFrame:
        entry = self._context.federation.entry(receiver)
        if entry.sealing_key is None:
            raise ConfigError(
                "DIRECTORY_INCOMPLETE", "a group operator's entry has no sealing key", ids={"party": receiver}
            )
        info = cross_info(found.run, self._context.id, receiver, state.attempt)
        frame = CrossFrame(
            run_id=found.run,
            cluster=state.cluster,
            attempt=state.attempt,
            payload_class=str(found.report.cross.payload_class),
            sealed=SealingPublicKey.from_text(entry.sealing_key).seal(body, info),
            signature=bytes(3309),
        )
        message = cross_message(frame, self._context.id, receiver)
        return CrossFrame(
            run_id=frame.run_id,
            cluster=frame.cluster,
            attempt=frame.attempt,
            payload_class=frame.payload_class,
            sealed=frame.sealed,
            signature=self._context.identity.sign(message, Purpose.CROSS),
        )

    def release(self, state: SessionState) -> None:
        """Send the journaled frames that are not confirmed, the same bytes each time, if the rules still allow it."""
        rows = self._store.rows(
            "SELECT receiver, payload_class, frame FROM crossings_out"
            " WHERE run = ? AND cluster = ? AND attempt = ? AND acked = 0",
            state.run_id, state.cluster, state.attempt,
        )  # fmt: skip
        for receiver, payload_class, frame in rows:
            own = receiver == self._context.id
            if not own and not self._context.post.up(receiver):
                continue
            try:
                self._require(self._admissions.look(state.run_id), receiver)
            except ComityError as error:
                self._admissions.note_denial(state.run_id, error, receiver)
                self._context.log("crossing_denied", code=error.code, receiver=receiver, **state.ids())
                continue
            self._books.frame_sent(
                frame, receiver, PayloadClass(payload_class), run=state.run_id, cluster=state.cluster,
                attempt=state.attempt,
            )  # fmt: skip
            if not own:
                self._context.send(receiver, Kind.FRAME, frame)
            elif self.to_self is not None:
                self.to_self(frame)

    def confirmed(self, peer: str, message: Crossed) -> bool:
        """A group operator holds our frame; return whether that was the last one of the run."""
        row = self._store.row(
            "SELECT frame FROM crossings_out WHERE run = ? AND cluster = ? AND receiver = ? AND acked = 0",
            message.run_id, message.cluster, peer,
        )  # fmt: skip
        if row is None or sha256_hex(row[0]) != message.digest:
            return False
        self._store.write(
            "UPDATE crossings_out SET acked = 1 WHERE run = ? AND cluster = ? AND receiver = ?",
            message.run_id, message.cluster, peer,
        )  # fmt: skip
        return self.all_confirmed(message.run_id, message.cluster)

    def confirm_all(self, run: str, cluster: str) -> None:
        """The group has computed, so it holds every frame."""
        self._store.write("UPDATE crossings_out SET acked = 1 WHERE run = ? AND cluster = ?", run, cluster)

    def all_confirmed(self, run: str, cluster: str) -> bool:
        """Return whether every frame of a session was sent and confirmed."""
        counts = self._store.row(
            "SELECT count(*), sum(acked) FROM crossings_out WHERE run = ? AND cluster = ?", run, cluster
        )
        return counts is not None and counts[0] == 3 and counts[1] == 3

    def drop(self, state: SessionState) -> None:
        """Delete journaled frames of attempts that will never be committed, or whose run is over."""
        self._store.write("DELETE FROM crossings_out WHERE run = ? AND cluster = ?", state.run_id, state.cluster)

    def erase(self, state: SessionState) -> None:
        """Delete frames; parts and period key go with the filings."""
        self.drop(state)

    # ------------------------------------------------------------------------------------------------------ hooks

    def committed(self, _state: SessionState) -> None:
        """Nothing to do: filings stay INCLUDED until the run is over."""

    def ended(self, state: SessionState) -> None:
        """The run failed: its filings can be closed anew."""
        self.end_filings(state.run_id, committed=False)

    def erased(self, state: SessionState) -> None:
        """Acknowledged or over: erase the parts, destroy the period's key."""
        if state.kind != "region":
            return
        committed = state.ended == "COMMITTED"
        self.end_filings(state.run_id, committed=committed)
        if committed:
            manifest = self._admissions.manifest(state.run_id)
            if self._periods.destroy(manifest.plan, manifest.period, manifest.edition):
                ref = f"period key {manifest.period} edition {manifest.edition}"
                self._books.note("erased", run=state.run_id, cluster=state.cluster, ref=ref)

    def end_filings(self, run: str, *, committed: bool) -> None:
        """Tell the filings that a run included or left out that it is over."""
        for filing in self._filings.of_run(run):
            after, _ = FILING.step(filing, RunEnded(run, committed))
            if after != filing:
                self._filings.step(filing, RunEnded(run, committed))
