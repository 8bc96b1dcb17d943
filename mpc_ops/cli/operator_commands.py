"""`comity operator init | run | drop-box | status`: for the administrator of a computing operator."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Annotated

import typer

from mpc_ops.errors import ConfigError
from mpc_ops.federation.loaded import Federation
from mpc_ops.server.config import create_operator_home, load_config

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command group `operator` and the command `doctor`."""
    group = typer.Typer(help="Set up and run a computing operator.", no_args_is_help=True)
    group.command("init")(init)
    group.command("run")(run)
    group.command("drop-box")(drop_box)
    group.command("status")(status)
    app.add_typer(group, name="operator")
    app.command("doctor")(doctor)


Home = Annotated[Path, typer.Option("--home", help="The operator's home folder.", metavar="DIR")]
FederationFolder = Annotated[Path, typer.Option("--federation", help="The federation folder.", metavar="DIR")]


def init(
    operator: Annotated[str, typer.Argument(help="Id of the operator in the federation terms.")],
    home: Home,
    federation: FederationFolder,
    link: Annotated[str, typer.Option(help="host:port to listen on for other operators.")] = "127.0.0.1:0",
    api: Annotated[str, typer.Option(help="host:port of the recipient's API (group operators only).")] = "127.0.0.1:0",
) -> None:
    """Write operator.toml and the folders of a home that has its keys already (`comity federation keys`)."""
    if not (home / "keys" / "identity.pem").exists():
        raise ConfigError(
            "SECRET_MISSING",
            "the home folder has no keys yet",
            ids={"home": str(home)},
            hint="Run `comity federation keys operator` first",
        )
    config = create_operator_home(home, operator, federation, link=link, api=api)
    typer.echo(f"Operator {config.id} is set up in {config.home}")
    typer.echo(f"Start it with: comity operator run --home {config.home}")


def run(home: Home) -> None:
    """Run the operator until SIGTERM; prints one line of JSON when it is ready, its log goes to standard error."""
    from mpc_ops.server.app import run_operator  # noqa: PLC0415 - the other commands need no engine

    code = run_operator(home)
    if code:
        raise typer.Exit(code)


def drop_box(
    home: Home,
    listen: Annotated[
        str | None, typer.Option(help="host:port to listen on; by default the address in the directory.")
    ] = None,
) -> None:
    """Run the SFTP drop box of a region operator until SIGTERM, with the accounts that the directory lists now.

    For trials and small federations; production uses OpenSSH's sshd (infra/sshd).
    """
    from mpc_ops.server.sftp.__main__ import main  # noqa: PLC0415 - the other commands need no paramiko
    from mpc_ops.server.sftp.accounts import write_sftp_config  # noqa: PLC0415

    config = load_config(home)
    path = write_sftp_config(home, config.id, Federation.load(config.federation), listen)
    code = main(["--config", str(path)])
    if code:
        raise typer.Exit(code)


def doctor(home: Home) -> None:
    """Look for what would stop an operator: keys, certificate, disk, directory, and the peers that it dials."""
    from mpc_ops.server.diagnose import diagnose  # noqa: PLC0415 - the other commands need no TLS
    from mpc_ops.server.doctor import Level  # noqa: PLC0415

    failed = False
    for finding in diagnose(home):
        typer.echo(str(finding))
        failed = failed or finding.level is Level.FAIL
    if failed:
        raise typer.Exit(ConfigError.exit_code)


def status(home: Home) -> None:
    """Print what the operator's journal says: periods, filings, runs, ledger. Works while it runs."""
    config = load_config(home)
    path = config.state / "operator.sqlite"
    if not path.exists():
        raise ConfigError("STATE_MISSING", "the operator has not run yet", ids={"file": str(path)})
    federation = Federation.load(config.federation)
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        _print(database, federation, config.id)
    except sqlite3.DatabaseError:
        raise ConfigError("STATE_UNREADABLE", "the journal cannot be read", ids={"file": str(path)}) from None
    finally:
        database.close()


def _print(database: sqlite3.Connection, federation: Federation, operator: str) -> None:
    boot = database.execute("SELECT value FROM meta WHERE name = 'boot'").fetchone()
    seat = federation.jurisdiction_of(operator)
    clusters = ", ".join(sorted(federation.clusters_of(operator)))
    typer.echo(f"operator {operator} ({seat})  clusters {clusters}  starts {boot[0] if boot else 0}")
    entries, last = database.execute("SELECT count(*), max(seq) FROM ledger").fetchone()
    head = database.execute("SELECT head FROM ledger WHERE seq = ?", (last,)).fetchone()
    typer.echo(f"ledger   {entries} entries, head {head[0][:16] if head else 'none'}")
    (notices,) = database.execute("SELECT count(*) FROM notices").fetchone()
    typer.echo(f"notices  {notices}")
    for period, edition, due_at, destroyed in database.execute(
        "SELECT period, edition, due_at, destroyed FROM editions ORDER BY period, edition"
    ):
        typer.echo(f"period   {period} edition {edition}  due {due_at}  {'key destroyed' if destroyed else 'key kept'}")
    for period, owner, edition, phase in database.execute(
        "SELECT period, owner, edition, phase FROM filings ORDER BY period, owner, edition"
    ):
        typer.echo(f"filing   {period} {owner} edition {edition}  {phase}")
    for found, cluster, phase, changed_at in database.execute(
        "SELECT run, cluster, phase, changed_at FROM sessions ORDER BY changed_at"
    ):
        stalled = "  (waits for its peers)" if phase in {"PREPARED", "ACCEPTED"} else ""
        typer.echo(f"run      {found[:16]} {cluster}  {phase} since {changed_at}{stalled}")
