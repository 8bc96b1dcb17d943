"""The command line of federation and report, run as a newcomer would: from the example folder to an approval."""

import shutil
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

import mpc_ops.cli
from mpc_ops.cli import run
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.federation.loaded import Federation
from mpc_ops.notices.model import Approval, Reference, Release, Withdrawal
from mpc_ops.notices.signed import parse_notice, sign_notice, verify_notice
from mpc_ops.plan.approvals import approval_state
from mpc_ops.plan.checks import read_plan

EXAMPLE = Path(__file__).parents[2] / "infra" / "federations" / "example"
SEATS = {"de-1": "DE", "de-2": "DE", "de-3": "DE", "nl-1": "NL", "ch-1": "CH", "sg-1": "SG"}


def ok(*arguments):
    code = run([str(one) for one in arguments])
    assert code == 0, arguments


def make(root):
    """Run the set-up commands below `root`; return the federation folder."""
    home = root / "homes"
    for name, code in SEATS.items():
        ok(
            "federation",
            "keys",
            "operator",
            name,
            "--home",
            home / name,
            "--organisation",
            f"Org {name}",
            "--jurisdiction",
            code,
        )
    ok("federation", "keys", "recipient", "reporting", "--home", home / "reporting", "--jurisdiction", "NL")
    ok("federation", "keys", "author", "controlling", "--home", home / "controlling")
    ok("federation", "keys", "authority", "authority", "--home", root / "authority")
    for owner in ("alpha", "beta"):
        ok("federation", "keys", "approver", f"{owner}-dpo", "--home", root / "people" / f"{owner}-dpo")
        ok("federation", "keys", "signer", f"{owner}-cfo", "--home", root / "people" / f"{owner}-cfo")
        ok(
            "federation", "keys", "owner", owner, "--home", home / owner, "--jurisdiction", "DE", "--region", "de",
            "--currency", "EUR", "--approver", root / "people" / f"{owner}-dpo" / "public.json",
            "--signer", root / "people" / f"{owner}-cfo" / "public.json",
        )  # fmt: skip
    folder = root / "federation"
    ok("federation", "init", EXAMPLE / "federation.toml", home, "--out", folder, "--authority", root / "authority")
    for number, name in enumerate(SEATS):
        more = (
            ["--sftp", f"127.0.0.1:{5000 + number}"]
            if name.startswith("de")
            else ["--api", f"https://127.0.0.1:{5000 + number}"]
        )
        ok(
            "federation",
            "directory",
            folder,
            name,
            "--home",
            home / name,
            "--link",
            f"127.0.0.1:{4000 + number}",
            *more,
        )
    for name in ("reporting", "alpha", "beta"):
        ok("federation", "directory", folder, name, "--home", home / name)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("newcomer")
    make(root)
    reports = EXAMPLE / "reports"
    ok(
        "report",
        "calendar",
        "2026-01",
        "2026-03",
        "--zone",
        "Europe/Berlin",
        "--open-now",
        "24",
        "--out",
        root / "calendar.toml",
    )
    ok(
        "report", "release", reports / "orders_by_channel.sql", reports / "orders_by_channel.toml",
        "--calendar", root / "calendar.toml", "--federation", root / "federation", "--author", "controlling",
        "--home", root / "homes" / "controlling", "--out", root / "release.dsse",
    )  # fmt: skip
    return root


def fails(capsys, code, *arguments):
    """Run, expect this exit code, return the sentence."""
    capsys.readouterr()
    assert run([str(one) for one in arguments]) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def test_check_and_show_a_federation(root, capsys):
    ok("federation", "check", root / "federation")
    assert "all files valid" in capsys.readouterr().out
    ok("federation", "show", root / "federation")
    out = capsys.readouterr().out
    assert "cluster group (group)" in out
    assert "alpha-dpo" in out
    assert "PRIVATE" not in out


def test_check_names_what_is_missing(root, tmp_path, capsys):
    folder = tmp_path / "federation"
    shutil.copytree(root / "federation", folder)
    (folder / "directory" / "de-2.dsse").unlink()
    assert "FEDERATION_INCOMPLETE" in fails(capsys, 3, "federation", "check", folder)
    run(["federation", "check", str(folder)])
    assert "MISSING directory entry of de-2" in capsys.readouterr().out
    pack = next((folder / "rules").iterdir())
    pack.write_bytes(pack.read_bytes() + b" ")
    assert "RULE_PACK_DIGEST" in fails(capsys, 3, "federation", "check", folder)


