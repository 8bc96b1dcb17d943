"""Parts: what one operator receives of a filing, as one Arrow IPC stream, and the salted commitments to components.

A part holds the operator's two components and the salts of their commitments. Its Arrow schema is fixed by position and
length (one row; a seed is `fixed_size_binary[32]`, an explicit component `fixed_size_list<uint64>[words]`), and its
metadata names the filing. The reader knows the exact schema in advance and refuses everything else.

Where tables of units go with the values, their words follow the lanes in every component, and the numbers of padded rows
stand in the metadata and in the context of the commitments: they are the one thing that the owner chooses, within the
plan's limits, and holders who were told different numbers can't both fit what the owner signed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mpc_ops.errors import LocalProtocolError, PeerProtocolError
from mpc_ops.randomness import SEED_BYTES, ContextItem, encode_context
from mpc_ops.ring import LANE_BYTES, RingArray
from mpc_ops.ring.planes import PlaneArray
from mpc_ops.sharing.components import Component, OwnerSharing, held_by
from mpc_ops.sharing.ipc_body import is_plain_batch
from mpc_ops.sharing.units import NO_UNITS, UnitLimits, UnitTables

__all__ = [
    "MAX_PART_LANES",
    "ExpandedPart",
    "FilingContext",
    "PartPayload",
    "check_part",
    "commitment",
    "expand_part",
    "part_limit_bytes",
    "parts_of",
    "read_part",
    "sharing_commitments",
    "write_part",
]

MAX_PART_LANES = 1 << 24
SALT_BYTES = 32
_FORMAT = "comity/part/v1"
_OVERHEAD_BYTES = 4096
_KINDS = ("seed", "seed", "explicit")
_ROWS = re.compile(rb"[1-9][0-9]{0,10}(,[1-9][0-9]{0,10})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilingContext:
    """The filing that a component belongs to: (plan digest, period, owner, edition, take)."""

    plan_digest: str
    period: str
    owner: str
    edition: int
    take: int

    def items(self) -> tuple[ContextItem, ...]:
        """Return the context tuple of commitments."""
        return ("filing", self.plan_digest, self.period, self.owner, self.edition, self.take)

    def ids(self) -> dict[str, object]:
        """Ids that place an error."""
        return {"owner": self.owner, "period": self.period, "edition": self.edition, "take": self.take}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartPayload:
    """One operator's part of a filing.

    Attributes:
        filing: which filing.
        party: position of the operator.
        lanes: number of ring values, fixed by the plan.
        first: component `party`.
        second: component `party + 1 mod 3`.
        salts: commitment salts of the two, in the same order.
        units: shape of the tables that follow the lanes.
    """

    filing: FilingContext
    party: int
    lanes: int
    first: Component
    second: Component
    salts: tuple[bytes, bytes]
    units: UnitTables = NO_UNITS

    @property
    def words(self) -> int:
        """Words of each component: lanes, then those of the tables."""
        return self.lanes + self.units.words

    def __repr__(self) -> str:
        return f"PartPayload({self.filing!r}, party={self.party}, lanes={self.lanes}, <redacted>)"


@dataclass(frozen=True, slots=True)
class ExpandedPart:
    """Both components of a part as vectors and planes.

    Attributes:
        values: component `party` and component `party + 1` of the ring values, shape (lanes,) each.
        tables: the same two of each table of bits, shape (width, rows / 64).
    """

    values: tuple[RingArray, RingArray]
    tables: list[tuple[PlaneArray, PlaneArray]]

    def __repr__(self) -> str:
        return f"ExpandedPart({len(self.values[0])} lanes, {len(self.tables)} tables, <redacted>)"


def expand_part(part: PartPayload) -> ExpandedPart:
    """Return a part's components as vectors; its seeds become streams."""
    first, second = part.first.expand(part.words), part.second.expand(part.words)
    tables = (part.units.split(component[part.lanes :]) for component in (first, second))
    return ExpandedPart((first[: part.lanes], second[: part.lanes]), list(zip(*tables, strict=True)))


