"""Dataset contracts and rule packs: what the types cannot say is refused with its reason, before anybody plans on it."""

from __future__ import annotations

import msgspec
import pytest

from mpc_ops.envelope.schema import from_plain, to_plain
from mpc_ops.errors import ConfigError
from mpc_ops.federation.assemble import read_toml
from mpc_ops.federation.contract import Column, ControlTotal, DatasetContract, check_contract
from mpc_ops.federation.model import PayloadClass
from mpc_ops.federation.rulepack import Rule, RulePack, check_pack
from tests.support.federation import DEMO_FOLDER

CONTRACT = read_toml(DEMO_FOLDER / "datasets" / "sales_line.toml", DatasetContract)
PACK = read_toml(DEMO_FOLDER / "rules" / "de-demo.toml", RulePack)


def column(which: str, /, **changes: object) -> DatasetContract:
    columns = [msgspec.structs.replace(c, **changes) if c.name == which else c for c in CONTRACT.columns]
    return msgspec.structs.replace(CONTRACT, columns=columns)


def refusal(contract: DatasetContract) -> str:
    with pytest.raises(ConfigError) as info:
        check_contract(contract)
    assert info.value.code == "CONTRACT_INVALID"
    assert info.value.ids["dataset"] == contract.name
    return info.value.what


def test_the_demo_contract_is_accepted() -> None:
    check_contract(CONTRACT)
    assert [c.name for c in CONTRACT.by_role("dimension")] == ["segment", "product_line"]
    assert CONTRACT.column("revenue_lc").scale == 2


def test_an_unknown_column_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"COLUMN_UNKNOWN.*no column turnover; expected invoice_no, line_no"):
        CONTRACT.column("turnover")


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("segment", {"domain": []}, "dimension segment must be"),
        ("segment", {"nullable": True}, "dimension segment must be"),
        ("segment", {"type": "int64", "minimum": "1", "maximum": "2"}, "dimension segment must be"),
        ("segment", {"domain": ["A", "B", "A"]}, "domain of segment repeats a value"),
        ("segment", {"name": "Segment"}, "not a lower-case identifier"),
        ("segment", {"name": "seg ment"}, "not a lower-case identifier"),
        ("segment", {"name": "product_line"}, "two columns have one name"),
        ("quantity", {"minimum": None}, "numeric column quantity has no minimum and maximum"),
        ("quantity", {"maximum": None}, "numeric column quantity has no minimum and maximum"),
        ("quantity", {"minimum": "one"}, "minimum or maximum of quantity is not a decimal number"),
        ("quantity", {"maximum": "1e3"}, "minimum or maximum of quantity is not a decimal number"),
        ("quantity", {"maximum": "NaN"}, "minimum or maximum of quantity is not a decimal number"),
        ("quantity", {"maximum": "1.5"}, "minimum or maximum of quantity is not a decimal number of its scale"),
        ("quantity", {"minimum": "51"}, "minimum of quantity is above its maximum"),
        ("quantity", {"scale": 2}, "column quantity has a scale but is not a decimal"),
        ("quantity", {"nullable": True}, "measure quantity must be a number and not nullable"),
        ("quantity", {"type": "string"}, "measure quantity must be a number and not nullable"),
        ("revenue_lc", {"maximum": "1.005"}, "not a decimal number of its scale"),
        ("revenue_lc", {"maximum": "92233720368547758.08"}, "bounds of revenue_lc do not fit 64 bits"),
        ("booked_on", {"type": "string"}, "the period column must be a date"),
        ("booked_on", {"role": "attribute"}, "exactly one column must have the role 'period'"),
        ("customer_uid", {"role": "attribute"}, "exactly one column must have the role 'unit'"),
        ("line_no", {"type": "string", "role": "unit"}, "exactly one column must have the role 'unit'"),
    ],
)
def test_columns_that_no_proof_could_rest_on_are_refused(name: str, changes: dict[str, object], why: str) -> None:
    assert why in refusal(column(name, **changes))


def test_the_widest_bounds_that_fit_are_accepted() -> None:
    check_contract(column("revenue_lc", minimum="-92233720368547758.07", maximum="92233720368547758.07"))


def test_keys_and_control_totals_name_columns_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"COLUMN_UNKNOWN.*no column invoice"):
        check_contract(msgspec.structs.replace(CONTRACT, primary_key=["invoice"]))

    def total(**changes: str) -> DatasetContract:
        one = ControlTotal(**({"column": "revenue_lc", "source": "ledger"} | changes))
        return msgspec.structs.replace(CONTRACT, control_totals=[one])

    check_contract(total(tolerance="0.01"))
    with pytest.raises(ConfigError, match=r"COLUMN_UNKNOWN.*no column turnover"):
        check_contract(total(column="turnover"))
    assert "which is not a measure" in refusal(total(column="segment"))
    for text in ("much", "-1", "inf", "1e2"):
        assert "tolerance of the control total" in refusal(total(tolerance=text))


