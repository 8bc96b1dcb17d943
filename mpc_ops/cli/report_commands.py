"""`comity report`: compile, assess, release, import, show, approve, withdraw, calendars and rates."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.envelope.schema import encode, from_plain
from mpc_ops.errors import ConfigError, UsageError
from mpc_ops.federation.loaded import Federation, read_file
from mpc_ops.federation.pki import write_public
from mpc_ops.ids import check_period
from mpc_ops.notices.model import Rate, Reference, Release
from mpc_ops.notices.signed import SignedNotice, parse_notice, sign_notice, utc_text, verify_notice
from mpc_ops.plan import releases as signing
from mpc_ops.plan.model import Plan
from mpc_ops.plan.releases import OpenRelease, open_release
from mpc_ops.plan.statement import member_notes, planned_statement
from mpc_ops.plan.statement_text import statement_text
from mpc_ops.plan.text import plan_text
from mpc_ops.planner import compile_report, read_terms
from mpc_ops.planner.calendar import calendar_toml, months, read_calendar
from mpc_ops.planner.release import recompile, release_report

__all__ = ["register"]

_TEXT_LIMIT = 200_000
Sql = Annotated[Path, typer.Argument(help="Report SQL.")]
TermsFile = Annotated[Path, typer.Argument(help="report.toml with the terms.")]
Folder = Annotated[Path, typer.Option("--federation", help="Federation folder.")]
ReleaseFile = Annotated[Path, typer.Argument(help="Signed release (.dsse).")]
Out = Annotated[Path, typer.Option("--out", help="File to write.")]
Owner = Annotated[str, typer.Option(help="Id of the data owner.")]


def register(app: typer.Typer) -> None:
    """Add the command group `report`."""
    group = typer.Typer(help="Compile, assess, release and approve reports.", no_args_is_help=True)
    named: dict[str, Callable[..., None]] = {
        "compile": compile_, "assess": assess, "release": release, "import": import_, "show": show, "approve": approve,
        "withdraw": withdraw, "calendar": calendar, "rates": rates,
    }  # fmt: skip
    for name, function in named.items():
        group.command(name)(function)
    app.add_typer(group, name="report")


def _now() -> datetime:
    return datetime.now(tz=UTC)


def _text(path: Path) -> str:
    try:
        return read_file(path, limit_bytes=_TEXT_LIMIT).decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError("FILE_NOT_TEXT", "a file is not UTF-8 text", ids={"file": str(path)}) from None


def _compiled(sql: Path, terms: Path, federation: Federation) -> Plan:
    return compile_report(_text(sql), read_terms(_text(terms)), federation)


def compile_(sql: Sql, terms: TermsFile, federation: Folder, out: Out) -> None:
    """Compile a report into plan.json and print the plan in words."""
    plan = _compiled(sql, terms, Federation.load(federation))
    write_public(out, encode(plan))
    typer.echo(plan_text(plan), nl=False)
    typer.echo(f"plan {plan.digest} in {out}")


def assess(
    source: Annotated[Path, typer.Argument(help="Report SQL (with report.toml after it), or a signed release.")],
    terms: Annotated[Path | None, typer.Argument(help="report.toml, if the first file is SQL.")] = None,
    *,
    federation: Folder,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the canonical statement here.")] = None,
) -> None:
    """Print the planned-transfer statement: who learns what, what would cross which border, under which rule."""
    loaded = Federation.load(federation)
    if terms is None:
        opened = _opened(source, loaded)
        plan, statement = opened.plan, opened.statement
    else:
        plan = _compiled(source, terms, loaded)
        statement = planned_statement(plan, loaded, now=_now())
    typer.echo(statement_text(statement, member_notes(plan, loaded)), nl=False)
    if json_out is not None:
        write_public(json_out, statement.data)


def release(
    sql: Sql,
    terms: TermsFile,
    calendar_file: Annotated[Path, typer.Option("--calendar", help="calendar.toml with the periods.")],
    *,
    federation: Folder,
    author: Annotated[str, typer.Option(help="Name of the author in the federation.")],
    home: Annotated[Path, typer.Option("--home", help="The author's home.")],
    out: Out,
) -> None:
    """Compile a report and sign its release: plan, SQL, terms, calendar, statement."""
    loaded = Federation.load(federation)
    signed = release_report(
        _text(sql), _text(terms), read_calendar(_text(calendar_file)), loaded, author=author, key=_key(home), now=_now()
    )
    write_public(out, signed.envelope.to_bytes())
    released = signed.expect(Release)
    typer.echo(f"release {signed.digest} in {out}, valid until {released.valid_to}")
    typer.echo(f"statement {released.statement}; read it with `comity report assess {out}`")


def _key(home: Path) -> IdentityKey:
    return IdentityKey.load(home / "keys" / "identity.pem")


def _opened(path: Path, federation: Federation) -> OpenRelease:
    return open_release(parse_notice(read_file(path, limit_bytes=1 << 20)), federation, now=_now())


def import_(
    file: ReleaseFile,
    *,
    federation: Folder,
    releases: Annotated[Path, typer.Option("--releases", help="The site's folder of imported releases.")],
) -> None:
    """Verify a release, compile its SQL again here, show any difference, and put it among the site's releases."""
    loaded = Federation.load(federation)
    opened = _opened(file, loaded)
    again = recompile(opened, loaded)
    if again.problem is not None:
        typer.echo(f"The SQL of this release does not compile with this version: {again.problem}")
    elif not again.same:
        typer.echo("This version compiles the SQL into another plan:")
        typer.echo(again.difference or "(the two read the same, their bytes differ)")
    if not again.same:
        typer.echo("The released plan, not the SQL, is what runs: decide on what `comity report show` prints.")
    target = releases / f"{opened.signed.digest}.dsse"
    if target.exists():
        typer.echo(f"already imported: {target}")
        return
    write_public(target, opened.signed.envelope.to_bytes())
    typer.echo(f"release of {opened.plan.report} version {opened.plan.version} by {opened.release.author}: {target}")