def commitment(salt: bytes, context: Sequence[ContextItem], body: bytes) -> str:
    """Return SHA-256("comity/commit/v1" || salt || context || body) in hex.

    The 32-byte salt lies only with the two holders of the component, so the commitment is no test for guesses.
    """
    if len(salt) != SALT_BYTES:
        raise LocalProtocolError(
            "SALT_LENGTH", "a salt has another length", expected="32 bytes", got=f"{len(salt)} bytes"
        )
    digest = hashlib.sha256(b"comity/commit/v1")
    digest.update(salt)
    # The length prefix of the context keeps a byte of it from ever being read as one of the body.
    encoded = encode_context(*context)
    digest.update(len(encoded).to_bytes(8, "big") + encoded)
    digest.update(body)
    return digest.hexdigest()


def _component_context(filing: FilingContext, index: int, units: UnitTables) -> tuple[ContextItem, ...]:
    shape: tuple[ContextItem, ...] = ("units", units.width, *units.rows) if units.rows else ()
    return (*filing.items(), "component", index, _KINDS[index], *shape)


def sharing_commitments(sharing: OwnerSharing, filing: FilingContext) -> tuple[str, str, str]:
    """Return the three commitments that stand in the owner's `filed` notice (to seeds, never to expansions)."""
    first, second, third = (
        commitment(
            sharing.salts[index], _component_context(filing, index, sharing.units), sharing.components[index].body()
        )
        for index in range(3)
    )
    return first, second, third


def parts_of(sharing: OwnerSharing, filing: FilingContext) -> tuple[PartPayload, PartPayload, PartPayload]:
    """Return the three parts, by position."""
    parts = []
    for party in range(3):
        first, second = held_by(party)
        parts.append(
            PartPayload(
                filing=filing,
                party=party,
                lanes=sharing.lanes,
                first=sharing.components[first],
                second=sharing.components[second],
                salts=(sharing.salts[first], sharing.salts[second]),
                units=sharing.units,
            )
        )
    return parts[0], parts[1], parts[2]


def check_part(part: PartPayload, commitments: Sequence[str]) -> None:
    """Compare a part with the three commitments of the owner's signed notice.

    Raises:
        PeerProtocolError: COMMITMENT_MISMATCH, naming owner and component.
    """
    if len(commitments) != 3:
        raise PeerProtocolError(
            "COMMITMENT_MISMATCH", "a filing has three commitments", got=len(commitments), ids=part.filing.ids()
        )
    for index, component, salt in zip(held_by(part.party), (part.first, part.second), part.salts, strict=True):
        found = commitment(salt, _component_context(part.filing, index, part.units), component.body())
        if not hmac.compare_digest(found, commitments[index]):
            raise PeerProtocolError(
                "COMMITMENT_MISMATCH",
                "a component does not fit the commitment that its owner signed",
                ids={**part.filing.ids(), "component": index},
                hint="The owner must file again",
            )


def part_limit_bytes(lanes: int, units: UnitLimits | None = None) -> int:
    """Return the most bytes that a part of so many lanes, and tables within `units`, can have; more is refused unread."""
    return (lanes + (0 if units is None else units.words)) * LANE_BYTES + _OVERHEAD_BYTES


def _schema(filing: FilingContext, party: int, lanes: int, units: UnitTables) -> pa.Schema:
    words = pa.list_(pa.field("lane", pa.uint64(), nullable=False), lanes + units.words)
    types = {"seed": pa.binary(SEED_BYTES), "explicit": words}
    first, second = held_by(party)
    fields = [
        pa.field("first", types[_KINDS[first]], nullable=False),
        pa.field("second", types[_KINDS[second]], nullable=False),
        pa.field("first_salt", pa.binary(SALT_BYTES), nullable=False),
        pa.field("second_salt", pa.binary(SALT_BYTES), nullable=False),
    ]
    metadata = {
        "format": _FORMAT, "plan": filing.plan_digest, "period": filing.period, "owner": filing.owner,
        "edition": str(filing.edition), "take": str(filing.take), "party": str(party), "lanes": str(lanes),
    }  # fmt: skip
    if units.rows:
        metadata |= {"width": str(units.width), "rows": ",".join(map(str, units.rows))}
    return pa.schema(fields, metadata=metadata)


