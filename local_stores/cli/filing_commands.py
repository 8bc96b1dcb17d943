"""`comity file`, `comity sign-off` and `comity owner`: an owner's side without Airflow."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from local_stores import filing
from local_stores.config import Site, create_owner_home, load_site, site_for_owner
from local_stores.errors import ComityError, ConfigError, NotYet, UsageError
from local_stores.filing.outcome import words
from local_stores.filing.readiness import operators_of, who
from local_stores.filing.status import contribution_text, status_lines
from local_stores.filing.steps import latest_contribution
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.federation.loaded import read_file

__all__ = ["register"]

T = TypeVar("T")
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.5, 15.0

Report = Annotated[str, typer.Argument(help="Name of the report.")]
Period = Annotated[str, typer.Argument(help="Period key of its calendar, e.g. 2026-03.")]
Home = Annotated[Path | None, typer.Option("--owner-home", help="The owner's home folder (with owner.toml).")]
SiteFile = Annotated[Path | None, typer.Option("--site", help="site.toml of a site with several owners.")]
Owner = Annotated[str | None, typer.Option("--owner", help="Id of the owner, where the site has several.")]


def register(app: typer.Typer) -> None:
    """Add `file`, `sign-off` and the group `owner`."""
    app.command("file")(file)
    app.command("sign-off")(sign_off)
    group = typer.Typer(help="An owner's home: set up, status, own figures, notices, outcome.", no_args_is_help=True)
    named: dict[str, Callable[..., None]] = {
        "init": init, "status": status, "show-contribution": show_contribution, "post": post, "outcome": outcome,
    }  # fmt: skip
    for name, function in named.items():
        group.command(name)(function)
    app.add_typer(group, name="owner")


def file(
    report: Report,
    period: Period,
    *,
    owner_home: Home = None,
    site_file: SiteFile = None,
    owner: Owner = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for keys, signatures and receipts, or stop there.")
    ] = True,
    wait_minutes: Annotated[float, typer.Option(min=0.0, help="How long to wait at each step.")] = 7 * 24 * 60.0,
) -> None:
    """File an owner's contribution to a report: check, snapshot, validate, compute, sign off, share, deliver, receipts."""
    site, name = _site(owner_home, site_file, owner)
    waiting = _Waiting(wait, wait_minutes * 60)
    release = waiting.until("1/8 release, approval, keys", lambda: filing.check_release(site, name, report, period))
    _say("1/8 release, approval, keys", f"edition {release['edition']}, plan {release['plan_digest'][:16]}")
    snapshots = {}
    for dataset in release["datasets"]:
        snapshots[dataset] = filing.take_snapshot(site, name, dataset, period)
        _say("2/8 snapshot", f"{dataset} {snapshots[dataset]['snapshot']}")
    checked = filing.validate(site, name, report, period, snapshots)
    _say("3/8 validation", f"{checked['expectations']} expectations hold, control totals: {checked['tie_out']}")
    figures = filing.local_plan(site, name, report, period, snapshots)
    _say("4/8 own figures", f"{figures['kind']}, page {figures['page']}")
    signed = waiting.until(
        f"5/8 sign-off by {figures['sign_off']}",
        lambda: filing.sign_off_ready(site, name, report, period, figures),
        hint=f"comity sign-off {report} {period} --owner {name} --as PERSON --key FILE",
        code="SIGN_OFF_OPEN",
    )
    _say("5/8 sign-off", ", ".join(signed["signers"]) or "not asked for")
    sealed = filing.share_and_seal(site, name, report, period, figures, signed)
    _say("6/8 shared and sealed", f"filing {sealed['filing'][:16]}, take {sealed['take']}")
    for operator in sealed["operators"]:
        sent = waiting.until(
            f"7/8 deliver to {operator}", functools.partial(filing.deliver, site, name, sealed, operator)
        )
        _say("7/8 delivered", f"{operator}{' (lay there already)' if sent['already'] else ''}")
    receipts = waiting.until(
        "8/8 receipts",
        lambda: filing.receipts_ready(site, name, sealed),
        hint="the operators compare",
        code="RECEIPTS_OPEN",
    )
    _say("8/8 receipts", ", ".join(receipts["receipts"]))
    typer.echo(f"filed: {report} {period} of {name}, filing {sealed['filing']}")


def sign_off(
    report: Report,
    period: Period,
    *,
    person: Annotated[str, typer.Option("--as", help="Name of the signer in the membership list.")],
    key: Annotated[Path, typer.Option("--key", help="The signer's identity key (PEM) or home folder.")],
    owner_home: Home = None,
    site_file: SiteFile = None,
    owner: Owner = None,
) -> None:
    """Sign an owner's latest figures as one of its signers; read `comity owner show-contribution` first."""
    site, name = _site(owner_home, site_file, owner)
    path = key / "keys" / "identity.pem" if key.is_dir() else key
    signed = filing.sign_off(site, name, report, period, signer=person, key=IdentityKey.load(path))
    typer.echo(f"{person} signed the figures of {name} for {report} {period}: commitment {signed['commitment']}")
    typer.echo(f"signed by: {', '.join(signed['signers'])}")