def test_a_new_owner_joins_and_nobody_else_signs_again(root, tmp_path, capsys):
    folder = tmp_path / "federation"
    shutil.copytree(root / "federation", folder)
    ok(
        "federation", "keys", "owner", "gamma", "--home", tmp_path / "gamma", "--jurisdiction", "DE", "--region", "de",
        "--currency", "EUR", "--approver", root / "people" / "alpha-dpo" / "public.json",
    )  # fmt: skip
    ok("federation", "join", folder, tmp_path / "gamma" / "public.json", "--authority", root / "authority")
    before, after = Federation.load(root / "federation"), Federation.load(folder)
    assert (sorted(after.owners), after.membership.version) == (["alpha", "beta", "gamma"], 2)
    assert before.digest == after.digest
    ok("report", "show", root / "release.dsse", "--federation", folder)
    ok("federation", "directory", folder, "gamma", "--home", tmp_path / "gamma", "--out", tmp_path / "entry.dsse")
    ok("federation", "add", folder, tmp_path / "entry.dsse")
    wrong = fails(
        capsys, 12, "federation", "join", folder, tmp_path / "gamma" / "public.json", "--authority", tmp_path / "gamma"
    )
    assert "SIGNATURE_INVALID" in wrong


def test_compile_and_assess(root, tmp_path, capsys):
    reports = EXAMPLE / "reports"
    files = (reports / "orders_by_channel.sql", reports / "orders_by_channel.toml")
    ok("report", "compile", *files, "--federation", root / "federation", "--out", tmp_path / "plan.json")
    assert "gate: at least 10 of customer per cell" in capsys.readouterr().out
    plan = read_plan((tmp_path / "plan.json").read_bytes(), Federation.load(root / "federation"))
    ok("report", "assess", *files, "--federation", root / "federation", "--json", tmp_path / "statement.json")
    one = capsys.readouterr().out
    ok("report", "assess", root / "release.dsse", "--federation", root / "federation")
    assert capsys.readouterr().out == one
    assert plan.digest in one
    assert "DE -> CH: aggregate_share" in one


def test_release_is_imported_once_and_compared(root, tmp_path, capsys):
    ok("report", "import", root / "release.dsse", "--federation", root / "federation", "--releases", tmp_path)
    assert "compiles" not in capsys.readouterr().out
    (file,) = tmp_path.iterdir()
    assert file.stem == parse_notice(file.read_bytes()).digest
    ok("report", "import", root / "release.dsse", "--federation", root / "federation", "--releases", tmp_path)
    assert "already imported" in capsys.readouterr().out


def resigned(root, tmp_path, **changes):
    """Return a release file with changed members, signed by the author."""
    release = parse_notice((root / "release.dsse").read_bytes()).expect(Release)
    key = IdentityKey.load(root / "homes" / "controlling" / "keys" / "identity.pem")
    path = tmp_path / "changed.dsse"
    path.write_bytes(sign_notice(msgspec.structs.replace(release, **changes), key).envelope.to_bytes())
    return path


def test_import_shows_a_diff_of_plan_nodes(root, tmp_path, capsys):
    other = "SELECT channel, COUNT(*) AS orders, SUM(amount) AS amount, COUNT(DISTINCT customer) AS customers FROM orders WHERE period = :period GROUP BY channel"
    file = resigned(root, tmp_path, sql=other)
    ok("report", "import", file, "--federation", root / "federation", "--releases", tmp_path / "releases")
    out = capsys.readouterr().out
    assert "compiles the SQL into another plan" in out
    assert "-  orders (Orders) = orders of period; totals foot" in out
    assert "+  orders (Orders) = orders of period; no totals" in out
    file = resigned(root, tmp_path, sql="SELECT AVG(amount) AS a FROM orders WHERE period = :period")
    ok("report", "import", file, "--federation", root / "federation", "--releases", tmp_path / "releases")
    assert "does not compile with this version: UNSUPPORTED_SQL: 1:8: AVG" in capsys.readouterr().out


