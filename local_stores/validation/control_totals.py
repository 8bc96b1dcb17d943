"""Control totals: a sum of the snapshot's period against a figure of the owner's ledger, in the clear, at the owner.

The ledger file is CSV with a header: `period,source,amount`. Amounts are decimal text with a point. Only pass or fail
leaves this module.
"""

from __future__ import annotations

import csv
import re
from decimal import Decimal
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from local_stores.errors import ConfigError, LocalDataError
from local_stores.stores import DateRange
from mpc_ops.federation.contract import DatasetContract

__all__ = ["check_control_totals"]

_AMOUNT = re.compile(r"-?[0-9]{1,28}(\.[0-9]{1,9})?")
_HEADER = ["period", "source", "amount"]
_MAX_LINES = 100_000


def check_control_totals(
    contract: DatasetContract, table: pa.Table, *, file: Path | None, period: str, dates: DateRange
) -> Literal["passed", "none"]:
    """Tie every control total of the contract to the ledger.

    Args:
        contract: lists column, source and tolerance of each control total.
        table: the snapshot.
        file: the owner's ledger figures.
        period: period key of the lines that count.
        dates: local dates of the period.

    Returns:
        `passed`, or `none` where the contract lists no control total.

    Raises:
        LocalDataError: TIE_OUT_FAILED naming the control totals.
        ConfigError: CONTROL_TOTAL_MISSING, CONTROL_TOTALS_INVALID (with the line).
    """
    if not contract.control_totals:
        return "none"
    ledger = _ledger(file, period, contract)
    days = table[contract.by_role("period")[0].name]
    inside = pc.and_(
        pc.greater_equal(days, pa.scalar(dates.start, pa.date32())), pc.less(days, pa.scalar(dates.end, pa.date32()))
    )
    rows = table.filter(inside)
    failed = []
    for total in contract.control_totals:
        if total.source not in ledger:
            raise ConfigError(
                "CONTROL_TOTAL_MISSING",
                f"the ledger file has no line for {period}, {total.source}",
                ids={"dataset": contract.name},
            )
        found = Decimal(str(pc.sum(rows[total.column]).as_py() or 0))
        if abs(found - ledger[total.source]) > Decimal(total.tolerance):
            failed.append(f"{total.column} = {total.source}")
    if failed:
        raise LocalDataError(
            "TIE_OUT_FAILED",
            f"{len(failed)} of {len(contract.control_totals)} control totals do not tie to the ledger: {', '.join(failed)}",
            ids={"dataset": contract.name, "period": period},
            hint="Correct the books or the ledger file; nothing was filed",
        )
    return "passed"


def _ledger(file: Path | None, period: str, contract: DatasetContract) -> dict[str, Decimal]:
    ids = {"dataset": contract.name}
    if file is None:
        raise ConfigError(
            "CONTROL_TOTAL_MISSING",
            "the data contract asks for control totals and owner.toml names no file",
            ids=ids,
            hint="Add [control_totals] with file = ...",
        )
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(zip(range(_MAX_LINES), csv.reader(lines), strict=False))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            "CONTROL_TOTALS_INVALID", f"the ledger file cannot be read ({type(error).__name__})", ids=ids
        ) from None
    if not rows or rows[0][1] != _HEADER:
        raise ConfigError(
            "CONTROL_TOTALS_INVALID", "the ledger file has another header", expected=",".join(_HEADER), ids=ids
        )
    out: dict[str, Decimal] = {}
    for number, row in rows[1:]:
        if len(row) != len(_HEADER) or not _AMOUNT.fullmatch(row[2]):
            raise ConfigError(
                "CONTROL_TOTALS_INVALID", f"line {number + 1} of the ledger file is not readable", ids=ids
            )
        if row[0] == period:
            if row[1] in out:
                raise ConfigError("CONTROL_TOTALS_INVALID", f"line {number + 1} repeats a control total", ids=ids)
            out[row[1]] = Decimal(row[2])
    return out
