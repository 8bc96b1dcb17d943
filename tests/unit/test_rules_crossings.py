from datetime import UTC, datetime

import msgspec
import pytest

from mpc_ops.errors import ConfigError, PolicyViolation
from mpc_ops.federation.assemble import read_toml
from mpc_ops.federation.model import PayloadClass, Role
from mpc_ops.federation.rulepack import Rule, RulePack, check_pack
from mpc_ops.plan.crossings import check_crossings, crossings
from mpc_ops.plan.rules import decide, decide_flow, origins_of, require_flow
from tests.support.federation import DEMO, DEMO_FOLDER, make_federation, make_plan

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def pack(code, *, change=None, **more):
    read = read_toml(DEMO_FOLDER / "rules" / f"{code.lower()}-demo.toml", RulePack)
    rules = [change(rule) if change else rule for rule in read.rules]
    return msgspec.structs.replace(read, rules=[rule for rule in rules if rule], **more)


def packs(**changed):
    return [changed.get(code, pack(code)) for code in ("CH", "CN", "DE", "IN", "NL", "SA", "SG")]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return make_federation(tmp_path_factory.mktemp("demo"), DEMO)


def ask(federation, **changes):
    flow = {
        "origin": "CN", "sender": "CN", "receiver": "SG", "to_role": Role.COMPUTE_NODE,
        "payload_class": PayloadClass.AGGREGATE_SHARE, "data_class": "personal", "min_records": 10, "owners": 1,
        "references": {}, "now": NOW,
    }  # fmt: skip
    return decide(federation, **(flow | changes))


def test_every_example_pack_is_complete():
    for path in sorted((DEMO_FOLDER / "rules").glob("*.toml")):
        check_pack(read_toml(path, RulePack))
        assert "counsel must adopt" in read_toml(path, RulePack).reviewed_by


@pytest.mark.parametrize("missing", list(PayloadClass))
def test_a_pack_that_leaves_a_class_unmatched_is_refused(missing):
    def drop(rule):
        left = [payload for payload in rule.payload if payload != missing]
        return msgspec.structs.replace(rule, payload=left) if left else None

    with pytest.raises(ConfigError, match=f"RULE_PACK_INCOMPLETE: no rule speaks about {missing} "):
        check_pack(pack("CN", change=drop))


def test_pack_with_unknown_data_class_or_stray_list_is_refused():
    rule = Rule(id="X", effect="deny", payload=[PayloadClass.EVIDENCE], to="any", data_classes=["personel"])
    with pytest.raises(ConfigError, match="RULE_PACK_INVALID: unknown data class"):
        check_pack(msgspec.structs.replace(pack("CN"), rules=[rule]))
    rule = Rule(id="X", effect="deny", payload=[PayloadClass.EVIDENCE], to="list")
    with pytest.raises(ConfigError, match="RULE_PACK_INVALID: to_jurisdictions"):
        check_pack(msgspec.structs.replace(pack("CN"), rules=[rule]))
    with pytest.raises(ConfigError, match="RULE_PACK_INVALID: two rules"):
        check_pack(msgspec.structs.replace(pack("CN"), rules=pack("CN").rules * 2))


def test_the_demo_report_is_allowed_and_no_record_class_crosses(demo):
    found = check_crossings(make_plan(demo.federation), demo.federation, now=NOW)
    across = {crossing.payload_class for crossing in found if crossing.border}
    assert across == {
        PayloadClass.AGGREGATE_SHARE, PayloadClass.RELEASED_AGGREGATE, PayloadClass.CONTROL_METADATA,
        PayloadClass.KEY_MATERIAL, PayloadClass.MAC_OR_COMMITMENT, PayloadClass.EVIDENCE,
    }  # fmt: skip
    to_nl = next(c for c in found if (c.sender, c.receiver, c.lanes > 0) == ("de-1", "nl-1", True))
    assert (to_nl.border, to_nl.same_area, to_nl.bytes_at_most) == (True, True, 8 * to_nl.lanes)
    from_owner = [c for c in found if c.sender == "owners of sa in SA" and c.lanes]
    assert {c.receiver for c in from_owner} == {"sa-1", "sa-2", "sa-3"}
    assert not any(c.border for c in from_owner)


def test_owners_of_a_run_are_listed_by_name(demo):
    found = crossings(make_plan(demo.federation), demo.federation, now=NOW, owners=["de-nord", "sa-gulf"])
    senders = {c.sender for c in found if c.what.startswith("secret shares of the owner")}
    assert senders == {"de-nord", "sa-gulf"}


def test_k_lowered_to_one_is_record_share_and_refused_at_planning(demo):
    plan = make_plan(demo.federation, k=1)
    with pytest.raises(
        PolicyViolation, match=r"CROSSING_DENIED: record_share may not go from .*rule ..-2 denies it"
    ) as info:
        check_crossings(plan, demo.federation, now=NOW)
    assert info.value.ids["payload_class"] == "record_share"
    assert info.value.ids["rule"].endswith("-2")
    lanes = {(c.sender, c.receiver): c for c in crossings(plan, demo.federation, now=NOW) if c.lanes and c.border}
    assert {c.payload_class for c in lanes.values()} == {PayloadClass.RECORD_SHARE}
    assert not any(c.allowed for c in lanes.values() if not c.same_area)


