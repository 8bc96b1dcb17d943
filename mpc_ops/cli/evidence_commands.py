"""`comity evidence verify` and `comity evidence show`: for reviewers, offline, with public keys only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpc_ops.evidence.verify import Verdict, verify_pack

__all__ = ["register"]

_SIGNS = {"passed": "passed", "failed": "FAILED", "open": "open  "}


def register(app: typer.Typer) -> None:
    """Add the command group `evidence`."""
    group = typer.Typer(help="Check and read evidence packs, offline.", no_args_is_help=True)
    group.command("verify")(verify)
    group.command("show")(show)
    app.add_typer(group, name="evidence")


Folder = Annotated[Path, typer.Argument(help="Folder of the evidence pack.", metavar="DIR")]
Own = Annotated[
    Path | None,
    typer.Option(
        "--federation", help="Your own federation folder or federation.json: trust starts there.", metavar="FILE"
    ),
]


def verify(folder: Folder, federation: Own = None) -> None:
    """Check every byte, signature, log, approval and rule decision of a pack; exit code 12 if it is refused."""
    verdict = verify_pack(folder, federation)
    _checklist(verdict)
    verdict.require()


def show(folder: Folder, federation: Own = None) -> None:
    """Print what a pack says: for your decision, what crossed, who could learn what, until when it holds."""
    verdict = verify_pack(folder, federation)
    facts = verdict.facts
    if facts is None:
        verdict.require()
        return
    typer.echo(f"{facts.title} ({facts.report})  period {facts.period}  release {facts.edition}  run {facts.run[:12]}")
    typer.echo(facts.verdict)
    for title, lines in (
        ("A. For your decision", [*facts.failed, *facts.open]),
        ("B. What crossed a border", facts.section("crossed")),
        ("C. Who could learn what", facts.section("learn")),
        ("D. Result checks", facts.section("result")),
        ("E. Protection", facts.section("protection")),
        ("F. Holds until", facts.section("until")),
        ("G. Not claimed", facts.section("not_claimed")),
    ):
        typer.echo(f"\n{title}")
        for fact in lines:
            state = "FAILED" if fact.outcome == "failed" else fact.state
            typer.echo(f"  {state:<9} {fact.text}  [{fact.id}]")
    typer.echo(f"\n{verdict.words} ({verdict.trust})")
    typer.echo(f"Page for reviewers: {folder / 'page.html'}")
    verdict.require()


def _checklist(verdict: Verdict) -> None:
    if verdict.run:
        ended = f"run {verdict.run[:12]}, ended {verdict.outcome}"
        typer.echo(f"Evidence of {verdict.report} {verdict.period}, {ended}")
    for number, check in enumerate(verdict.checks, start=1):
        typer.echo(f"{number:>3}. {_SIGNS[check.status]}  {check.title}: {check.done or check.problems[0]}")
        for problem in check.problems if check.done else check.problems[1:]:
            typer.echo(f"             - {problem}")
        if check.file and check.status == "failed":
            typer.echo(f"             file: {check.file}")
    typer.echo(verdict.trust)
    typer.echo(verdict.words)
    typer.echo("This says what was checked. It is not legal advice and no judgement about any law.")
