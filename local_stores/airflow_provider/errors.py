"""How Comity's errors end a task: whether a retry can help is an attribute of the error's class.

| error | in Airflow |
|---|---|
| `NotYet` | the task is deferred and looks again later; it costs no retry |
| `transient` (`StoreUnavailable`, `TransportError`) | raised as it is: the task is retried |
| terminal | `AirflowFailException`: the task fails at once, its message names the party |
| PERIOD_CLOSED at the first task of a filing | `AirflowSkipException`: a missed month that is closed ends as skipped |
| anything else is a bug | raised as it is |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from mpc_ops.errors import ComityError

__all__ = ["PERIOD_CLOSED", "airflow_errors"]

PERIOD_CLOSED = "PERIOD_CLOSED"


@contextmanager
def airflow_errors(*, closed_is_skip: bool = False) -> Iterator[None]:
    """Translate Comity's errors for the block's task.

    Args:
        closed_is_skip: end as skipped, not failed, where the period is closed.

    Raises:
        AirflowFailException: for a terminal error.
        AirflowSkipException: for PERIOD_CLOSED, if asked for.
        ComityError: a transient one, unchanged.
    """
    try:
        yield
    except ComityError as error:
        if error.transient:
            raise
        if closed_is_skip and error.code == PERIOD_CLOSED:
            raise AirflowSkipException(str(error)) from error
        raise AirflowFailException(str(error)) from error
