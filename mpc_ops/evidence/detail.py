"""The facts behind page one: every flow with its rules' text, metadata by receiver, reach, and the checklist."""

from __future__ import annotations

from collections import defaultdict

from mpc_ops.evidence.checks import Assessment
from mpc_ops.evidence.facts import FactBook
from mpc_ops.evidence.reconcile import CONTROL_CLASSES
from mpc_ops.evidence.rules import RuleLine
from mpc_ops.evidence.sections import decisions_for
from mpc_ops.evidence.words import CLASS_WORDS, EFFECT_WORDS, number

_list = ", ".join

__all__ = ["checklist", "flows", "metadata", "reach"]


def flows(found: Assessment, book: FactBook) -> None:
    """Every flow across a border with the text of the rules that decided it, data before control classes."""
    crossings = found.reconciliation.crossings
    for flow in sorted(crossings, key=lambda flow: flow.payload_class in CONTROL_CLASSES):
        lines = decisions_for(found, [flow])
        denied = [line for line in lines if not line.allowed]
        kind = CLASS_WORDS.get(flow.payload_class, flow.payload_class)
        book.add(
            "flows",
            f"flow/{flow.origin}/{flow.target}/{flow.payload_class}",
            f"{flow.origin} > {flow.target}: {kind}, {number(flow.bytes)} bytes",
            outcome="failed" if denied else None,
            cells={
                "ends": f"{flow.origin} > {flow.target}",
                "class": kind,
                "code": flow.payload_class,
                "messages": number(flow.messages),
                "bytes": number(flow.bytes),
                "area": "same legal area" if flow.same_area else "outside the legal area",
                "rules": _rule_texts(lines) or "no rule pack speaks about it",
            },
            source="transfer logs of both ends; rule packs in the calculation plan",
            # Which operator relays control data to which differs from run to run and is no change of substance.
            stable=""
            if flow.payload_class in CONTROL_CLASSES
            else f"{flow.origin} > {flow.target}, {kind}: {_list(sorted({line.effect for line in lines}))}",
        )


def _rule_texts(lines: list[RuleLine]) -> str:
    """One paragraph per text: which rules of which packs say it, and what they decide."""
    texts: dict[tuple[str, str, tuple[str, ...]], list[str]] = defaultdict(list)
    for line in lines:
        texts[line.effect, line.text, line.obligations].append(f"{line.packs} rule {line.rule}")
    return "\n".join(
        f"{_list(dict.fromkeys(who))}: {EFFECT_WORDS.get(effect, effect)}."
        + (f" {text.rstrip('.')}." if text else "")
        + (f" Obligations: {_list(obligations).replace('_', ' ')}." if obligations else "")
        for (effect, text, obligations), who in texts.items()
    )


_SEEN = {
    "owner": "keys, receipts, notices of its report, evidence",
    "operator": "names of parties and report, period, plan text, sizes and times of frames and parts",
    "recipient": "who submitted and when, empty and late submissions, states, evidence, the result",
}


def metadata(found: Assessment, book: FactBook) -> None:
    """What each kind of receiver saw beside secret shares, by country."""
    federation = found.evidence.federation
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for (_, receiver, kind), (messages, size) in found.reconciliation.by_party.items():
        role = "operator" if receiver in federation.terms.operators else "recipient"
        role = "owner" if receiver in federation.owners else role
        if kind in CONTROL_CLASSES:
            total = sums[role, federation.jurisdiction_of(receiver)]
            total[0] += messages
            total[1] += size
    for (role, place), (messages, size) in sorted(sums.items()):
        words = {"operator": "computing operators", "recipient": "result recipient", "owner": "data owners"}[role]
        book.add(
            "metadata",
            f"metadata/{role}/{place}",
            f"{words} in {place}: {_SEEN[role]}",
            cells={
                "who": f"{words} in {place}",
                "what": _SEEN[role],
                "messages": number(messages),
                "bytes": number(size),
            },
            source="transfer logs; closed list of notices",
            stable=f"{words} in {place}",
        )


def reach(found: Assessment, book: FactBook) -> None:
    """Which jurisdiction reaches how many operators of each cluster, by seat alone."""
    evidence = found.evidence
    for name, operators in evidence.clusters.items():
        kind = evidence.federation.cluster(name).kind
        seats: dict[str, list[str]] = defaultdict(list)
        for operator in operators:
            seats[evidence.federation.jurisdiction_of(operator)].append(operator)
        for place, reached in sorted(seats.items()):
            group = kind == "group"
            words = (
                f"limit 1: {'passed' if len(reached) <= 1 else 'failed'}"
                if group
                else "country cluster: no transfer takes place; an authority of this country that can compel two of them "
                "reads the shares kept there"
            )
            book.add(
                "reach",
                f"reach/{name}/{place}",
                f"{place} reaches {len(reached)} of 3 operators of cluster {name} by their seat: {', '.join(reached)}; {words}",
                state="declared",
                outcome=("passed" if len(reached) <= 1 else "failed") if group else None,
                cells={
                    "place": place,
                    "cluster": f"{name} ({'group' if group else 'country'})",
                    "reached": f"{len(reached)} of 3: {', '.join(reached)}",
                    "judgement": words,
                },
                source="operators' seats in the federation terms (declared, not observed)",
                by="federation authority",
                stable=f"{place} reaches {', '.join(reached)}",
            )


def checklist(found: Assessment, book: FactBook) -> None:
    """The numbered checks as facts."""
    for check in found.checks:
        text = "; ".join(check.problems) if check.problems else check.done
        shown = text if len(text) < 1500 else text[:1500] + " …"
        book.add(
            "checks",
            f"check/{check.name}",
            f"{check.title}: {shown}",
            state="open" if check.status == "open" else "measured",
            outcome={"passed": "passed", "failed": "failed", "open": None}[check.status],
            cells={"title": check.title, "what": shown, "done": check.done},
            source="comity evidence verify",
            stable=check.status,
        )
