"""One site's Airflow: make its home, run its DAGs in this process, start and stop its real components.

```
site_env.py home    --home DIR --site site.toml                      an AIRFLOW_HOME (migrated database, configuration)
site_env.py test    --home DIR --site site.toml [--events FILE] DAG_ID:PERIOD ...   by `dag.test()`, in this process
site_env.py up      --home DIR --site site.toml [--port N]           api-server, scheduler, dag-processor, triggerer
site_env.py connect --home DIR --site site.toml                      pools and connections of the site, again
site_env.py down    --home DIR                                       stop them and see that they are gone
```
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from infra.airflow.home import DEMO_WAITING, USER, SiteError, prepare_home, site_environment
from infra.airflow.runs import RunResult, connect_site, run_dag_tests
from infra.airflow.stack import Stack, processes_of, start_component, start_stack, stop_stack

__all__ = [
    "DEMO_WAITING",
    "RunResult",
    "SiteError",
    "Stack",
    "connect_site",
    "main",
    "prepare_home",
    "processes_of",
    "run_dag_tests",
    "site_environment",
    "start_component",
    "start_stack",
    "stop_stack",
]


def _home(args: argparse.Namespace) -> int:
    for name, value in prepare_home(args.home, args.site).items():
        print(f"{name}={value}")
    return 0


def _prepare_new(args: argparse.Namespace) -> None:
    # A home keeps the settings that it was made with; the command `home` writes the usual ones again.
    if not (args.home / "airflow.cfg").exists():
        prepare_home(args.home, args.site)


def _test(args: argparse.Namespace) -> int:
    _prepare_new(args)
    runs = [(dag_id, period) for dag_id, _, period in (run.rpartition(":") for run in args.runs)]
    failed = False
    for result in run_dag_tests(args.home, args.site, runs, on_task=_event_writer(args.events)):
        print(json.dumps(dataclasses.asdict(result)), flush=True)
        failed = failed or result.state != "success"
    return int(failed)


def _event_writer(path: Path | None) -> Callable[[dict[str, Any]], None] | None:
    if path is None:
        return None

    def write(event: dict[str, Any]) -> None:
        with path.open("a") as stream:
            stream.write(json.dumps(event) + "\n")

    return write


def _up(args: argparse.Namespace) -> int:
    _prepare_new(args)
    stack = start_stack(args.home, args.site, port=args.port)
    print(f"{stack.url}  user {USER}, password in {args.home / 'passwords.json'}")
    return 0


def _connect(args: argparse.Namespace) -> int:
    os.environ.update(site_environment(args.home, args.site))
    connect_site()
    return 0


def _down(args: argparse.Namespace) -> int:
    stop_stack(args.home)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 done, 1 a run failed or a component would not start or stop, 2 wrong usage."""
    parser = argparse.ArgumentParser(description="One site's Airflow.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in (("home", _home), ("test", _test), ("up", _up), ("connect", _connect), ("down", _down)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--home", type=Path, required=True, help="the site's AIRFLOW_HOME")
        if name != "down":
            command.add_argument("--site", type=Path, required=True, help="the site's site.toml")
        if name == "test":
            command.add_argument("--events", type=Path, help="append one JSON line for each task that ends")
            command.add_argument("runs", nargs="+", metavar="DAG_ID:PERIOD")
        if name == "up":
            command.add_argument("--port", type=int, help="of the web page; a free one by default")
    args = parser.parse_args(argv)
    try:
        return int(args.function(args))
    except SiteError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