def init(
    home: Annotated[Path, typer.Argument(help="The owner's home folder.")],
    *,
    owner: Annotated[str, typer.Option("--id", help="Id of the owner in the federation.")],
    federation: Annotated[Path, typer.Option("--federation", help="Federation folder.")],
    dataset: Annotated[str, typer.Option(help="Dataset of the federation.")],
    kind: Annotated[str, typer.Option(help="csv, excel, parquet, sqlite or postgres.")],
    location: Annotated[str, typer.Option(help="File or folder; for postgres a connection string without password.")],
    table: Annotated[str | None, typer.Option(help="Table, or sheet of a workbook.")] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", help="contract_column=source_column, where names differ.")
    ] = None,
    control_totals: Annotated[str | None, typer.Option(help="Ledger figures (CSV: period,source,amount).")] = None,
) -> None:
    """Write owner.toml and site.toml for an owner that is a site of its own; keys: `comity federation keys owner`."""
    store: dict[str, Any] = {"dataset": dataset, "kind": kind, "location": _absolute(kind, location)}
    if table is not None:
        store["table"] = table
    if column:
        store["columns"] = dict(_pair(text) for text in column)
    totals = None if control_totals is None else str(Path(control_totals).resolve())
    create_owner_home(home, owner, stores=[store], control_totals=totals, federation=str(federation.resolve()))
    typer.echo(f"{home / 'owner.toml'} and {home / 'site.toml'} written")
    if not (home / "keys" / "identity.pem").exists():
        typer.echo(f"next: comity federation keys owner {owner} --home {home} ...")


def status(*, owner_home: Home = None, site_file: SiteFile = None, owner: Owner = None) -> None:
    """Show reports, periods and how far this owner's filings are, from what is here."""
    site, name = _site(owner_home, site_file, owner)
    for line in status_lines(site, name):
        typer.echo(line)


def show_contribution(
    report: Report, period: Period, *, owner_home: Home = None, site_file: SiteFile = None, owner: Owner = None
) -> None:
    """Show this owner's own figures, as they stand on the page that its signers read."""
    site, name = _site(owner_home, site_file, owner)
    one = who(site, name, report, period, valid_now=False)
    record = latest_contribution(one)
    typer.echo(contribution_text(one, record))
    typer.echo(f"page: {site.state.path_text(f'{one.of.folder}/{record.commitment}.html')}")


def post(
    notices: Annotated[list[Path], typer.Argument(help="Signed notices (.dsse): approvals, withdrawals.")],
    *,
    owner_home: Home = None,
    site_file: SiteFile = None,
    owner: Owner = None,
) -> None:
    """Verify the owner's notices, keep them, and deliver them to its three operators."""
    site, name = _site(owner_home, site_file, owner)
    for path in notices:
        signed = filing.keep_notice(site, name, read_file(path, limit_bytes=1 << 20))
        sent = filing.send_to_operators(site, name, signed)
        typer.echo(f"{signed.kind} {signed.digest[:16]}: " + ", ".join(f"{to} {how}" for to, how in sent.items()))


def outcome(
    report: Report,
    period: Period,
    *,
    owner_home: Home = None,
    site_file: SiteFile = None,
    owner: Owner = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end of the run.")] = True,
) -> None:
    """Follow the run that the owner filed for, fetch and check its evidence, and countersign the closing."""
    site, name = _site(owner_home, site_file, owner)
    waiting = _Waiting(wait, 7 * 24 * 3600)
    answer = waiting.until(
        "outcome", lambda: filing.outcome_ready(site, name, report, period), hint="the run goes on", code="OUTCOME_OPEN"
    )
    typer.echo(f"run {answer['run']}: {words(answer)}")
    fetched = filing.fetch_outcome(site, name, report, period)
    typer.echo(f"evidence: {fetched['evidence']}; countersigned, closing {fetched['closing'][:16]}")


class _Waiting:
    """Asks again with growing pauses, where waiting was asked for."""

    def __init__(self, wait: bool, limit_s: float) -> None:  # noqa: FBT001 - a command-line switch
        self._wait = wait
        self._limit_s = limit_s

    def until(self, step: str, ask: Callable[[], T | None], *, hint: str = "", code: str = "NOT_YET") -> T:
        """Return the first answer; raise what is terminal, and NotYet where no (more) waiting is wanted."""
        pause, end, said = _FIRST_PAUSE_S, time.monotonic() + self._limit_s, ""
        while True:
            failure: ComityError = NotYet(code, f"{step}: no answer yet", hint=hint or None)
            try:
                answer = ask()
                if answer is not None:
                    return answer
            except ComityError as error:
                if not error.transient:
                    raise
                failure = error
            if not self._wait or time.monotonic() + pause > end:
                raise failure
            if str(failure) != said:
                said = str(failure)
                typer.echo(f"{step}: waiting ({failure.hint or failure.what})")
            time.sleep(pause)
            pause = min(pause * 1.5, _MAX_PAUSE_S)


def _say(step: str, text: str) -> None:
    typer.echo(f"{step}: {text}")


def _site(home: Path | None, site_file: Path | None, owner: str | None) -> tuple[Site, str]:
    """Return the site and the owner that a command is about."""
    if home is not None:
        site = site_for_owner(home)
        found = [one.id for one in site.owners.values() if one.folder == home.expanduser().resolve()]
    else:
        path = site_file or (Path(os.environ["COMITY_SITE"]) if os.environ.get("COMITY_SITE") else None)
        if path is None:
            raise UsageError("USAGE", "say whose: --owner-home DIR, or --site FILE with --owner ID")
        site = load_site(path)
        found = list(site.owners)
    if owner is not None:
        site.owner(owner)
        found = [name for name in found if name == owner]
    if len(found) != 1:
        raise UsageError(
            "USAGE", "say which owner with --owner", expected=", ".join(site.owners) or "an owner at this site"
        )
    operators_of(site, found[0])  # a home whose owner the federation does not know is no use for any command
    return site, found[0]


def _absolute(kind: str, location: str) -> str:
    return location if kind == "postgres" or "://" in location else str(Path(location).expanduser().resolve())


def _pair(text: str) -> tuple[str, str]:
    name, mark, source = text.partition("=")
    if not (mark and name and source):
        raise ConfigError("COLUMN_UNKNOWN", "not contract_column=source_column", got=repr(text[:80]))
    return name, source