def test_a_release_that_is_altered_foreign_or_misstated_is_refused(root, tmp_path, capsys):
    where = ("--federation", root / "federation", "--releases", tmp_path / "releases")
    release = parse_notice((root / "release.dsse").read_bytes()).expect(Release)
    foreign = tmp_path / "foreign.dsse"
    foreign.write_bytes(sign_notice(release, IdentityKey.generate()).envelope.to_bytes())
    assert "SIGNATURE_INVALID: release notice: no valid signature by controlling" in fails(
        capsys, 12, "report", "import", foreign, *where
    )
    assert "STATEMENT_DIFFERS" in fails(
        capsys, 6, "report", "import", resigned(root, tmp_path, statement="0" * 64), *where
    )
    plan = release.plan.replace('"k":10', '"k":1')
    assert "PLAN_INVALID: payload class" in fails(
        capsys, 5, "report", "import", resigned(root, tmp_path, plan=plan), *where
    )
    plan = release.plan.replace('"k":10', '"k":5')
    denied = fails(capsys, 6, "report", "import", resigned(root, tmp_path, plan=plan), *where)
    assert "CROSSING_DENIED" in denied
    assert "at least 10 units per cell, the Gate keeps 5" in denied
    assert not (tmp_path / "releases").exists()


def test_approve_and_withdraw(root, tmp_path, capsys):
    federation = Federation.load(root / "federation")
    where = ("--federation", root / "federation", "--owner", "alpha", "--out", tmp_path)
    ok("report", "approve", root / "release.dsse", *where, "--home", root / "people" / "alpha-dpo")
    (file,) = tmp_path.iterdir()
    approval = verify_notice(parse_notice(file.read_bytes()), federation)
    opened = parse_notice((root / "release.dsse").read_bytes()).expect(Release)
    assert file.stem == approval.digest
    plan = read_plan(opened.plan.encode(), federation)
    moment = parse_time(approval.expect(Approval).created_at)
    assert (
        approval_state(federation, plan, [approval], [], "alpha", now=moment, statement=opened.statement).owner
        == "alpha"
    )
    assert "SIGNATURE_INVALID" in fails(
        capsys, 12, "report", "approve", root / "release.dsse", *where, "--home", root / "people" / "beta-dpo"
    )
    ok(
        "report",
        "withdraw",
        root / "release.dsse",
        *where,
        "--home",
        root / "people" / "alpha-dpo",
        "--reason",
        "under review",
    )
    withdrawn = [parse_notice(path.read_bytes()) for path in tmp_path.iterdir()]
    assert [signed.expect(Withdrawal).plan for signed in withdrawn if isinstance(signed.notice, Withdrawal)] == [
        plan.digest
    ]


def parse_time(text):
    return datetime.fromisoformat(text)


def test_rates_are_signed_as_reference_data(root, tmp_path, capsys):
    file = tmp_path / "rates.toml"
    file.write_text(
        'source = "treasury"\ncurrency = "EUR"\n[[rates]]\nperiod = "2026-01"\ncurrency = "CNY"\navg_rate = "0.1284"\n'
    )
    where = (
        "--federation",
        root / "federation",
        "--period",
        "2026-01",
        "--author",
        "controlling",
        "--out",
        tmp_path / "out",
    )
    ok("report", "rates", file, *where, "--home", root / "homes" / "controlling")
    (out,) = (tmp_path / "out").iterdir()
    assert parse_notice(out.read_bytes()).expect(Reference).rates[0].avg_rate == "0.1284"
    file.write_text(file.read_text().replace('"0.1284"', "0.1284"))
    assert "SCHEMA_INVALID" in fails(
        capsys, 3, "report", "rates", file, *where, "--home", root / "homes" / "controlling"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["fedration"], 2, "USAGE: No such command 'fedration'"),
        (["report", "show"], 2, "USAGE: Missing argument"),
        (["report", "approve", "x", "--days", "many"], 2, "USAGE: Invalid value for '--days'"),
        (["federation", "keys", "king", "k-1", "--home", "{tmp}"], 2, "USAGE: unknown kind of party"),
        (["federation", "keys", "operator", "Ünë", "--home", "{tmp}", "--jurisdiction", "DE"], 3, "NAME_INVALID"),
        (
            ["federation", "keys", "operator", "de-1", "--home", "{tmp}", "--jurisdiction", "Germany"],
            3,
            "SCHEMA_INVALID",
        ),
        (["federation", "show", "{tmp}/none"], 3, "FILE_MISSING"),
        (
            ["federation", "init", "{tmp}/none.toml", "{tmp}", "--out", "{tmp}/f", "--authority", "{tmp}"],
            3,
            "SECRET_MISSING",
        ),
        (
            ["report", "calendar", "2026-03", "2026-01", "--out", "{tmp}/c"],
            2,
            "USAGE: the months or days are not in order",
        ),
        (["report", "calendar", "2026-3", "2026-04", "--out", "{tmp}/c"], 2, "USAGE: not a month"),
        (
            ["report", "calendar", "2026-03", "2026-04", "--zone", "Mars/X", "--out", "{tmp}/c"],
            2,
            "USAGE: unknown time zone",
        ),
        (["report", "calendar", "2026-03", "2026-04", "--out", "/proc/none/c"], 3, "FILE_UNUSABLE"),
    ],
)
def test_wrong_usage_gives_a_sentence(tmp_path, capsys, arguments, code, sentence):
    assert sentence in fails(capsys, code, *(one.format(tmp=tmp_path) for one in arguments))