@pytest.mark.parametrize("name", ["Sales", "sales line", "sales__line", "-sales", "../sales", "a" * 64])
def test_a_dataset_has_a_name_that_can_be_a_file(name: str) -> None:
    with pytest.raises(ConfigError, match="NAME_INVALID"):
        check_contract(msgspec.structs.replace(CONTRACT, name=name))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"max_rows": 0}, "$.max_rows"),
        ({"max_rows": 10**11}, "$.max_rows"),
        ({"version": "1"}, "$.version"),
        ({"data_class": "secret-word"}, "$.data_class"),
        ({"primary_key": []}, "$.primary_key"),
        ({"columns": []}, "$.columns"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_files_of_another_form_are_refused_at_the_member(changes: dict[str, object], place: str) -> None:
    with pytest.raises(ConfigError) as info:
        from_plain(to_plain(CONTRACT) | changes, DatasetContract, what="contract")
    assert info.value.code == "SCHEMA_INVALID"
    assert place in (info.value.got or "")
    assert "secret-word" not in str(info.value)


def test_a_refusal_never_quotes_the_value_and_is_never_long() -> None:
    for plain in (
        to_plain(CONTRACT) | {"x" * 100_000: 1},
        {"name": "a", "type": "SECRET - at `x`", "role": "key"},
    ):
        with pytest.raises(ConfigError) as info:
            from_plain(plain, DatasetContract if len(plain) > 3 else Column, what="file")
        assert len(str(info.value)) < 600
        assert "SECRET" not in str(info.value)


def pack(**changes: object) -> RulePack:
    return msgspec.structs.replace(PACK, **changes)


def test_the_demo_packs_speak_about_everything() -> None:
    for path in sorted((DEMO_FOLDER / "rules").glob("*.toml")):
        check_pack(read_toml(path, RulePack))


@pytest.mark.parametrize("payload", list(PayloadClass))
def test_a_pack_that_is_silent_about_a_class_is_refused_with_the_first_gap(payload: PayloadClass) -> None:
    rules = [
        msgspec.structs.replace(rule, payload=kept)
        for rule in PACK.rules
        if (kept := [p for p in rule.payload if p is not payload])
    ]
    with pytest.raises(ConfigError, match=f"RULE_PACK_INCOMPLETE.*no rule speaks about {payload} "):
        check_pack(pack(rules=rules))


def test_rules_that_contradict_themselves_are_refused() -> None:
    first, rest = PACK.rules[0], PACK.rules[1:]

    def replaced(**changes: object) -> RulePack:
        return pack(rules=[msgspec.structs.replace(first, **changes), *rest])

    for changes, why in (
        ({"id": rest[0].id}, "two rules have one id"),
        ({"to": "list"}, "to_jurisdictions stands with `to = list` and only there"),
        ({"to_jurisdictions": ["NL"]}, "to_jurisdictions stands with `to = list` and only there"),
        ({"data_classes": ["personel"]}, "unknown data class; got personel"),
        ({"data_classes_not": ["personel"]}, "unknown data class; got personel"),
    ):
        with pytest.raises(ConfigError, match="RULE_PACK_INVALID") as info:
            check_pack(replaced(**changes))
        assert why in str(info.value)


def test_a_rule_for_some_classes_of_data_does_not_speak_about_the_others() -> None:
    rules = [msgspec.structs.replace(rule, data_classes=["payment"]) for rule in PACK.rules]
    with pytest.raises(ConfigError, match=r"RULE_PACK_INCOMPLETE.*\(personal\)"):
        check_pack(pack(rules=rules))


def test_a_rule_for_one_role_does_not_speak_about_the_others() -> None:
    rules = [msgspec.structs.replace(rule, to_roles=["compute_node"]) for rule in PACK.rules]
    with pytest.raises(ConfigError, match=r"RULE_PACK_INCOMPLETE.*to a recipient"):
        check_pack(pack(rules=rules))


def test_a_list_of_countries_is_no_answer_for_the_rest_of_the_world() -> None:
    rules = [
        msgspec.structs.replace(rule, to="list", to_jurisdictions=["NL"]) if rule.to == "any" else rule
        for rule in PACK.rules
    ]
    with pytest.raises(ConfigError, match="RULE_PACK_INCOMPLETE"):
        check_pack(pack(rules=rules))


def test_rule_members_are_a_closed_vocabulary() -> None:
    plain = to_plain(PACK.rules[0])
    for changes in ({"to": "abroad"}, {"effect": "maybe"}, {"payload": ["records"]}, {"payload": []}, {"extra": 1}):
        with pytest.raises(ConfigError, match="SCHEMA_INVALID"):
            from_plain(plain | changes, Rule, what="rule")
