"""Share and seal: one task, one moment in memory. Unsealed shares are never written anywhere.

```
out/<filing>/part.<operator>   sealed parts, three for data, none for an empty submission
out/<filing>/filed.dsse        the signed notice; written last: without it the take does not exist
takes/<owner>/<plan>/<period>/<edition>/<take>   names the filing
```
Retries read these bytes back, so that what is delivered is byte-identical for ever.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from local_stores.config import State
from local_stores.errors import ConfigError
from local_stores.snapshot.record import Contribution, ContributionId
from local_stores.snapshot.unit_rows import shuffled_planes
from mpc_ops.envelope.canonical import canonical_bytes, sha256_hex
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.envelope.sealing import SealingPublicKey
from mpc_ops.ids import check_digest
from mpc_ops.notices.model import Filed, Part, PeriodKeyNotice, SignOff
from mpc_ops.notices.signed import SignedNotice, parse_notice, sign_notice, utc_text
from mpc_ops.randomness import SEED_BYTES
from mpc_ops.sharing import FilingContext, parts_of, share, sharing_commitments, write_part

__all__ = ["Take", "box_info", "latest_take", "load_take", "seal_take"]

_LIMIT_BYTES = 1 << 33


@dataclass(frozen=True)
class Take:
    """A written filing.

    Attributes:
        notice: the signed `filed` notice; its digest is the filing id.
        parts: names of the sealed parts in state, by operator.
    """

    notice: SignedNotice
    parts: Mapping[str, str]

    @property
    def filed(self) -> Filed:
        """The notice's content."""
        return self.notice.expect(Filed)

    @property
    def filing(self) -> str:
        """The filing id."""
        return self.notice.digest


def box_info(filing: FilingContext, operator: str) -> bytes:
    """Return the HPKE info that binds a sealed part to its filing and operator."""
    return canonical_bytes(
        {
            "box": "comity/part/v1",
            "plan": filing.plan_digest,
            "period": filing.period,
            "owner": filing.owner,
            "edition": filing.edition,
            "take": filing.take,
            "operator": operator,
        }
    )


def seal_take(
    state: State,
    of: ContributionId,
    record: Contribution,
    *,
    operators: Sequence[str],
    keys: Mapping[str, PeriodKeyNotice],
    sign_offs: Sequence[SignOff],
    gate_k: int,
    row_bits: int = 0,
    accepts_difference: bool,
    identity: IdentityKey,
) -> Take:
    """Share the contribution afresh, seal one part to each operator, sign the filing, and write it all once.

    Args:
        state: where the take goes; the next free take number is used.
        of: whose figures for what.
        record: the figures.
        operators: the three region operators in party order.
        keys: each operator's period key of this edition.
        sign_offs: verified signatures over the figures.
        gate_k: the k of the owner's Gate; 1 where the Gate stands in the region.
        row_bits: bits of a unit's row, where rows of units are shared.
        accepts_difference: stands in the notice.
        identity: the owner's key.

    Raises:
        LocalDataError: DISK_FULL. StoreUnavailable: STATE_UNAVAILABLE.
    """
    last = latest_take(state, of)
    take = 1 if last is None else last.filed.take + 1
    context = FilingContext(plan_digest=of.plan, period=of.period, owner=of.owner, edition=of.edition, take=take)
    boxes: dict[str, bytes] = {}
    commitments: list[str] = []
    if record.kind == "data":
        planes = [shuffled_planes(rows, secrets.token_bytes(SEED_BYTES)) for rows in record.rows(row_bits)]
        sharing = share(record.values().astype("<i8").view(np.uint64), planes=planes)
        commitments = list(sharing_commitments(sharing, context))
        for operator, part in zip(operators, parts_of(sharing, context), strict=True):
            key = SealingPublicKey.from_text(keys[operator].key)
            boxes[operator] = key.seal(write_part(part), box_info(context, operator))
    filed = Filed(
        plan=of.plan,
        period=of.period,
        owner=of.owner,
        edition=of.edition,
        take=take,
        kind_of=record.kind,
        created_at=utc_text(dt.datetime.now(tz=dt.UTC)),
        reference=record.reference,
        parts=[Part(operator=name, sha256=sha256_hex(box), size=len(box)) for name, box in boxes.items()],
        commitments=commitments,
        contribution=record.commitment,
        sign_offs=list(sign_offs),
        gate_k=gate_k,
        tie_out=record.tie_out,
        accepts_difference=accepts_difference,
    )
    notice = sign_notice(filed, identity)
    for operator, box in boxes.items():
        state.write(f"out/{notice.digest}/part.{operator}", box)
    state.write(f"out/{notice.digest}/filed.dsse", notice.envelope.to_bytes())
    named = state.write_once(f"{_takes(of)}/{take}", notice.digest.encode())
    # Two tasks at once: the first to name its take wins, and the other's bytes are forgotten.
    return load_take(state, named.decode())


def load_take(state: State, filing: str) -> Take:
    """Return a written take; raise ConfigError STATE_MISSING, FILING_DAMAGED."""
    folder = f"out/{check_digest(filing, 'filing')}"
    notice = parse_notice(state.require(f"{folder}/filed.dsse", limit_bytes=1 << 20))
    if notice.digest != filing:
        raise ConfigError("FILING_DAMAGED", "a written filing is damaged", ids={"filing": filing[:16]})
    return Take(notice, {part.operator: f"{folder}/part.{part.operator}" for part in notice.expect(Filed).parts})


def read_part_box(state: State, take: Take, operator: str) -> tuple[str, bytes] | None:
    """Return (SHA-256, bytes) of an operator's sealed part, None for an empty submission.

    Raises:
        ConfigError: STATE_MISSING; FILING_DAMAGED if the bytes are not the ones that were signed.
    """
    for part in take.filed.parts:
        if part.operator == operator:
            box = state.require(take.parts[operator], limit_bytes=_LIMIT_BYTES)
            if sha256_hex(box) != part.sha256:
                raise ConfigError(
                    "FILING_DAMAGED", "a sealed part is damaged", ids={"filing": take.filing[:16], "operator": operator},
                    hint="Share again: a new take replaces this one",
                )  # fmt: skip
            return part.sha256, box
    return None


def latest_take(state: State, of: ContributionId) -> Take | None:
    """Return the highest take of a (plan, period, owner, edition), None if nothing was shared yet."""
    numbers = [int(name) for name in state.names(_takes(of)) if name.isdigit()]
    if not numbers:
        return None
    return load_take(state, state.require(f"{_takes(of)}/{max(numbers)}", limit_bytes=256).decode())


def _takes(of: ContributionId) -> str:
    return f"takes/{of.owner}/{of.plan[:16]}/{of.period}/{of.edition}"
