"""A partitioned timetable whose runs are the rows of a signed calendar.

Cron can't express 4-4-5 years, "working day 5" or a close that moves with a holiday; the calendar of a release can.
One row is one partition: its key (`2026-10`, `FY26-P07`) is the run's `partition_key`, and the run is created at the
row's `opens_at`. Rows may have gaps. The `partition_date` that Airflow wants for backfills is the row's start date at
midnight UTC: a way to select rows by date, never an input of a task.
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.exceptions import AirflowTimetableInvalid, InvalidPartitionKeyError
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable

if TYPE_CHECKING:
    from airflow.timetables.base import TimeRestriction
    from airflow.utils.types import DagRunType

__all__ = ["CalendarTimetable", "PeriodRow"]

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ONE_SECOND = dt.timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class PeriodRow:
    """What scheduling needs of one calendar row.

    Args:
        key: the period's key, unique in the calendar.
        start_date: first day of the period.
        end_date: day after the last one; periods are half-open.
        opens_at: moment from which owners may file; aware, in the row's own zone.
    """

    key: str
    start_date: dt.date
    end_date: dt.date
    opens_at: dt.datetime

    @classmethod
    def parse(cls, key: str, start_date: object, end_date: object, opens_at: object) -> PeriodRow:
        """Read a row whose dates are `date` objects or ISO 8601 text."""
        return cls(key, _as_date(start_date), _as_date(end_date), _as_moment(opens_at))

    def as_list(self) -> list[str]:
        """Return the JSON form, the inverse of `parse(*row)`."""
        return [self.key, self.start_date.isoformat(), self.end_date.isoformat(), self.opens_at.isoformat()]


def _as_date(value: object) -> dt.date:
    return value if type(value) is dt.date else dt.date.fromisoformat(str(value)[:10])


def _as_moment(value: object) -> dt.datetime:
    return value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(str(value))


class CalendarTimetable(Timetable):
    """Creates one run per calendar row, at the row's `opens_at`, with the row's key as partition key.

    Args:
        rows: the calendar in any order.
    """

    partitioned = True
    periodic = True
    can_be_scheduled = True
    run_ordering: Sequence[str] = ("partition_date", "run_after")

    def __init__(self, rows: Iterable[PeriodRow]) -> None:
        self.rows: tuple[PeriodRow, ...] = tuple(sorted(rows, key=lambda row: (row.start_date, row.key)))
        self._position = {row.key: index for index, row in enumerate(self.rows)}
        self._infos = tuple(self._run_infos()) if all(row.opens_at.tzinfo for row in self.rows) else ()
        if self.rows:
            self.description = f"Once per period {self.rows[0].key} to {self.rows[-1].key}, when it opens"

    def _run_infos(self) -> Iterable[DagRunInfo]:
        # Airflow finds the run after the last one by `run_after`. Two rows that open together (a backlog) would
        # hide each other, or be created for ever, so moments are made strictly increasing.
        previous: pendulum.DateTime | None = None
        for row in self.rows:
            moment = pendulum.instance(row.opens_at).in_timezone("UTC")
            if previous is not None and moment <= previous:
                moment = previous + _ONE_SECOND
            previous = moment
            start = pendulum.datetime(row.start_date.year, row.start_date.month, row.start_date.day, tz="UTC")
            yield DagRunInfo(run_after=moment, data_interval=None, partition_date=start, partition_key=row.key)

    @property
    def summary(self) -> str:
        """The keys at both ends, for the list of DAGs."""
        return f"calendar {self.rows[0].key}..{self.rows[-1].key}" if self.rows else "empty calendar"

    def validate(self) -> None:
        """Refuse a calendar that has no rows, repeats or malforms a key, overlaps, or lacks a zone."""
        if not self.rows:
            raise AirflowTimetableInvalid("the calendar has no rows")
        if len(self._position) != len(self.rows):
            raise AirflowTimetableInvalid("a period key stands twice in the calendar")
        for row in self.rows:
            if not _KEY.fullmatch(row.key):
                raise AirflowTimetableInvalid("a period key has other than letters, digits, '.', '_' and '-'")
            if row.end_date <= row.start_date:
                raise AirflowTimetableInvalid(f"period {row.key} ends before it starts")
            if row.opens_at.tzinfo is None:
                raise AirflowTimetableInvalid(f"opens_at of period {row.key} has no time zone")
        for before, after in pairwise(self.rows):
            if after.start_date < before.end_date:
                raise AirflowTimetableInvalid(f"periods {before.key} and {after.key} overlap")

    def serialize(self) -> dict[str, Any]:
        """Return the JSON form that the scheduler reads; the DAG file is not needed to schedule."""
        return {"rows": [row.as_list() for row in self.rows]}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Timetable:
        """Rebuild the timetable from `serialize`."""
        return cls(PeriodRow.parse(*row) for row in data["rows"])

    def infer_manual_data_interval(self, *, run_after: pendulum.DateTime) -> DataInterval:
        """Return the moment itself: a manual run names its period, it has no interval."""
        return DataInterval.exact(run_after)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Return the row after a moment; Airflow asks `next_dagrun_info_v2`, which knows the last period's key."""
        last = None if last_automated_data_interval is None else DagRunInfo.exact(last_automated_data_interval.end)
        return self.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction)

    def next_dagrun_info_v2(
        self, *, last_dagrun_info: DagRunInfo | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Return the row after the last automated run's, within the DAG's start and end date."""
        waiting = [
            info
            for info in self._after(last_dagrun_info)
            if (restriction.earliest is None or info.run_after >= restriction.earliest)
            and (restriction.latest is None or info.run_after <= restriction.latest)
        ]
        if not waiting:
            return None
        if restriction.catchup:
            return waiting[0]
        now = pendulum.now("UTC")
        return ([info for info in waiting if info.run_after <= now] or waiting[:1])[-1]

    def _after(self, last: DagRunInfo | None) -> Sequence[DagRunInfo]:
        if last is None:
            return self._infos
        # The key decides: a newer calendar may move the opening of a period that already ran.
        position = self._position.get(last.partition_key or "")
        if position is not None:
            return self._infos[position + 1 :]
        return [info for info in self._infos if info.run_after > last.run_after]

    def iter_partition_dagrun_infos(self, *, earliest: dt.datetime, latest: dt.datetime) -> Iterable[DagRunInfo]:
        """Yield the opened rows that start on the UTC dates `earliest` to `latest`, both included; for backfills."""
        first, last = _utc_date(earliest), _utc_date(latest)
        now = pendulum.now("UTC")
        for row, info in zip(self.rows, self._infos, strict=True):
            if first <= row.start_date <= last and info.run_after <= now:
                yield info

    def _decode_partition_date(self, partition_key: str) -> dt.datetime | None:
        position = self._position.get(partition_key)
        if position is None:
            raise InvalidPartitionKeyError(
                f"the calendar has no period of that key; it goes from {self.rows[0].key} to {self.rows[-1].key}"
            )
        return self._infos[position].partition_date

    def generate_run_id(
        self,
        *,
        run_type: DagRunType,
        run_after: dt.datetime,
        data_interval: DataInterval | None,  # noqa: ARG002  part of Airflow's interface
        **extra: Any,
    ) -> str:
        """Return a run id that begins with the period's key where there is one."""
        key = extra.get("partition_key")
        parts = [*([str(key)] if key else []), run_after.isoformat(), secrets.token_hex(4)]
        return run_type.generate_run_id(suffix="__".join(parts))


def _utc_date(moment: dt.datetime) -> dt.date:
    return (moment if moment.tzinfo is None else moment.astimezone(dt.UTC)).date()
