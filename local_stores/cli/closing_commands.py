"""`comity group`: the result recipient's commands. Every one may be repeated; what is done already is said so."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from local_stores import closing
from local_stores.closing.desk import open_desk
from local_stores.config import Site, create_site, load_site
from local_stores.errors import ConfigError, NotYet, UsageError
from local_stores.receive.home import create_recipient_home
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.envelope.schema import Model, from_plain, to_plain
from mpc_ops.federation.assemble import read_toml
from mpc_ops.federation.model import Name, UtcText
from mpc_ops.notices.model import Rate, Reference
from mpc_ops.notices.signed import sign_notice, utc_text

__all__ = ["register"]

Report = Annotated[str, typer.Argument(help="Name of the report.")]
Period = Annotated[str, typer.Argument(help="Period key, e.g. 2026-10.")]
SiteFile = Annotated[
    Path | None,
    typer.Option("--site", envvar="COMITY_SITE", help="site.toml of the recipient's site.", metavar="FILE"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the command group `group`."""
    group = typer.Typer(help="Close periods and receive results (result recipient).", no_args_is_help=True)
    for function in (init, reference, release, status, close, receive, evidence, reopen, cancel):
        group.command(function.__name__)(function)
    app.add_typer(group, name="group")


def _site(path: Path | None) -> Site:
    if path is None:
        raise ConfigError(
            "SITE_NOT_SET", "no site.toml is named", hint="Give --site FILE or set the environment variable COMITY_SITE"
        )
    return load_site(path)


def _say(answer: dict[str, Any], text: str, *, as_json: bool) -> None:
    typer.echo(json.dumps(answer, indent=1, sort_keys=True) if as_json else text)


def init(
    home: Annotated[Path, typer.Argument(help="The recipient's home folder.")],
    *,
    recipient: Annotated[str, typer.Option("--id", help="Id of the recipient in the federation.")],
    federation: Annotated[Path, typer.Option("--federation", help="Federation folder.")],
) -> None:
    """Write recipient.toml and site.toml for a recipient; keys: `comity federation keys recipient`."""
    create_recipient_home(home, recipient)
    (home / "releases").mkdir(exist_ok=True)
    create_site(home, recipient, federation=str(federation.resolve()), group=".")
    typer.echo(f"{home / 'recipient.toml'} and {home / 'site.toml'} written")
    if not (home / "keys" / "identity.pem").exists():
        typer.echo(f"next: comity federation keys recipient {recipient} --home {home} ...")


class _ReferenceFile(Model, frozen=True, kw_only=True):
    period: str
    version: int
    currency: str
    source: str
    rates: list[Rate]
    created_at: UtcText | None = None
    author: Name | None = None


