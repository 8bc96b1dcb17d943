"""Running Great Expectations without letting a value out, and the page that shows what passed.

BOOLEAN_ONLY results, an ephemeral context, no progress bars, no analytics, its loggers silenced; of each result only
`success` is read. It is imported inside, since importing costs seconds.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from local_stores.errors import LocalDataError
from local_stores.validation.suite import Expectation

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Outcome", "require_passed", "run_expectations", "validation_page"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One expectation and whether it holds; `by_contract` says where it comes from."""

    expectation: Expectation
    passed: bool
    by_contract: bool


def run_expectations(table: pa.Table, contract: Sequence[Expectation], own: Sequence[Expectation]) -> list[Outcome]:
    """Evaluate all expectations on a snapshot.

    Args:
        table: the snapshot in the contract's schema.
        contract: generated expectations.
        own: the owner's.
    """
    everything = [*contract, *own]
    with _quiet():
        import great_expectations as gx  # noqa: PLC0415 - importing costs seconds
        from great_expectations.data_context.types.base import ProgressBarsConfig  # noqa: PLC0415

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
        suite = gx.ExpectationSuite(name="comity")
        for number, expectation in enumerate(everything):
            kind = getattr(gx.expectations, "".join(word.capitalize() for word in _words(expectation.type)))
            suite.add_expectation(kind(**expectation.kwargs, meta={"number": number}))
        asset = context.data_sources.add_pandas("snapshot").add_dataframe_asset("table")
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": _frame(table)})
        found = batch.validate(suite, result_format="BOOLEAN_ONLY")
    passed = {}
    for one in found.results:
        meta: Any = None if one.expectation_config is None else one.expectation_config.meta
        if meta is not None:
            passed[int(meta["number"])] = one.success is True
    # What was not evaluated has not passed.
    return [
        Outcome(expectation, passed.get(number, False), number < len(contract))
        for number, expectation in enumerate(everything)
    ]


def require_passed(outcomes: Sequence[Outcome], *, owner: str, dataset: str, page: str) -> None:
    """Raise LocalDataError VALIDATION_FAILED naming the expectations that do not hold, without values."""
    failed = [outcome.expectation.title for outcome in outcomes if not outcome.passed]
    if failed:
        more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise LocalDataError(
            "VALIDATION_FAILED",
            f"{len(failed)} of {len(outcomes)} expectations do not hold: {'; '.join(failed[:5])}{more}",
            ids={"owner": owner, "dataset": dataset},
            hint=f"See {page}; correct the source, then validate again",
        )


def validation_page(outcomes: Sequence[Outcome], **facts: str) -> bytes:
    """Return a readable HTML page of outcomes; it holds no value of the data."""
    import jinja2  # noqa: PLC0415 - only the steps that write pages need it

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("local_stores.validation"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    failed = sum(not outcome.passed for outcome in outcomes)
    page = environment.get_template("validation.html").render(outcomes=outcomes, failed=failed, facts=facts)
    return page.encode("utf-8")


def _words(name: str) -> list[str]:
    # `expect_column_pair_values_a_to_be_greater_than_b` is ExpectColumnPairValuesAToBeGreaterThanB.
    return name.split("_")


def _frame(table: pa.Table) -> pd.DataFrame:
    """Return the table for pandas: decimals as floating point, everything else Arrow-backed."""
    import pandas as pd  # noqa: PLC0415 - Great Expectations needs it, nothing else does

    for place, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type):
            table = table.set_column(place, field.name, table[field.name].cast(pa.float64()))
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Great Expectations' logs, which quote values, and its warnings out of everything."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logger: Any = logging.getLogger("great_expectations")
    handlers, propagate, level = list(logger.handlers), logger.propagate, logger.level
    logger.handlers, logger.propagate = [logging.NullHandler()], False
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