def test_k_lowered_to_one_is_refused_at_the_sending_operator(demo):
    decisions = decide_flow(
        make_plan(demo.federation, k=1), demo.federation, sender="cn-1", receiver="nl-1",
        payload_class=PayloadClass.RECORD_SHARE, now=NOW, owners=8,
    )  # fmt: skip
    with pytest.raises(
        PolicyViolation, match=r"CROSSING_DENIED: record_share may not go from cn-1 \(CN\) to nl-1 \(NL\)"
    ):
        require_flow(decisions, sender="cn-1", receiver="nl-1")


def test_k_below_the_rules_minimum_names_both_numbers(demo):
    with pytest.raises(PolicyViolation, match=r"at least 10 units per cell, the Gate keeps 5"):
        check_crossings(make_plan(demo.federation, k=5), demo.federation, now=NOW)


def test_an_expired_pack_denies_everything(demo):
    decision = ask(demo.federation, now=datetime(2036, 1, 1, tzinfo=UTC))
    assert not decision.allowed
    assert "cn-demo is not valid now" in decision.reason
    with pytest.raises(PolicyViolation, match=r"CROSSING_DENIED.*is not valid now"):
        check_crossings(make_plan(demo.federation), demo.federation, now=datetime(2036, 1, 1, tzinfo=UTC))


def test_a_jurisdiction_without_pack_denies(tmp_path):
    made = make_federation(tmp_path, packs=[p for p in packs() if p.origin in {"DE", "NL", "SG"}])
    with pytest.raises(PolicyViolation, match="jurisdiction CH has no rule pack"):
        check_crossings(make_plan(made.federation), made.federation, now=NOW)


def test_important_data_does_not_cross_even_as_aggregate(demo):
    assert ask(demo.federation).allowed
    decision = ask(demo.federation, data_class="important_or_core")
    assert (decision.allowed, decision.rules) == (False, ("CN-9",))


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"origin": "DE", "receiver": "NL", "payload_class": PayloadClass.RECORD_SHARE}, True),
        ({"origin": "DE", "receiver": "CH", "payload_class": PayloadClass.RECORD_SHARE}, False),
        ({"origin": "CN", "receiver": "CN", "payload_class": PayloadClass.RECORD_SHARE}, True),
        ({"origin": "CN", "receiver": "CN", "payload_class": PayloadClass.RECORD_PLAIN}, False),
        ({"payload_class": PayloadClass.RELEASED_AGGREGATE, "to_role": Role.RECIPIENT}, True),
        ({"payload_class": PayloadClass.RELEASED_AGGREGATE}, False),
        ({"to_role": Role.RECIPIENT}, False),
        ({"min_records": 9}, False),
        ({"min_records": 3, "receiver": "CN"}, True),
        ({"payload_class": PayloadClass.CONTROL_METADATA, "min_records": 1}, True),
    ],
)
def test_decisions_of_the_demo_packs(demo, changes, allowed):
    assert ask(demo.federation, **changes).allowed is allowed


def with_rules(tmp_path, *rules):
    cn = msgspec.structs.replace(pack("CN"), rules=[*pack("CN").rules, *rules])
    return make_federation(
        tmp_path, {"CN": ["cn-east"]}, packs=[p for p in packs(CN=cn) if p.origin not in {"DE", "IN", "SA"}]
    )


def test_a_hold_lifts_a_denial_only_with_its_reference(tmp_path):
    hold = Rule(
        id="CN-H", effect="hold_for_approval", payload=[PayloadClass.RECORD_SHARE], to="outside_origin",
        needs=["cac_assessment"], obligations=["file_dossier within P60D"],
    )  # fmt: skip
    federation = with_rules(tmp_path, hold).federation
    held = ask(federation, payload_class=PayloadClass.RECORD_SHARE)
    assert (held.allowed, held.reason) == (False, "rule CN-2 denies it; rule CN-H needs the reference cac_assessment")
    lifted = ask(federation, payload_class=PayloadClass.RECORD_SHARE, references={"cac_assessment": "2026/17"})
    assert (lifted.effect, lifted.obligations) == ("allow_with_obligations", ("file_dossier within P60D",))


def test_the_most_restrictive_of_two_permissions_wins(tmp_path):
    sector = Rule(
        id="CN-S", effect="allow", payload=[PayloadClass.AGGREGATE_SHARE], to="any", data_classes=["personal"],
        min_records=20, min_owners=3,
    )  # fmt: skip
    federation = with_rules(tmp_path, sector).federation
    decision = ask(federation, min_records=15)
    assert decision.rules == ("CN-S",)
    assert "at least 20 units" in decision.reason
    assert "at least 3 data owners, there are 1" in decision.reason
    assert ask(federation, min_records=20, owners=3).allowed
    assert ask(federation, min_records=15, data_class="employee").allowed


def test_origins_of_a_flow(demo):
    plan = make_plan(demo.federation)
    assert origins_of(plan, demo.federation, "cn-east") == ["CN"]
    assert origins_of(plan, demo.federation, "cn-1") == ["CN"]
    assert origins_of(plan, demo.federation, "nl-1") == ["CN", "DE", "IN", "NL", "SA"]
    assert origins_of(plan, demo.federation, "group-reporting") == ["CN", "DE", "IN", "NL", "SA"]


def test_a_decision_says_what_it_rests_on(demo):
    plain = ask(demo.federation).as_dict()
    assert plain["packs"] == {"cn-demo@1": demo.federation.terms.rule_packs["cn-demo"]}
    assert plain["inputs"]["min_records"] == 10
    assert plain["obligations"] == ["delete_abroad within ttl", "retain_evidence"]
