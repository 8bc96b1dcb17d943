"""The Airflow provider: timetable, bundle, triggers, tasks and the factory that turns signed releases into DAGs.

The only package that imports Airflow. It decides nothing about reports: each task calls one plain function of
`local_stores.filing` or `local_stores.closing`, maps its errors to Airflow's and stores the reference it returns.
Read in this order: `timetable` (when), `bundle` (which code and releases), `steps` (which function), `tasks` and
`triggers` (run and wait), `factory` (the DAGs).
"""
