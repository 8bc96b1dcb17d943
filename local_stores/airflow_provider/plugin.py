"""The plugin through which Airflow's scheduler and API server find `CalendarTimetable`.

It brings no web application: applications of plugins are not behind Airflow's login.
"""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from local_stores.airflow_provider.timetable import CalendarTimetable

__all__ = ["ComityPlugin"]


class ComityPlugin(AirflowPlugin):
    """Registers the timetable; without it no component can read a DAG that uses one."""

    name = "comity"
    timetables = [CalendarTimetable]  # noqa: RUF012  Airflow reads a class attribute
