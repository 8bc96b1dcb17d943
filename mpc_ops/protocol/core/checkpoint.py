"""Checkpoints: a long program as steps, each of which ends behind its barrier, and a later session that goes on from one.

```
session 1   step 0 ── ACCEPT ── save 1 ── step 1 ── ACCEPT ── save 2 ── step 2 ✗
session 2   have? ── the highest checkpoint that all three have ── what others heard, what pairs hold ── step 2 ── ...
```
A new session has fresh nonces and so fresh keys: no stream of the failed one is used again, and what a step had sent
before it failed is worth nothing. Only shares that all three accepted are saved, so nothing unproven is ever carried over.
Each pair of holders compares the component that both hold by HMAC under the new session's pair key, so a saved share that was
altered on a disk is found before it is used. With it each says what the third claimed to have: who tells the two others different
things would else have them go on from different steps, and each of them would take the other for the culprit. If one operator's shares are lost, the step runs again from an earlier checkpoint.

Saved bytes are shares: they stay at their operator, encrypted at rest by its keeper, and no digest of them leaves it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, Protocol, TypeAlias

from msgspec import Meta

from mpc_ops.envelope.schema import Model, decode, encode
from mpc_ops.errors import Abort, ConfigError, LocalProtocolError
from mpc_ops.protocol.core.flow import Flow
from mpc_ops.protocol.core.party import Steps
from mpc_ops.protocol.core.rows import Column, Rows
from mpc_ops.protocol.core.shares import BooleanPlanes, boolean_of, ring_of
from mpc_ops.protocol.core.stage import ActiveStage, ComputeStage
from mpc_ops.ring import LANE_BYTES, RingArray, from_bytes, to_bytes
from mpc_ops.ring.planes import words_for

__all__ = ["MAX_STEPS", "Keeper", "Step", "decode_checkpoint", "encode_checkpoint", "run_steps"]

Step: TypeAlias = Callable[[Flow, Rows], Steps[Rows]]
"""A part of a program: rows in, rows out; it may open what it declares. Three parties have the same steps."""

MAX_STEPS = 64
_MAC_BYTES = 32
_HEADER_BYTES = 4
_MAX_HEADER = 1 << 20


class Keeper(Protocol):
    """Where one operator keeps its checkpoints of one run; encrypted at rest, readable by nobody else."""

    def numbers(self) -> Sequence[int]:
        """Return the numbers of the checkpoints that are there."""

    def save(self, number: int, data: bytes) -> None:
        """Store a checkpoint; it is durable when this returns. Storing one again replaces it."""

    def read(self, number: int) -> bytes:
        """Return a checkpoint."""

    def drop(self, number: int) -> None:
        """Delete a checkpoint; gone for good when this returns."""


class _ColumnHead(Model, frozen=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    width: Annotated[int, Meta(ge=0, le=4096)] | None


class _Head(Model, frozen=True, kw_only=True):
    format: Literal["comity/checkpoint/v1"] = "comity/checkpoint/v1"
    plan: Annotated[str, Meta(max_length=200)]
    number: Annotated[int, Meta(ge=1, lt=MAX_STEPS)]
    party: Literal[0, 1, 2]
    security: Literal["active", "passive"]
    count: Annotated[int, Meta(ge=0, le=1 << 32)]
    columns: Annotated[list[_ColumnHead], Meta(min_length=1, max_length=4096)]


def encode_checkpoint(
    rows: Rows, *, plan: str, number: int, party: int, security: Literal["active", "passive"]
) -> bytes:
    """Return a checkpoint's bytes: a header and both components of every column.

    Args:
        rows: what the step gave.
        plan: what the run computes (its plan digest, or a name); a checkpoint of another plan is refused.
        number: number of the step that comes next.
        party: own position.
        security: kind of session.
    """
    columns = [
        _ColumnHead(name=name, width=column.width if isinstance(column, BooleanPlanes) else None)
        for name, column in rows.columns.items()
    ]
    head = encode(
        _Head(plan=plan, number=number, party=_position(party), security=security, count=rows.count, columns=columns)
    )
    parts = [len(head).to_bytes(_HEADER_BYTES, "little"), head]
    for column in rows.columns.values():
        parts += [to_bytes(words) for words in column.words()]
    return b"".join(parts)


def _position(party: int) -> Literal[0, 1, 2]:
    positions: Mapping[int, Literal[0, 1, 2]] = {0: 0, 1: 1, 2: 2}
    return positions[party]


def decode_checkpoint(data: bytes, stage: ComputeStage, *, plan: str, number: int) -> Rows:
    """Return a checkpoint's rows as shares of the stage's session.

    Raises:
        LocalProtocolError: CHECKPOINT_INVALID for bytes that are not a checkpoint of this plan, number, position and kind.
    """
    size = int.from_bytes(data[:_HEADER_BYTES], "little")
    if not 0 < size <= min(_MAX_HEADER, len(data) - _HEADER_BYTES):
        raise _invalid(stage, "its header has no length")
    try:
        head = decode(data[_HEADER_BYTES : _HEADER_BYTES + size], _Head, what="checkpoint")
    except ConfigError:
        raise _invalid(stage, "its header cannot be read") from None
    security = "active" if isinstance(stage, ActiveStage) else "passive"
    if (head.plan, head.number, head.party, head.security) != (plan, number, stage.party, security):
        raise _invalid(stage, "it is of another plan, step, position or kind of session")
    lengths = [head.count if column.width is None else column.width * words_for(head.count) for column in head.columns]
    if len(data) != _HEADER_BYTES + size + 2 * LANE_BYTES * sum(lengths):
        raise _invalid(stage, "it has another length than its columns")
    columns: dict[str, Column] = {}
    place = _HEADER_BYTES + size
    for column, length in zip(head.columns, lengths, strict=True):
        first, second = (_words(data, place + turn * LANE_BYTES * length, length) for turn in range(2))
        place += 2 * LANE_BYTES * length
        if column.width is None:
            columns[column.name] = ring_of(stage, first, second)
        else:
            shape = column.width, words_for(head.count)
            columns[column.name] = boolean_of(stage, head.count, first.reshape(shape), second.reshape(shape))
    if len(columns) != len(head.columns):
        raise _invalid(stage, "a column is there twice")
    return Rows(columns)


def _words(data: bytes, start: int, length: int) -> RingArray:
    return from_bytes(data[start : start + LANE_BYTES * length], length)


def _invalid(stage: ComputeStage, what: str) -> LocalProtocolError:
    return LocalProtocolError(
        "CHECKPOINT_INVALID",
        f"a checkpoint cannot be used: {what}",
        ids=stage.ids(),
        hint="Delete this run's checkpoints at all three operators; it then starts from the owners' parts",
    )


def run_steps(flow: Flow, keeper: Keeper, plan: str, rows: Rows, steps: Sequence[Step]) -> Steps[Rows]:
    """Run a program step by step from the last checkpoint that all three have, and save one after each step but the last.

    Run by: all three parties, in lock-step.

    Args:
        flow: a flow of a new session of either kind.
        keeper: own checkpoints of this run.
        plan: what is computed, the same at all three.
        rows: the input, used if there is no common checkpoint.
        steps: 1 to MAX_STEPS.

    Returns:
        What the last step gave; the caller ends its stage.

    Rounds: 1, in an active session 2; the steps' and those of a barrier between them.
    Sent: 16 bytes per party, and 80 more in an active session.
    Security: malicious with abort in an active session. A party that claims checkpoints which it does not have, or other ones to
        each, is stopped by the comparison.  Leaks: which checkpoints each party has.

    Raises:
        LocalProtocolError: STEPS_INVALID, CHECKPOINT_INVALID.
        Abort: CHECKPOINT_MISMATCH, naming the pair that holds different shares, or of which one claimed what the other did not hear.
    """
    if not 1 <= len(steps) <= MAX_STEPS:
        raise LocalProtocolError("STEPS_INVALID", "a program has 1 to 64 steps", got=len(steps))
    start, claims = yield from _common(flow.stage, keeper, len(steps))
    if start:
        rows = decode_checkpoint(keeper.read(start), flow.stage, plan=plan, number=start)
    if isinstance(flow.stage, ActiveStage):
        yield from _compare(flow.stage, plan, start, rows if start else None, claims)
    # Later ones are of a session that is over. A crash among the next steps must not leave an old one beside peers' new ones.
    for number in keeper.numbers():
        if number > start:
            keeper.drop(number)
    for number, step in enumerate(steps[start:], start + 1):
        rows = yield from step(flow, rows)
        if number < len(steps):
            party = flow.stage.party
            yield from flow.finish()
            keeper.save(number, encode_checkpoint(rows, plan=plan, number=number, party=party, security=flow.security))
    return rows


def _common(stage: ComputeStage, keeper: Keeper, steps: int) -> Steps[tuple[int, dict[int, bytes]]]:
    """Return the highest checkpoint that all three have, 0 if there is none, and what the two others claimed, by position."""
    own = sum(1 << number for number in set(keeper.numbers()) if 0 < number < steps)
    body = own.to_bytes(LANE_BYTES, "little")
    inbound = yield from stage.exchange(
        "checkpoints", to_prev=body, to_next=body, expect_prev=LANE_BYTES, expect_next=LANE_BYTES
    )
    claims = {(stage.party - 1) % 3: bytes(inbound.from_prev), (stage.party + 1) % 3: bytes(inbound.from_next)}
    common = own
    for said in claims.values():
        common &= int.from_bytes(said, "little")
    return max(common.bit_length() - 1, 0), claims


def _compare(stage: ActiveStage, plan: str, number: int, rows: Rows | None, claims: Mapping[int, bytes]) -> Steps[None]:
    """Compare with each peer what the third claimed, and by HMAC under the pair's key the component that both hold."""
    before, after = (stage.party - 1) % 3, (stage.party + 1) % 3
    held = {before: _digest(rows, "first"), after: _digest(rows, "second")}
    own = {peer: stage.mac(peer, "checkpoint", plan, number, stage.party, held[peer]) for peer in held}
    size = LANE_BYTES + _MAC_BYTES
    inbound = yield from stage.exchange(
        "checkpoint-held", to_prev=claims[after] + own[before], to_next=claims[before] + own[after],
        expect_prev=size, expect_next=size,
    )  # fmt: skip
    heard = {before: bytes(inbound.from_prev), after: bytes(inbound.from_next)}
    for peer, third in ((before, after), (after, before)):
        # Before shares are compared: two that were told different things would compare different steps.
        if heard[peer][:LANE_BYTES] != claims[third]:
            raise _mismatch(
                stage, number, peer, third, "a party claimed other checkpoints to each, or one misquotes it"
            )
    for peer, said in heard.items():
        if not hmac.compare_digest(said[LANE_BYTES:], stage.mac(peer, "checkpoint", plan, number, peer, held[peer])):
            raise _mismatch(stage, number, stage.party, peer, "the two holders of a component saved different ones")


def _mismatch(stage: ActiveStage, number: int, one: int, other: int, what: str) -> Abort:
    return Abort(
        "CHECKPOINT_MISMATCH",
        what,
        ids={**stage.ids(), "checkpoint": number, "pair": stage.pair(one, other)},
        hint="Delete this run's checkpoints at all three operators; it then starts from the owners' parts",
    )


def _digest(rows: Rows | None, side: Literal["first", "second"]) -> bytes:
    """Return a digest of one component of all columns; of nothing where there is no common checkpoint."""
    digest = hashlib.sha256()
    if rows is None:
        return digest.digest()
    for name, column in rows.columns.items():
        words = column.words()[0 if side == "first" else 1]
        digest.update(f"{len(name)}:{name}:{len(words)}:".encode())
        digest.update(to_bytes(words))
    return digest.digest()