def show(file: ReleaseFile, federation: Folder) -> None:
    """Print a release: plan in words, periods, statement."""
    loaded = Federation.load(federation)
    opened = _opened(file, loaded)
    typer.echo(f"release {opened.signed.digest} by {opened.release.author}, signature valid")
    typer.echo(f"valid from {opened.release.valid_from} to {opened.release.valid_to}")
    typer.echo(f"plan {opened.plan.digest}")
    typer.echo(plan_text(opened.plan))
    for row in opened.release.calendar:
        typer.echo(
            f"period {row.key}: {row.start_date} to {row.end_date} ({row.zone}), open {row.opens_at} to {row.due_at}"
        )
    if opened.release.reading_text:
        typer.echo(f"\n{opened.release.reading_text.strip()}")
    typer.echo(f"\n{statement_text(opened.statement, member_notes(opened.plan, loaded))}", nl=False)


def approve(
    file: ReleaseFile,
    *,
    federation: Folder,
    owner: Owner,
    home: Annotated[list[Path], typer.Option("--home", help="Home of an approver; once per approver that signs.")],
    days: Annotated[int, typer.Option(min=1, max=3660, help="How long the approval holds.")] = 365,
    out: Annotated[Path, typer.Option("--out", help="Folder for the approval.")],
) -> None:
    """Approve a release for a data owner: its plan, planned-transfer statement, result recipient and min_owners."""
    loaded = Federation.load(federation)
    opened = _opened(file, loaded)
    signed = signing.approve(opened, owner, [_key(one) for one in home], loaded, days=days, now=_now())
    typer.echo(f"{owner} approves {opened.plan.report} version {opened.plan.version} (plan {opened.plan.digest})")
    typer.echo(f"and its planned-transfer statement {opened.statement.digest}")
    typer.echo(f"approval: {_put(out, signed)}")


def _put(folder: Path, signed: SignedNotice) -> Path:
    """Write a notice under the name it has in inboxes and outboxes: the digest of its payload."""
    path = folder / f"{signed.digest}.dsse"
    write_public(path, signed.envelope.to_bytes())
    return path


def withdraw(
    file: ReleaseFile,
    *,
    federation: Folder,
    owner: Owner,
    home: Annotated[Path, typer.Option("--home", help="Home of one approver.")],
    reason: Annotated[str, typer.Option(help="Reason, as it travels to the operators.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the withdrawal.")],
) -> None:
    """Withdraw a data owner's approval: stops the next run, and a present one that is not yet committed."""
    loaded = Federation.load(federation)
    release_notice = parse_notice(read_file(file, limit_bytes=1 << 20))
    # Only the signature and the plan's digest count here: an owner can withdraw what it could no longer approve.
    verify_notice(release_notice, loaded)
    plan = sha256_hex(release_notice.expect(Release).plan.encode("utf-8"))
    signed = signing.withdraw(plan, owner, _key(home), loaded, reason=reason, now=_now())
    typer.echo(f"{owner} withdraws its approval of plan {plan}: {_put(out, signed)}")


def calendar(
    first: Annotated[str, typer.Argument(help="First month, e.g. 2026-01.")],
    last: Annotated[str, typer.Argument(help="Last month, included.")],
    *,
    zone: Annotated[str, typer.Option(help="IANA time zone.")] = "UTC",
    opens: Annotated[int, typer.Option(help="Days after the month's end until the submission opens.")] = 1,
    due: Annotated[int, typer.Option(help="Days after the month's end until it is due.")] = 5,
    open_now: Annotated[int, typer.Option(help="Open all of these (past) months now, for so many hours.", min=0)] = 0,
    out: Out,
) -> None:
    """Write a calendar of months to adjust by hand."""
    rows = months(
        first, last, zone=zone, opens_after_days=opens, due_after_days=due, open_from=_now() if open_now else None,
        open_hours=open_now,
    )  # fmt: skip
    write_public(out, calendar_toml(rows).encode("utf-8"))
    typer.echo(f"{len(rows)} periods in {out}")


def rates(
    file: Annotated[Path, typer.Argument(help="TOML: source, currency and [[rates]] with period, currency, avg_rate.")],
    *,
    federation: Folder,
    period: Annotated[str, typer.Option(help="Period the rates are published for.")],
    version: Annotated[int, typer.Option(min=1, help="Higher than the last one of this period.")] = 1,
    author: Annotated[str, typer.Option(help="Name of the author in the federation.")],
    home: Annotated[Path, typer.Option("--home", help="The author's home.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the reference data.")],
) -> None:
    """Sign a period's exchange rates as reference data."""
    loaded = Federation.load(federation)
    try:
        plain = tomllib.loads(_text(file))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("TOML_INVALID", "rates are not TOML", got=str(error)[:200], ids={"file": str(file)}) from None
    if set(plain) != {"source", "currency", "rates"} or not isinstance(plain["rates"], list):
        raise UsageError("USAGE", "a rates file has source, currency and [[rates]]", got=", ".join(sorted(plain))[:200])
    reference = Reference(
        federation=loaded.digest,
        author=author,
        created_at=utc_text(_now()),
        period=check_period(period),
        version=version,
        currency=str(plain["currency"]),
        rates=[from_plain(one, Rate, what="rate") for one in plain["rates"]],
        source=str(plain["source"]),
    )
    signed = verify_notice(parse_notice(sign_notice(reference, _key(home)).envelope.to_bytes()), loaded)
    typer.echo(f"rates of {period}, version {version}: {_put(out, signed)}")
