"""The submission close: who is missing, what a person may decide, what is posted again, and every refusal of an operator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from local_stores import closing
from local_stores.cli.closing_commands import register
from local_stores.receive.runs import RunFiles
from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.errors import ConfigError, NotYet, PolicyViolation, StateError, UsageError
from mpc_ops.notices.model import Manifest, Reopen
from mpc_ops.notices.signed import parse_notice, run_id_of, verify_notice
from tests.support.closing import make_recipient_site, save_notice
from tests.support.federation import SMALL, make_federation, make_plan, make_reference, make_release
from tests.support.group_api import group_api, period_answer

REPORT, PERIOD = "group_performance", "2026-01"
ALL = {"de-nord": "1" * 64, "de-sued": "2" * 64}
ONE = {"de-nord": "1" * 64}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with group_api(make_federation(tmp_path_factory.mktemp("federation"), SMALL)) as found:
        yield found


class Office:
    """The recipient's site and what the operators answer."""

    def __init__(self, served, root: Path, **terms) -> None:
        self.api, self.made = served
        self.api.clear()
        plan = make_plan(self.made.federation)
        changed = {name: getattr(plan.terms, name) for name in plan.terms.__struct_fields__} | terms
        nodes = {name: getattr(plan, name) for name in plan.__struct_fields__} | {"terms": type(plan.terms)(**changed)}
        self.plan = type(plan)(**nodes)
        self.release = make_release(self.made, self.plan)
        self.site = make_recipient_site(self.made, root / "site", self.release, wait_s=0)
        self.api.all("/v1/notices/*", (201, {"new": True}))
        self.say({})

    def say(self, filings, operator=None, **change) -> None:
        answer = (200, period_answer(self.made, self.plan.digest, PERIOD, filings, **change))
        for name in [operator] if operator else self.api.answers:
            self.api.answers[name][f"/v1/periods/{self.plan.digest}/{PERIOD}"] = answer

    def dispute(self, filings, owner) -> None:
        answer = period_answer(self.made, self.plan.digest, PERIOD, filings)
        answer["owners"][owner] |= {
            "state": "DISPUTED",
            "code": "HOLDERS_DISAGREE",
            "pair": ["de-1", "de-2"],
            "take": 1,
        }
        self.api.all(f"/v1/periods/{self.plan.digest}/{PERIOD}", (200, answer))

    def manifests(self, operator="nl-1") -> list[Manifest]:
        found = [verify_notice(parse_notice(data), self.made.federation) for data in self.api.posted(operator)]
        return [signed.expect(Manifest) for signed in found if signed.kind == "manifest"]


@pytest.fixture
def office(served, tmp_path) -> Office:
    return Office(served, tmp_path)


def test_nothing_is_ready_before_everybody_has_submitted_or_the_time_is_over(office):
    office.say(ONE)
    assert closing.filings_ready(office.site, REPORT, PERIOD) is None
    office.say(ALL)
    ready = closing.filings_ready(office.site, REPORT, PERIOD)
    assert ready == {
        "report": REPORT, "period": PERIOD, "edition": 1, "submitted": 2, "late": [], "closed": False,
    }  # fmt: skip
    json.dumps(ready)


def test_what_one_operator_withholds_another_tells(office):
    office.say(ONE)
    office.say(ALL, "sg-1")
    assert closing.filings_ready(office.site, REPORT, PERIOD)["submitted"] == 2
    office.api.answers["nl-1"][f"/v1/periods/{office.plan.digest}/{PERIOD}"] = (503, {"code": "PEER_UNAVAILABLE"})
    assert closing.filings_ready(office.site, REPORT, PERIOD)["submitted"] == 2


def test_a_late_owner_holds_the_close_and_is_named(office):
    office.say(ONE, overdue=True)
    with pytest.raises(NotYet, match=r"CLOSE_HELD: .*de-sued \(EXPECTED\)") as error:
        closing.filings_ready(office.site, REPORT, PERIOD)
    assert "--without" in error.value.hint
    with pytest.raises(NotYet, match="CLOSE_HELD"):
        closing.close(office.site, REPORT, PERIOD)
    assert office.manifests() == []


def test_a_person_decides_to_go_without_a_late_owner(office):
    office.say(ONE, overdue=True)
    run = closing.close(office.site, REPORT, PERIOD, without=["de-sued"])
    assert run["late"] == ["de-sued"]
    (manifest,) = office.manifests()
    assert (manifest.late, manifest.filings) == (["de-sued"], ["1" * 64])
    assert closing.filings_ready(office.site, REPORT, PERIOD)["closed"]