def test_refused_sql_is_a_sentence_with_its_position(root, tmp_path, capsys):
    sql = tmp_path / "bad.sql"
    sql.write_text("SELECT channel,\n  MEDIAN(amount) AS m FROM orders WHERE period = :period GROUP BY channel")
    terms = EXAMPLE / "reports" / "orders_by_channel.toml"
    out = fails(
        capsys, 5, "report", "compile", sql, terms, "--federation", root / "federation", "--out", tmp_path / "p"
    )
    assert out.startswith("UNSUPPORTED_SQL: 2:3: a median or quantile needs comparisons on shares")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("max_units = 100", "UNSUPPORTED_TERM"),
        ("gate_min_owners = 2", "UNSUPPORTED_TERM"),
        ('gate_at = "group"', "SCHEMA_INVALID"),
        ('on_late = "estimate"', "UNSUPPORTED_TERM"),
        ('security = "passive"', "UNSUPPORTED_TERM"),
        ("rounding = 3", "SCHEMA_INVALID"),
    ],
)
def test_terms_that_cannot_be_kept_are_refused_never_ignored(root, tmp_path, capsys, line, code):
    text = (EXAMPLE / "reports" / "orders_by_channel.toml").read_text()
    terms = tmp_path / "terms.toml"
    terms.write_text(f"{line}\n{text}")
    sql = EXAMPLE / "reports" / "orders_by_channel.sql"
    exit_code = 5 if code == "UNSUPPORTED_TERM" else 3
    assert code in fails(
        capsys, exit_code, "report", "compile", sql, terms, "--federation", root / "federation", "--out", tmp_path / "p"
    )


def test_help_version_and_no_arguments(capsys):
    assert run([]) == 2
    assert "Commands:" in capsys.readouterr().out
    assert run(["--version"]) == 0
    assert "comity-mpc 0." in capsys.readouterr().out
    assert run(["report", "--help"]) == 0


def test_a_broken_plug_in_takes_no_other_command_with_it(monkeypatch, capsys):
    class Broken:
        name = value = "broken.plugin:register"

        def load(self):
            raise RuntimeError("boom")

    monkeypatch.setattr(mpc_ops.cli, "entry_points", lambda group: [Broken()])
    assert run(["federation", "--help"]) == 0
    capsys.readouterr()
    assert run(["plugged"]) == 2
    assert "commands of broken.plugin:register are not available (RuntimeError: boom)" in capsys.readouterr().err


def test_an_extra_that_is_not_installed_is_named(monkeypatch, capsys):
    real = mpc_ops.cli.importlib.import_module

    def without_sqlglot(name):
        if name.endswith("report_commands"):
            raise ModuleNotFoundError("No module named 'sqlglot'", name="sqlglot")
        return real(name)

    monkeypatch.setattr(mpc_ops.cli.importlib, "import_module", without_sqlglot)
    assert run(["report", "show"]) == 2
    assert "`comity report` needs a package that is not installed (sqlglot)" in capsys.readouterr().err
