"""CalendarTimetable: calendars that cron can't express, and what scheduler, backfill and REST ask of it."""

from __future__ import annotations

import datetime as dt
import json

import pendulum
import pytest
from airflow.exceptions import AirflowTimetableInvalid, InvalidPartitionKeyError
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables.base import TimeRestriction
from airflow.utils.types import DagRunType

from local_stores.airflow_provider.timetable import CalendarTimetable, PeriodRow

ANY = TimeRestriction(earliest=None, latest=None, catchup=True)

# A 4-4-5 quarter: the third period has five weeks, the fourth row follows after a gap.
FISCAL = [
    ("FY26-P07", "2026-06-29", "2026-07-27", "2026-08-03T08:00:00+02:00"),
    ("FY26-P08", "2026-07-27", "2026-08-24", "2026-08-31T08:00:00+02:00"),
    ("FY26-P09", "2026-08-24", "2026-09-28", "2026-10-05T08:00:00+08:00"),
    ("FY26-P11", "2026-10-26", "2026-11-23", "2026-11-30T08:00:00+01:00"),
]


def calendar(rows=FISCAL):
    return CalendarTimetable([PeriodRow.parse(*row) for row in rows])


def walk(timetable, restriction=ANY):
    found, last = [], None
    while (last := timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction)) is not None:
        found.append(last)
    return found


def test_one_run_per_row_at_its_opening():
    infos = walk(calendar())
    assert [info.partition_key for info in infos] == ["FY26-P07", "FY26-P08", "FY26-P09", "FY26-P11"]
    assert [info.run_after.isoformat() for info in infos] == [
        "2026-08-03T06:00:00+00:00",
        "2026-08-31T06:00:00+00:00",
        "2026-10-05T00:00:00+00:00",  # eight o'clock in a zone eight hours ahead
        "2026-11-30T07:00:00+00:00",
    ]
    assert all(info.data_interval is None and info.logical_date is None for info in infos)
    assert infos[0].partition_date == pendulum.datetime(2026, 6, 29, tz="UTC")


def test_rows_are_ordered_by_period_however_they_come():
    assert walk(calendar(list(reversed(FISCAL))))[0].partition_key == "FY26-P07"


def test_rows_that_open_together_all_run_once():
    rows = [(key, start, end, "2026-11-01T08:00:00+00:00") for key, start, end, _ in FISCAL]
    infos = walk(calendar(rows))
    assert [info.partition_key for info in infos] == [row[0] for row in FISCAL]
    assert len({info.run_after for info in infos}) == 4


def test_a_newer_calendar_that_moves_an_opening_does_not_repeat_a_period():
    last = walk(calendar())[1]
    moved = [FISCAL[0], ("FY26-P08", "2026-07-27", "2026-08-24", "2026-09-10T08:00:00+02:00"), *FISCAL[2:]]
    following = calendar(moved).next_dagrun_info_v2(last_dagrun_info=last, restriction=ANY)
    assert following.partition_key == "FY26-P09"


def test_start_date_and_end_date_of_the_dag_limit_the_rows():
    window = TimeRestriction(pendulum.datetime(2026, 8, 10), pendulum.datetime(2026, 10, 6), catchup=True)
    assert [info.partition_key for info in walk(calendar(), window)] == ["FY26-P08", "FY26-P09"]


def test_without_catchup_only_the_latest_opened_row_runs(monkeypatch):
    with_no_catchup = TimeRestriction(None, None, catchup=False)
    monkeypatch.setattr(pendulum, "now", lambda tz: pendulum.datetime(2026, 10, 10, tz=tz))
    infos = walk(calendar(), with_no_catchup)
    assert [info.partition_key for info in infos] == ["FY26-P09", "FY26-P11"]


def test_backfill_takes_opened_rows_by_start_date(monkeypatch):
    monkeypatch.setattr(pendulum, "now", lambda tz: pendulum.datetime(2026, 10, 10, tz=tz))
    found = calendar().iter_partition_dagrun_infos(
        earliest=dt.datetime(2026, 7, 27, tzinfo=dt.UTC), latest=dt.datetime(2026, 12, 31, tzinfo=dt.UTC)
    )
    assert [info.partition_key for info in found] == ["FY26-P08", "FY26-P09"], "P11 has not opened"


def test_a_key_outside_the_calendar_is_refused_and_the_range_named():
    timetable = calendar()
    assert timetable.resolve_partition_date("FY26-P09") == pendulum.datetime(2026, 8, 24, tz="UTC")
    with pytest.raises(InvalidPartitionKeyError, match=r"FY26-P07 to FY26-P11"):
        timetable.resolve_partition_date("FY26-P10")


def test_serialisation_is_json_and_the_registered_class_reads_it_back():
    encoded = json.loads(json.dumps(encode_timetable(calendar())))
    assert encoded["__type"] == "local_stores.airflow_provider.timetable.CalendarTimetable"
    decoded = decode_timetable(encoded)
    assert isinstance(decoded, CalendarTimetable)
    assert walk(decoded) == walk(calendar())
    assert decoded.rows == calendar().rows
    assert decoded.summary == "calendar FY26-P07..FY26-P11"


def test_run_ids_begin_with_the_period_and_differ():
    timetable = calendar()
    make = lambda: timetable.generate_run_id(  # noqa: E731
        run_type=DagRunType.SCHEDULED,
        run_after=pendulum.datetime(2026, 8, 3),
        data_interval=None,
        partition_key="FY26-P07",
    )
    assert make().startswith("scheduled__FY26-P07__2026-08-03")
    assert make() != make()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([FISCAL[0], FISCAL[0]], "stands twice"),
        ([("a b", "2026-01-01", "2026-02-01", "2026-02-05T08:00:00+00:00")], "other than letters"),
        ([("k" * 65, "2026-01-01", "2026-02-01", "2026-02-05T08:00:00+00:00")], "other than letters"),
        ([("P01", "2026-02-01", "2026-02-01", "2026-02-05T08:00:00+00:00")], "P01 ends before it starts"),
        ([("P01", "2026-01-01", "2026-02-01", "2026-02-05T08:00:00")], "opens_at of period P01 has no time zone"),
        (
            [
                ("P01", "2026-01-01", "2026-02-02", "2026-02-05T08:00:00+00:00"),
                ("P02", "2026-02-01", "2026-03-01", "2026-03-05T08:00:00+00:00"),
            ],
            "P01 and P02 overlap",
        ),
    ],
)
def test_a_calendar_that_is_not_one_is_refused(rows, message):
    with pytest.raises(AirflowTimetableInvalid, match=message):
        calendar(rows).validate()