def reference(
    file: Annotated[Path, typer.Argument(help="Signed reference data (.dsse), or a .toml file to sign and hand over.")],
    site: SiteFile = None,
    author: Annotated[str | None, typer.Option(help="Id of the author that signs a .toml file.")] = None,
    home: Annotated[Path | None, typer.Option(help="Home of the author (its keys/identity.pem).")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Hand the signed rates of a period to the group operators."""
    found = _site(site)
    if file.suffix == ".toml":
        if author is None or home is None:
            raise UsageError("AUTHOR_MISSING", "a .toml file is signed with --author NAME and --home FOLDER")
        plain = read_toml(file, _ReferenceFile)
        notice = Reference(
            federation=found.federation().digest,
            author=author,
            created_at=plain.created_at or utc_text(open_desk(found).now),
            period=plain.period,
            version=plain.version,
            currency=plain.currency,
            rates=plain.rates,
            source=plain.source,
        )
        from_plain(to_plain(notice), Reference, what=file.name)
        signed = sign_notice(notice, IdentityKey.load(home / "keys" / "identity.pem"))
        file = file.with_name(f"reference-{notice.period}-v{notice.version}.dsse")
        file.write_bytes(signed.envelope.to_bytes())
    answer = closing.publish_reference(found, file)
    _say(answer, f"reference data of {answer['period']} version {answer['version']} handed to {_names(answer)}",
         as_json=as_json)  # fmt: skip


def _names(answer: dict[str, Any]) -> str:
    return ", ".join(answer["operators"])


def release(
    file: Annotated[Path, typer.Argument(help="Signed release file (.dsse).")],
    site: SiteFile = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Hand a signed release to the group operators, who pass it to every data owner."""
    answer = closing.publish_release(_site(site), file)
    _say(answer, f"release {answer['release'][:12]} of {answer['report']} handed to {_names(answer)}", as_json=as_json)


def status(
    report: Report,
    period: Period,
    site: SiteFile = None,
    run: Annotated[str | None, typer.Option(help="Show this run's sessions too (run id).")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show who has submitted, who is missing, and how far the run is."""
    found = _site(site)
    answer = closing.period_status(found, report, period)
    run_id = run or answer["run_id"]
    if run_id:
        answer["run"] = closing.run_status(found, run_id)
    lines = [f"{report} {period}, release {answer['edition']}: {answer['state']}, due at {answer['due_at']}"]
    for name, owner in answer["owners"].items():
        more = " (empty submission)" if owner.get("nil") else ""
        more += f" {owner['code']}" if owner.get("code") else ""
        more += f", named: {', '.join(owner['blamed'])}" if owner.get("blamed") else ""
        lines.append(f"  {name:<20} {owner['state']}{more}")
    for name, said in answer.get("run", {}).get("operators", {}).items():
        words = said.get("error") or f"{said['state']}, country clusters {len(said['done'])} of {len(said['regions'])}"
        if said.get("stalled"):
            words += f", waits for {said['stalled']['party']} ({said['stalled']['code']})"
        lines.append(f"  run {str(run_id)[:12]} at {name}: {words}")
    _say(answer, "\n".join(lines), as_json=as_json)


def close(
    report: Report,
    period: Period,
    site: SiteFile = None,
    without: Annotated[list[str] | None, typer.Option(help="Leave this late owner out (repeatable).")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Leave this disputed owner out (repeatable).")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Close the submissions of a period: sign the manifest that starts the run."""
    answer = closing.close(_site(site), report, period, without=without or (), exclude=exclude or ())
    text = f"closed {report} {period} with {answer['submitted']} submissions: run {answer['run_id']}"
    if answer["late"]:
        text += f"; late: {', '.join(answer['late'])}"
    if answer["excluded"]:
        text += f"; left out after a dispute: {', '.join(answer['excluded'])}"
    _say(answer, text, as_json=as_json)


def receive(
    report: Report,
    period: Period,
    site: SiteFile = None,
    run: Annotated[str | None, typer.Option(help="Run id; the period's live run by default.")] = None,
    wait: Annotated[int, typer.Option(help="Seconds to wait for the result, and again for deletions.", min=0)] = 0,
    *,
    as_json: AsJson = False,
) -> None:
    """Fetch, verify and publish a run's result, acknowledge it, and write its evidence."""
    found = _site(site)
    what = {"run_id": run or _live(found, report, period)}
    _wait(found, what, wait)
    fetched = closing.fetch(found, what)
    verified = closing.verify(found, what, fetched)
    published = closing.publish(found, what, verified)
    answer = closing.acknowledge(found, what, published)
    if wait and answer["open"]:
        answer = closing.collect_closing(found, what, wait_s=wait, for_owners=False)
    answer = {**answer, "published": published["folder"], "rows": published["rows"]}
    text = [
        f"published {published['rows']} rows in {published['folder']}",
        f"evidence in {answer['evidence']}: {'checks passed' if answer['verified'] else 'REFUSED'}",
        *(f"  open: {item}" for item in answer["open"]),
    ]
    _say(answer, "\n".join(text), as_json=as_json)


def _wait(site: Site, run: dict[str, Any], wait: int) -> None:
    deadline = time.monotonic() + wait
    while closing.result_ready(site, run) is None:
        if time.monotonic() >= deadline:
            raise NotYet(
                "RESULT_NOT_READY", "the run goes on; its result is still to come", ids={"run": run["run_id"][:12]}
            )
        time.sleep(1)


def _live(site: Site, report: str, period: str) -> str:
    answer = closing.period_status(site, report, period)
    if not answer["run_id"]:
        raise NotYet("RUN_UNKNOWN", "the period is not closed yet", ids={"report": report, "period": period})
    return str(answer["run_id"])


def evidence(
    report: Report,
    period: Period,
    site: SiteFile = None,
    run: Annotated[str | None, typer.Option(help="Run id; the period's live run by default.")] = None,
    wait: Annotated[int, typer.Option(help="Seconds to wait for what is missing.", min=0)] = 0,
    *,
    as_json: AsJson = False,
) -> None:
    """Complete a run's evidence with deletions and countersignatures that have come since."""
    found = _site(site)
    answer = closing.collect_closing(found, {"run_id": run or _live(found, report, period)}, wait_s=wait)
    text = [
        f"evidence in {answer['evidence']}: {'checks passed' if answer['verified'] else 'REFUSED'}",
        f"  shares deleted at {len(answer['erased'])} of {answer['operators']} operators",
        f"  countersigned by {', '.join(answer['countersigned']) or 'nobody yet'}",
        *(f"  open: {item}" for item in answer["open"]),
    ]
    _say(answer, "\n".join(text), as_json=as_json)


def reopen(
    report: Report,
    period: Period,
    reason: Annotated[str, typer.Option(help="Why the released figures are to be revised.")],
    due_at: Annotated[str, typer.Option(help="When submissions are due, YYYY-MM-DDTHH:MM:SSZ.")],
    site: SiteFile = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Open the next release of a period; every data owner that takes part submits again."""
    answer = closing.reopen(_site(site), report, period, reason=reason, due_at=due_at)
    _say(answer, f"opened release {answer['edition']} of {report} {period}", as_json=as_json)


def cancel(
    run: Annotated[str, typer.Argument(help="Run id.")],
    reason: Annotated[str, typer.Option(help="Why the run is stopped.")],
    site: SiteFile = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Stop a run before it is committed."""
    answer = closing.cancel(_site(site), run, reason=reason)
    _say(answer, f"run {run[:12]} is cancelled, if it was not committed yet", as_json=as_json)