def test_release_without_closes_when_it_is_due_and_enough_have_submitted(served, tmp_path):
    office = Office(served, tmp_path, on_late="release_without")
    office.say(ONE)
    assert closing.filings_ready(office.site, REPORT, PERIOD) is None
    office.say(ONE, overdue=True)
    assert closing.filings_ready(office.site, REPORT, PERIOD)["late"] == ["de-sued"]
    assert closing.close(office.site, REPORT, PERIOD)["late"] == ["de-sued"]


def test_too_few_owners_never_close(served, tmp_path):
    office = Office(served, tmp_path, on_late="release_without", min_owners=2)
    office.say(ONE, overdue=True)
    with pytest.raises(NotYet, match="CLOSE_HELD"):
        closing.filings_ready(office.site, REPORT, PERIOD)
    with pytest.raises(PolicyViolation, match="MIN_OWNERS"):
        closing.close(office.site, REPORT, PERIOD, without=["de-sued"])


def test_a_dispute_holds_every_close_until_a_person_excludes_the_owner(served, tmp_path):
    office = Office(served, tmp_path, on_late="release_without")
    office.dispute(ONE, "de-sued")
    with pytest.raises(NotYet, match=r"de-sued \(HOLDERS_DISAGREE\)"):
        closing.close(office.site, REPORT, PERIOD)
    with pytest.raises(UsageError, match="OWNER_UNKNOWN"):
        closing.close(office.site, REPORT, PERIOD, without=["de-sued"])
    run = closing.close(office.site, REPORT, PERIOD, exclude=["de-sued"])
    assert (run["excluded"], run["late"]) == (["de-sued"], [])


@pytest.mark.parametrize("name", ["de-nord", "nobody"])
def test_only_who_is_missing_can_be_left_out(office, name):
    office.say(ONE, overdue=True)
    with pytest.raises(UsageError, match="OWNER_UNKNOWN"):
        closing.close(office.site, REPORT, PERIOD, without=[name])


def test_a_repeated_close_posts_the_same_manifest_even_if_filings_changed(office):
    office.say(ALL)
    run = closing.close(office.site, REPORT, PERIOD)
    office.say({**ALL, "de-sued": "3" * 64})
    assert closing.close(office.site, REPORT, PERIOD) == run
    one, other = office.manifests()
    assert one == other
    files = RunFiles(office.site.state, run["run_id"])
    assert run_id_of(files.manifest()) == run["run_id"]
    assert files.federation().directory_digest == one.directory


def test_after_a_failed_run_a_new_manifest_is_signed(office):
    office.say(ALL)
    run = closing.close(office.site, REPORT, PERIOD)
    ended = {
        "run": run["run_id"], "plan": office.plan.digest, "period": PERIOD, "edition": 1, "state": "FAILED(X_Y)",
        "phase": "FAILED", "code": "CROSS_MISMATCH", "pair": [], "regions": ["de"], "done": [], "stall": None,
        "sessions": {}, "statements": [],
    }  # fmt: skip
    office.say({**ALL, "de-sued": "3" * 64})
    office.api.answers["nl-1"][f"/v1/runs/{run['run_id']}"] = (200, ended)
    assert closing.close(office.site, REPORT, PERIOD) == run  # one operator's word is not enough
    office.api.all(f"/v1/runs/{run['run_id']}", (200, ended))
    again = closing.close(office.site, REPORT, PERIOD)
    assert again["run_id"] != run["run_id"]
    assert closing.close(office.site, REPORT, PERIOD) == again


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (409, "RUN_EXISTS", StateError),
        (409, "FILING_CHANGED", StateError),
        (422, "MANIFEST_DIFFERENCE", PolicyViolation),
        (425, "FILING_UNKNOWN", NotYet),
    ],
)
def test_an_operators_refusal_keeps_its_code_and_names_it(office, status, code, kind):
    office.say(ALL)
    office.api.all("/v1/notices/*", (425, {"code": "FILING_UNKNOWN", "what": "still to come"}))
    office.api.answers["ch-1"]["/v1/notices/*"] = (status, {"code": code, "what": "no", "ids": {"run": "abc"}})
    with pytest.raises(kind, match=code) as error:
        closing.close(office.site, REPORT, PERIOD)
    if status != 425:
        assert error.value.ids["party"] == "ch-1"


def test_a_manifest_that_nobody_took_is_signed_anew_and_one_that_somebody_may_have_is_not(office):
    office.say(ALL)
    no = (422, {"code": "APPROVAL_EXPIRED", "what": "no", "expected": "a valid one", "got": "none from de-nord"})
    office.api.all("/v1/notices/*", no)
    with pytest.raises(PolicyViolation, match=r"APPROVAL_EXPIRED.*expected a valid one; got none from de-nord"):
        closing.close(office.site, REPORT, PERIOD)
    first = [path for _, verb, path, _ in office.api.asked if verb == "PUT"][-1]
    office.say({**ALL, "de-sued": "3" * 64})
    office.api.all("/v1/runs/*", (503, {}))
    with pytest.raises(PolicyViolation):
        closing.close(office.site, REPORT, PERIOD)
    second = [path for _, verb, path, _ in office.api.asked if verb == "PUT"][-1]
    assert second != first  # every operator had said that it does not know the first one
    with pytest.raises(PolicyViolation):
        closing.close(office.site, REPORT, PERIOD)
    assert [path for _, verb, path, _ in office.api.asked if verb == "PUT"][-1] == second


