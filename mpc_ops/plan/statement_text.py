"""The planned-transfer statement as text for reviewers; words as in reporting practice, no protocol jargon."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mpc_ops.federation.model import PayloadClass
from mpc_ops.plan.statement import PlannedStatement

__all__ = ["statement_text"]

_RECORD_SHARE = str(PayloadClass.RECORD_SHARE)
_EFFECTS = {"allow": "allowed", "allow_with_obligations": "allowed with obligations", "deny": "denied"}
_LATE = {
    "hold": "the submission close waits for a missing data owner",
    "release_without": "the submission close may go without a late data owner, under the difference rule",
}


def statement_text(statement: PlannedStatement, notes: Iterable[str] = ()) -> str:
    """Return the statement as plain text.

    Args:
        statement: what approvals are given for.
        notes: what the present members add (`member_notes`); printed, not part of the digest.
    """
    content = statement.content
    lines = [
        f"Planned-transfer statement: {content['title']} ({content['report']}, version {content['version']})",
        f"calculation plan {content['plan']}",
        f"this statement   {statement.digest}",
        "",
        f"Purpose: {content['basis']}",
        *_data(content),
        *_section("Who learns what", _learns(content)),
        *_section("Who learns what together", content["together"]),
        *_section("What crosses a border (planned; measured when it runs)", _crossings(content["crossings"])),
        *_section("What stays inside its country", _crossings(content["inside"])),
        *_section("With the data owners of today (not part of the digest)", notes),
        *_section("Rule packs", _packs(content)),
        *_section("Not claimed", content["not_claimed"]),
    ]
    return "\n".join(lines) + "\n"


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    body = list(lines)
    if body:
        yield ""
        yield title
        yield from (f"  {line}" for line in body)


def _data(content: Mapping[str, Any]) -> Iterator[str]:
    dataset, gate, terms = content["dataset"], content["gate"], content["terms"]
    yield f"Data: {dataset['name']} ({dataset['data_class']}), columns read at the data owner: {', '.join(dataset['columns'])}"
    yield from _gate(gate)
    columns = ", ".join(one["label"] or one["name"] for one in content["columns"])
    yield f"Result: {content['values']} numbers; columns: {columns}"
    recipient = content["recipient"]
    yield f"Result recipient: {recipient['name']}, {recipient['organisation']} ({recipient['jurisdiction']})"
    yield (
        f"Data owners in a run: {terms['min_owners']} to {terms['max_owners']}; {_LATE[terms['on_late']]}; "
        f"sign-off by {terms['sign_off']}; shares deleted at the latest {terms['ttl_days']} days after the due date"
    )
    for name, text in sorted(terms["references"].items()):
        yield f"Reference {name}: {text}"


def _gate(gate: Mapping[str, Any]) -> Iterator[str]:
    region = gate.get("where") == "region"
    if gate["k"] == 1:
        yield "Small cells: NOT moved (k = 1), so every value counts as one about single records"
    elif region:
        owners = f" or fewer than {gate['min_owners']} data owners" if gate["min_owners"] > 1 else ""
        yield (
            f"Small cells: a cell with 1 to {gate['k'] - 1} {gate['unit']}{owners} over all data owners of a country together "
            f"moves to 'not allocated' in its country cluster, on secret shares (k = {gate['k']}); small data owners pass together"
        )
    else:
        yield (
            f"Small cells: a cell with 1 to {gate['k'] - 1} {gate['unit']} moves to 'not allocated' at the data owner "
            f"(k = {gate['k']})"
        )
    if region:
        yield (
            f"What the country cluster holds for that: secret shares of one row of {gate['row_bits']} bits for each of the "
            f"{gate['unit']} (at most {gate['max_rows']:,} rows per data owner and period) and of the figures of every cell"
        )
        yield (
            "Security in the country cluster: PASSIVE, an operator that does not follow the protocol is not noticed"
            if gate["security"] == "passive"
            else "Security in the country cluster: active, an operator that does not follow the protocol is noticed and the run stops"
        )


def _learns(content: Mapping[str, Any]) -> Iterator[str]:
    for one in content["learns"]:
        yield f"{one['party']}"
        yield from (f"  learns: {text}" for text in one["learns"])
        yield from (f"  does not learn: {text}" for text in one["not"])


def _crossings(flows: list[Mapping[str, Any]]) -> Iterator[str]:
    """Flows of shares one by one; the metadata that goes with them by sending country."""
    for flow in flows:
        if flow["bytes_at_most"] is not None:
            area = " (one legal area)" if flow["same_area"] and flow["from"] != flow["to"] else ""
            yield (
                f"{flow['from']} -> {flow['to']}{area}: {flow['payload_class']} to {flow['to_role']}: {flow['what']}, "
                f"{flow['values']} values, at most {flow['bytes_at_most']:,} bytes per {flow['per']}; {_decided([flow])}"
            )
    unmeasured = [flow for flow in flows if flow["bytes_at_most"] is None]
    for flow in (flow for flow in unmeasured if flow["payload_class"] == _RECORD_SHARE):
        yield (
            f"{flow['from']} -> {flow['to']}: {flow['payload_class']} to {flow['to_role']}: {flow['what']}, bytes measured when "
            f"it runs; {_decided([flow])}"
        )
    beside = [flow for flow in unmeasured if flow["payload_class"] != _RECORD_SHARE]
    for country in dict.fromkeys(flow["from"] for flow in beside):
        mine = [flow for flow in beside if flow["from"] == country]
        classes = sorted({flow["payload_class"] for flow in mine})
        to = ", ".join(sorted({flow["to"] for flow in mine}))
        yield f"{country} -> {to}: {', '.join(classes)} (no shares); {_decided(mine)}"


def _decided(flows: list[Mapping[str, Any]]) -> str:
    decisions = [decision for flow in flows for decision in flow["decisions"]]
    effects = sorted({_EFFECTS[decision["effect"]] for decision in decisions})
    rules = sorted({rule for decision in decisions for rule in decision["rules"]})
    duties = sorted({duty for decision in decisions for duty in decision["obligations"]})
    return f"{' and '.join(effects)} by {', '.join(rules)}" + (f" ({', '.join(duties)})" if duties else "")


def _packs(content: Mapping[str, Any]) -> Iterator[str]:
    for pack in content["packs"]:
        yield (
            f"{pack['id']} version {pack['version']} ({pack['origin']}): {pack['basis']}, uncertainty {pack['uncertainty']}, "
            f"reviewed by {pack['reviewed_by']} on {pack['reviewed_on'][:10]}, expires on {pack['expires_on'][:10]}"
        )