def write_part(part: PartPayload) -> bytes:
    """Return the Arrow IPC stream of a part (16 bytes per word over all three parts, plus at most 4 KiB each)."""
    if part.lanes < 0 or not 0 < part.words <= MAX_PART_LANES:
        raise LocalProtocolError("LANES_INVALID", "a part has no or too many lanes", got=part.words)
    schema = _schema(part.filing, part.party, part.lanes, part.units)
    arrays = []
    for field, component in zip(schema, (part.first, part.second), strict=False):
        if component.kind == "seed":
            arrays.append(pa.array([component.body()], type=field.type))
        else:
            values = pa.array(component.expand(part.words), type=pa.uint64())
            arrays.append(pa.FixedSizeListArray.from_arrays(values, type=field.type))
    arrays += [pa.array([salt], type=pa.binary(SALT_BYTES)) for salt in part.salts]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_part(
    data: bytes, filing: FilingContext, party: int, lanes: int, limits: UnitLimits | None = None
) -> PartPayload:
    """Read a part and insist that it is exactly the one expected.

    Args:
        data: the opened (decrypted) part.
        filing: the filing that the owner's signed notice names.
        party: own position.
        lanes: the plan's number of shared values.
        limits: the plan's limits of the units' tables; None where none go with the values.

    Raises:
        PeerProtocolError: PART_INVALID for anything else: too long, cut, trailing bytes, other schema, other filing,
            NULLs, more or fewer rows, tables beyond the limits, a compressed body. Memory: about the part's size again.
    """
    limit = part_limit_bytes(lanes, limits)
    if len(data) > limit:
        raise _invalid(filing, "the part is too long", f"at most {limit} bytes", f"{len(data)} bytes")
    try:
        source = pa.BufferReader(data)
        _check_messages(data, filing)
        with pa.ipc.open_stream(source) as reader:
            units = _units(reader.schema, limits, filing)
            if not reader.schema.equals(_schema(filing, party, lanes, units), check_metadata=True):
                raise _invalid(
                    filing, "the part belongs to another filing, operator or plan, or has another form", None, None
                )
            batches = list(reader)
        if source.tell() != len(data) or len(batches) != 1 or batches[0].num_rows != 1:
            raise _invalid(filing, "the part does not hold one batch of one row", None, f"{len(batches)} batches")
        batch = batches[0]
        batch.validate(full=True)
    except (pa.ArrowException, OSError, ValueError):
        raise _invalid(
            filing, "the part is not an Arrow stream of the expected form", None, f"{len(data)} bytes"
        ) from None
    if any(column.null_count for column in batch.columns):
        raise _invalid(filing, "the part holds NULLs", None, None)
    first, second = (_component(batch.column(position), filing, lanes + units.words) for position in range(2))
    salts = (batch.column(2)[0].as_py(), batch.column(3)[0].as_py())
    return PartPayload(filing=filing, party=party, lanes=lanes, first=first, second=second, salts=salts, units=units)


def _check_messages(data: bytes, filing: FilingContext) -> None:
    """Insist on a schema and one batch that lies in the stream as it is, before anything is read from its body."""
    messages = list(pa.ipc.MessageReader.open_stream(pa.BufferReader(data)))
    if [message.type for message in messages] != ["schema", "record batch"]:
        raise _invalid(filing, "the part does not hold one batch of one row", None, f"{len(messages)} messages")
    if not is_plain_batch(messages[1].metadata.to_pybytes()):
        raise _invalid(filing, "the part's body is compressed or of another version", None, None)


def _units(schema: pa.Schema, limits: UnitLimits | None, filing: FilingContext) -> UnitTables:
    """Return the tables' shape that a part states, if the plan allows it."""
    if limits is None:
        return NO_UNITS
    stated = (schema.metadata or {}).get(b"rows", b"")
    numbers = stated.split(b",") if len(stated) <= 12 * limits.tables and _ROWS.fullmatch(stated) else []
    found = UnitTables(limits.width, tuple(int(number) for number in numbers))
    if not limits.allow(found):
        raise _invalid(filing, "the part states tables of units that the plan does not allow", None, None)
    return found


def _component(column: pa.Array, filing: FilingContext, words: int) -> Component:
    if pa.types.is_fixed_size_binary(column.type):
        return Component(seed=column[0].as_py())
    values = column.flatten()
    if values.null_count or not len(values) == len(column.values) == words:
        raise _invalid(filing, "the part holds NULLs", None, None)
    explicit: RingArray = np.ascontiguousarray(values.to_numpy(zero_copy_only=True))
    return Component(explicit=explicit)


def _invalid(filing: FilingContext, what: str, expected: str | None, got: str | None) -> PeerProtocolError:
    return PeerProtocolError("PART_INVALID", what, expected=expected, got=got, ids=filing.ids())