def test_one_operator_that_takes_the_manifest_is_enough(office):
    office.say(ALL)
    office.api.all("/v1/notices/*", (503, {}))
    office.api.answers["sg-1"]["/v1/notices/*"] = (200, {"new": False})
    assert closing.close(office.site, REPORT, PERIOD)["submitted"] == 2


def test_releases_that_are_missing_and_periods_that_nobody_knows(office):
    with pytest.raises(ConfigError, match="RELEASE_MISSING"):
        closing.filings_ready(office.site, "other_report", PERIOD)
    with pytest.raises(ConfigError, match="PERIOD_UNKNOWN"):
        closing.filings_ready(office.site, REPORT, "2031-01")
    with pytest.raises(ConfigError, match="PERIOD_INVALID"):
        closing.close(office.site, REPORT, "../../x")


def test_release_and_reference_reach_all_three(office, tmp_path):
    reference = save_notice(tmp_path / "files", make_reference(office.made, PERIOD))
    answer = closing.publish_reference(office.site, reference)
    assert (answer["operators"], answer["version"]) == (["ch-1", "nl-1", "sg-1"], 1)
    release = office.site.releases_dir / f"{office.release.digest}.dsse"
    assert closing.publish_release(office.site, release)["plan"] == office.plan.digest
    with pytest.raises(ConfigError, match="NOTICE_KIND"):
        closing.publish_release(office.site, reference)
    altered = tmp_path / "altered.dsse"
    altered.write_bytes(release.read_bytes().replace(b'"sig":"', b'"sig":"A', 1))
    with pytest.raises(Exception, match=r"ENVELOPE_INVALID|SIGNATURE_INVALID"):
        closing.publish_release(office.site, altered)


def test_reopening_needs_a_reason_and_opens_the_next_edition(office):
    with pytest.raises(UsageError, match="REASON_MISSING"):
        closing.reopen(office.site, REPORT, PERIOD, reason=" ", due_at="2099-01-01T00:00:00Z")
    answer = closing.reopen(office.site, REPORT, PERIOD, reason="wrong cost", due_at="2099-01-01T00:00:00Z")
    assert answer["edition"] == 2
    signed = parse_notice(office.api.posted("nl-1")[-1])
    assert signed.expect(Reopen).reason == "wrong cost"
    with pytest.raises(ConfigError, match="SCHEMA_INVALID"):
        closing.reopen(office.site, REPORT, PERIOD, reason="x", due_at="tomorrow")


def invoke(*arguments: str):
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, ["group", *arguments])


def test_commands_say_what_they_did(office, tmp_path):
    site = ["--site", str(office.site.folder / "site.toml")]
    office.say(ONE)
    shown = invoke("status", REPORT, PERIOD, *site)
    assert shown.exit_code == 0, shown.output
    assert "de-nord              AGREED" in shown.output
    assert "de-sued              EXPECTED" in shown.output
    office.say(ALL)
    closed = invoke("close", REPORT, PERIOD, *site)
    assert closed.output.startswith(f"closed {REPORT} {PERIOD} with 2 submissions: run ")
    assert json.loads(invoke("close", REPORT, PERIOD, "--json", *site).output)["submitted"] == 2
    rates = tmp_path / "rates.toml"
    rates.write_text(
        'period = "2026-01"\nversion = 1\ncurrency = "EUR"\nsource = "treasury"\n'
        '[[rates]]\nperiod = "2026-01"\ncurrency = "EUR"\navg_rate = "1"\n'
    )
    author = ["--author", "group-controlling", "--home", str(office.made.homes["group-controlling"])]
    done = invoke("reference", str(rates), *author, *site)
    assert done.exit_code == 0, done.exception
    assert "version 1 handed to ch-1, nl-1, sg-1" in done.output
    assert isinstance(invoke("reference", str(rates), *site).exception, UsageError)
    assert isinstance(invoke("close", REPORT, PERIOD).exception, ConfigError)


def test_no_wrong_name_reaches_an_address(office):
    office.api.asked.clear()
    with pytest.raises(ConfigError):
        closing.close(office.site, REPORT, "2026-01/../x")
    assert office.api.asked == []
    assert sha256_hex(b"") not in str(office.api.answers)
