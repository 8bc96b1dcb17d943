"""The sections of page one as facts, A to G. Each function adds one section's facts to the book."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import cast

from mpc_ops.evidence.checks import Assessment, countersigned, record_crossings, valid_approvals
from mpc_ops.evidence.facts import FactBook
from mpc_ops.evidence.reconcile import CONTROL_CLASSES, NOT_INSTRUMENTED, FlowTotal
from mpc_ops.evidence.rules import RuleLine
from mpc_ops.evidence.words import CLASS_WORDS, EFFECT_WORDS, NOT_CLAIMED, count, number
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices.model import Erased, Filed, Reopen, State
from mpc_ops.plan.layout import aggregate_node, cells, lane_count, leaf_count, measures
from mpc_ops.plan.model import RegionGateNode, ScanNode

__all__ = ["crossed", "decisions_for", "holds_until", "learns", "not_claimed", "people", "protection", "results", "signatures"]  # fmt: skip

_DATE = 10
_COUNSEL = "authority_cooperation"
_ROLES = "processor_agreements"


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


# --- A ---------------------------------------------------------------------------------------------------------------


def people(found: Assessment, book: FactBook) -> None:
    """What only people can decide; together with the failed checks it is section A of the page."""
    evidence, terms = found.evidence, found.evidence.plan.terms
    group = [name for name in evidence.clusters if evidence.federation.cluster(name).kind == "group"]
    operators = [name for cluster in group for name in evidence.clusters[cluster]]
    book.add(
        "people",
        "reach-declared",
        f"could one company, cloud, administrator or software supplier reach two of {_list(operators)}? "
        "Only seats are on file (see the reach table); ownership, cloud, keys and backups are not declared",
        state="open",
        source="federation terms",
        by="nobody yet",
        stable="not declared",
    )
    for key, asks in (
        (_COUNSEL, "counsel's view on co-operation of authorities of the computing operators' countries"),
        (_ROLES, "agreements of data owners with computing operators (GDPR Art. 26, 28) or their equivalent"),
    ):
        reference = terms.references.get(key)
        book.add(
            "people",
            f"reference-{key}",
            f"{asks}: {'on file, ' + reference if reference else 'no reference in the report terms'}",
            state="declared" if reference else "open",
            source="references in the report terms",
            by=f"author {evidence.reading.author}" if reference else "nobody yet",
            stable=reference or "missing",
        )
    _uncertain_packs(found, book)
    if evidence.outcome == "COMMITTED":
        book.add(
            "people",
            "anonymous",
            "is the published table anonymous? The rules of section D were applied; the judgement is yours",
            state="open",
            source="calculation plan",
            by="nobody yet",
            stable="for people",
        )


def _uncertain_packs(found: Assessment, book: FactBook) -> None:
    evidence = found.evidence
    packs = [evidence.federation.rule_packs[name] for name in sorted(evidence.plan.rule_packs)]
    unsure = [pack for pack in packs if pack.uncertainty == "high"]
    if unsure:
        names = _list(f"{pack.id} v{pack.version} (reviewed by: {pack.reviewed_by})" for pack in unsure)
        book.add(
            "people",
            "uncertain-packs",
            f"rule packs marked as uncertain by their authors: {names}",
            state="open",
            source="rule packs in the federation terms",
            by=_list(sorted({pack.reviewed_by for pack in unsure})),
            date=min(pack.reviewed_on for pack in unsure),
            expires=min(pack.expires_on for pack in unsure),
            stable=names,
        )


# --- B ---------------------------------------------------------------------------------------------------------------


def crossed(found: Assessment, book: FactBook) -> None:
    """One row per origin and class that crossed a border, then the totals."""
    both = found.reconciliation
    rows: dict[tuple[str, str, bool], list[FlowTotal]] = defaultdict(list)
    control: list[FlowTotal] = []
    for flow in both.crossings:
        if flow.payload_class in CONTROL_CLASSES:
            control.append(flow)
        else:
            rows[flow.origin, flow.payload_class, flow.same_area].append(flow)
    for (origin, kind, same), group in sorted(rows.items()):
        _flow_row(found, book, f"{origin} > {_list(flow.target for flow in group)}", kind, group, same=same)
    by_class: dict[str, list[FlowTotal]] = defaultdict(list)
    for flow in control:
        by_class[flow.payload_class].append(flow)
    for kind, group in sorted(by_class.items()):
        _flow_row(found, book, "all > all", kind, group, same=False)
    _totals(found, book)


def _values(found: Assessment, origin: str, kind: str) -> str:
    evidence = found.evidence
    lanes = lane_count(evidence.plan)
    if kind == PayloadClass.RELEASED_AGGREGATE:
        return number(lanes)
    regions = {evidence.federation.region_of(owner)[0] for owner in evidence.filings}
    here = [name for name in regions if origin in evidence.federation.terms.regions[name].jurisdictions]
    return number(lanes * len(here)) if here and kind == PayloadClass.AGGREGATE_SHARE else "–"


def decisions_for(found: Assessment, group: Iterable[FlowTotal]) -> list[RuleLine]:
    """Return the rule decisions about flows."""
    wanted = {(flow.origin, flow.target, flow.payload_class) for flow in group}
    return [line for line in found.rules if (line.origin, line.target, line.payload_class) in wanted]


def _flow_row(found: Assessment, book: FactBook, ends: str, kind: str, group: list[FlowTotal], *, same: bool) -> None:
    lines = decisions_for(found, group)
    effects = sorted({EFFECT_WORDS.get(line.effect, line.effect) for line in lines})
    packs = sorted({line.packs for line in lines})
    denied = [line for line in lines if not line.allowed]
    decision = f"rules of {_list(sorted({line.data_origin for line in lines}))}: {' / '.join(effects)}"
    if len(packs) == 1:
        decision = f"{packs[0]}, {_list(sorted({line.rule for line in lines}))}: {' / '.join(effects)}"
    note = "same legal area: not a third-country transfer" if same else ""
    size = sum(flow.bytes for flow in group)
    messages = sum(flow.messages for flow in group)
    book.add(
        "crossed",
        f"crossed/{ends}/{kind}",
        f"{ends}: {CLASS_WORDS.get(kind, kind)}, {number(size)} bytes in {count(messages, 'message')}; {decision}",
        outcome="failed" if denied or any(flow in record_crossings(found)[1] for flow in group) else None,
        cells={
            "ends": ends + (" (same area)" if same else ""),
            "class": CLASS_WORDS.get(kind, kind),
            "code": kind,
            "values": _values(found, group[0].origin, kind),
            "messages": number(messages),
            "bytes": number(size),
            "decision": decision + (f"; {note}" if note else ""),
        },
        source="transfer logs of both ends; rule packs in the calculation plan",
        # Who relays control data differs from run to run, and with it whose rules are asked; the outcome does not.
        stable=f"{ends}, {CLASS_WORDS.get(kind, kind)}: {' / '.join(effects) if kind in CONTROL_CLASSES else decision}",
    )


def _totals(found: Assessment, book: FactBook) -> None:
    both = found.reconciliation
    inside, beyond = record_crossings(found)
    words = "no record-level class recorded across a border on instrumented channels: 0 messages, 0 bytes"
    if both.record_messages:
        words = f"record-level classes: {count(both.record_messages, 'message')}, {count(both.record_bytes, 'byte')}"
        words += "" if beyond else ", all inside one region whose rules allow it"
    book.add(
        "crossed",
        "record-classes",
        words,
        outcome="failed" if beyond else "passed",
        source="transfer logs of both ends",
        stable="recorded" if beyond else "inside a region" if inside else "none",
    )
    names = found.evidence.federation.terms.jurisdictions
    places = sorted({place for flow in both.crossings for place in (flow.origin, flow.target)})
    book.add(
        "crossed",
        "countries",
        f"country codes: {_list(f'{place} {names[place].name}' for place in places) or 'none'}",
        state="declared",
        source="federation terms",
        by="federation authority",
        stable=_list(places),
    )
    flight = sum(item.severity == "in_flight" for item in both.differences)
    lost = sum(item.severity == "open" for item in both.differences)
    more = [f"{count(flight, 'control frame')} under way when a log was signed"] if flight else []
    more += [f"{count(lost, 'frame')} of a given-up attempt not received"] if lost else []
    book.add(
        "crossed",
        "both-ends",
        f"both ends agree on {number(both.agreed)} of {count(both.frames, 'frame')}" + "".join(f"; {t}" for t in more),
        state="measured" if both.frames else "open",
        outcome=("failed" if both.failures else "passed") if both.frames else None,
        source="reconciliation of all transfer logs",
        stable="agree" if not both.failures else "differ",
    )
    codes = sorted({f"{item.code} at {item.party}" for item in both.denials})
    book.add(
        "crossed",
        "denied",
        f"denied attempts: {len(both.denials)}" + (f" ({_list(codes)})" if codes else ""),
        source="transfer logs",
        stable=f"{len(both.denials)} denied" + (f": {_list(codes)}" if codes else ""),
    )
    book.add(
        "crossed",
        "not-observed",
        f"not observed by any log: {'; '.join(NOT_INSTRUMENTED)}",
        state="declared",
        source="list of channels without a log",
        by="this software",
        stable=_list(NOT_INSTRUMENTED),
    )


# --- C ---------------------------------------------------------------------------------------------------------------


def learns(found: Assessment, book: FactBook) -> None:
    """Who could learn what, coalitions included."""
    evidence, plan = found.evidence, found.evidence.plan
    federation = evidence.federation
    source, by = "calculation plan and protocol, approved by the data owners", f"author {evidence.reading.author}"

    def add(key: str, who: str, text: str) -> None:
        cell = {"who": who, "what": text}
        book.add("learn", key, f"{who}: {text}", state="declared", cells=cell, source=source, by=by, stable=text)

    leaves = [cell for cell in cells(plan) if cell.kind == "leaf"]
    rest = len(cells(plan)) - len(leaves)
    shape = (count(len(leaves), "cell"), count(rest, "not-allocated line"))
    figures = count(len(measures(plan)), "figure")
    table = f"{_list(shape)} and totals, {figures} each; no entity's figures"
    if evidence.outcome != "COMMITTED":
        table = "nothing: the run released no result"
    add("learn-recipient", f"Result recipient {evidence.close.recipient}", table)
    add("learn-operator", "One computing operator", "sizes, times and names; two of three secret shares show no value")
    region = plan.gate.where == "region"
    if region:
        _holds_records(found, add)
    add(
        "learn-pair",
        "Two operators of one cluster together",
        "all subtotals that were shared there"
        + (", in a country cluster also every row of bits and the figures of small cells" if region else "")
        + " (the assumption: at most one per cluster is dishonest or compromised)",
    )
    owners = len(evidence.filings)
    add(
        "learn-owners",
        "Data owners",
        f"own data only; {owners - 1} of {owners} together with the result recipient: the remaining one's totals"
        + (", cells of few units among them: small owners passed together" if region else ""),
    )
    for name in sorted(evidence.clusters):
        served = [owner for owner in evidence.filings if federation.region_of(owner)[1].cluster == name]
        if federation.cluster(name).kind == "region" and len(served) == 1:
            add(
                f"learn-single-{name}",
                f"Country cluster {name}",
                "one data owner: its stage adds no separation between owners",
            )
    _prior(found, add)


def _holds_records(found: Assessment, say: Callable[[str, str, str], None]) -> None:
    """What a Gate in the region means: shares of records lie at the country clusters, and sizes tell numbers of units."""
    plan = found.evidence.plan
    unit = _unit_label(found)
    say(
        "learn-region-holds",
        "One operator of a country cluster",
        f"holds secret shares of records: for each of the {unit} one row of {leaf_count(plan)} bits (no key, random order), and "
        "each data owner's figures of every cell; shows no value, nor which cells are small or moved",
    )
    say(
        "learn-region-sizes",
        f"Numbers of {unit}",
        f"operators of a country cluster see each data owner's number of {unit} in each period, rounded up to a size class (64, "
        "128, 192, ... rows); it follows from sizes, so whoever sees submissions, transfer logs or this evidence can tell it",
    )


def _unit_label(found: Assessment) -> str:
    scan = cast("ScanNode", found.evidence.plan.node(ScanNode))
    return str(found.evidence.federation.terms.datasets[scan.dataset].unit_label)


def _prior(found: Assessment, say: Callable[[str, str, str], None]) -> None:
    evidence, plan = found.evidence, found.evidence.plan
    if evidence.federation.terms.one_parent:
        say(
            "learn-prior",
            "Prior knowledge assumed",
            "entity totals: all owners stand under one parent. Protected are persons and customers inside an entity, "
            "not the entity",
        )
    translated = {
        measure.translate for measure in measures(plan) if measure.translate and measure.slice == "prior_year"
    }
    if len(translated) > 1:
        say(
            "learn-rates",
            "Two exchange rates",
            "the prior year is shown at two rates: two linear equations in the amounts per currency, so that with few "
            "currencies country totals can be narrowed down",
        )


# --- D ---------------------------------------------------------------------------------------------------------------


def results(found: Assessment, book: FactBook) -> None:
    """What was checked about the result and its inputs."""
    evidence, plan = found.evidence, found.evidence.plan
    filed = list(evidence.filings.values())
    if plan.gate.where == "region":
        _region_gate(found, book)
    else:
        _owner_gate(found, book, filed)
    dimensions = aggregate_node(plan).dimensions
    if dimensions and plan.rollup:
        book.add(
            "result",
            "foots",
            f"cells of {_list(dimensions)} plus not-allocated lines add up to the totals; units are counted anew at "
            f"each level and do not add up",
            state="declared",
            source="calculation plan",
            by=f"author {evidence.reading.author}",
            stable="foots",
        )
    data = [item for item in filed if item.kind_of == "data"]
    tied = sum(item.tie_out == "passed" for item in data)
    needed = plan.terms.sign_off
    words = [f"{len(filed)} of {len(filed) + len(evidence.close.late) + len(evidence.close.excluded)} submitted"]
    words += [f"{count(len(filed) - len(data), 'empty submission')}"] if len(data) < len(filed) else []
    words += [f"each signed by {count(needed, 'person', 'people')}"] if needed else ["no sign-off asked for"]
    untied = bool(data) and all(item.tie_out == "none" for item in data)
    words += [
        "no control totals in the data contract, so none tied to the general ledger"
        if untied
        else f"{tied} of {len(data)} tied to the general ledger"
    ]
    words += [f"late: {_list(evidence.close.late)}"] if evidence.close.late else []
    words += [f"left out after a dispute: {_list(evidence.close.excluded)}"] if evidence.close.excluded else []
    book.add(
        "result",
        "inputs",
        "inputs: " + "; ".join(words),
        source="signed submissions and receipts",
        by="data owners and their computing operators",
        stable="; ".join(words),
    )
    _releases(found, book, filed)


def _owner_gate(found: Assessment, book: FactBook, filed: list[Filed]) -> None:
    gate, unit = found.evidence.plan.gate, _unit_label(found)
    lowest = min((item.gate_k for item in filed), default=gate.k)
    book.add(
        "result",
        "gate",
        f"protected unit: {unit}; cells of fewer than {gate.k} {unit} were moved to a not-allocated line by each data "
        f"owner before anything was shared; which ones is known to that owner only",
        state="declared",
        outcome="passed" if lowest >= gate.k else "failed",
        source="calculation plan; every submission states the minimum it used",
        by="data owners",
        stable=f"{unit}, minimum {lowest}",
    )


def _region_gate(found: Assessment, book: FactBook) -> None:
    """The Gate on shares: part of what the operators' attempts computed, so a committed run has passed it."""
    evidence, plan = found.evidence, found.evidence.plan
    gate, unit, active = plan.gate, _unit_label(found), plan.terms.security == "active"
    owners = gate.min_owners if isinstance(gate, RegionGateNode) else 1
    least = f"{gate.k} {unit}" + (f" or {owners} data owners" if owners > 1 else "")
    book.add(
        "result",
        "gate",
        f"protected unit: {unit}; cells of fewer than {least} over all data owners of a country together were moved to a "
        f"not-allocated line inside the country cluster, before anything left it: decided on secret shares with {plan.terms.security} "
        "security, so that nobody learns which cell moved"
        + (
            ", and an operator that departs from the protocol stops the run"
            if active
            else "; PASSIVE: an operator that departs from the protocol is NOT noticed"
        ),
        state="measured" if evidence.outcome == "COMMITTED" and active else "declared",
        outcome="passed" if gate.k >= 2 else "failed",
        source="calculation plan; sessions that every operator of the country clusters committed",
        by="computing operators of the country clusters",
        stable=f"{unit}, minimum {least}, in the country cluster, {plan.terms.security}",
    )


def _releases(found: Assessment, book: FactBook, filed: list[Filed]) -> None:
    evidence = found.evidence
    edition = evidence.close.edition
    reasons = [item.reason for item in evidence.of(Reopen)]
    text = f"releases of this table for the period so far: {edition}"
    if edition > 1:
        text += f"; reason of this revised release: {'; '.join(reasons) or 'not on file'}"
        agreed = [item.owner for item in filed if item.accepts_difference]
        text += f"; owners that accept a difference: {_list(agreed) or 'none'}"
    book.add("result", "releases", text, source="submission close", by="result recipient", stable=f"release {edition}")
    check = next(check for check in found.checks if check.name == "result")
    if evidence.outcome == "COMMITTED":
        book.add(
            "result",
            "commitments",
            check.done or "result commitments differ",
            outcome="failed" if check.status == "failed" else "passed",
            source="signed result commitments",
            by="computing operators of the group cluster",
            stable="agree" if check.status == "passed" else "differ",
        )


# --- E, F, G ---------------------------------------------------------------------------------------------------------


def protection(found: Assessment, book: FactBook) -> None:
    """Protocol level, attempts, deletion, signatures."""
    evidence = found.evidence
    clusters = evidence.clusters
    book.add(
        "protection",
        "security",
        f"{count(len(clusters), 'cluster')} of 3 computing operators, at most 1 per cluster dishonest or compromised: "
        + _security_words(found),
        state="declared",
        source="calculation plan and protocol",
        by="this software; no outside cryptographer has reviewed it",
        stable=_list(f"{name}: {_list(members)}" for name, members in clusters.items()),
    )
    versions = sorted({item.software for item in evidence.statements.values()})
    if versions:
        book.add(
            "protection",
            "software",
            f"software stated by the operators: {_list(versions)}",
            state="declared",
            source="run attestations",
            by="computing operators",
            stable=_list(versions),
        )
    states = evidence.of(State)
    again = sorted({f"{s.cluster} {s.attempt - 1}" for s in states if s.state == "COMMITTED" and s.attempt > 1})
    ended = _endings([state for state in states if state.state != "COMMITTED"])
    book.add(
        "protection",
        "aborts",
        "ended by: " + "; ".join(ended)
        if ended
        else f"aborts: 0; attempts given up and repeated: {_list(again) or 'none'}",
        source="signed states",
        by="computing operators",
        stable="; ".join(ended) or "no abort",
    )
    erased = {item.operator for item in evidence.of(Erased)}
    total = len(evidence.operators)
    done = len(erased & set(evidence.operators))
    book.add(
        "protection",
        "erased",
        f"secret shares deleted and period keys destroyed, as attested by {done} of {total} operators",
        state="measured" if done == total else "open",
        source="signed deletion notices",
        by="computing operators",
        stable=f"{done} of {total}",
    )
    book.add(
        "protection",
        "transport",
        "TLS 1.3 between named operators (classical); payload confidentiality and signatures post-quantum "
        "(ML-KEM-768 with X25519, ML-DSA-65)",
        state="declared",
        source="protocol",
        by="this software",
        stable="as before",
    )


def _security_words(found: Assessment) -> str:
    plan = found.evidence.plan
    if plan.gate.where == "owner":
        return "caught with abort (active security; sums only, so both holders of every share are compared)"
    if plan.terms.security == "active":
        return (
            "caught with abort (active security; in country clusters every multiplication is proven before anything leaves, and "
            "both holders of every share are compared)"
        )
    return (
        "NOT caught in country clusters (PASSIVE security, an explicit term of this report: the operators there are taken to follow "
        "the protocol; one that does not could learn about records and alter figures); caught with abort in the group cluster, whose sums "
        "are compared by both holders of every share"
    )


def _endings(states: list[State]) -> list[str]:
    """Return `REFUSED APPROVAL_MISSING at de-1, de-2` for each way in which operators ended the run."""
    by_word: dict[str, list[str]] = defaultdict(list)
    for state in sorted(states, key=lambda state: state.operator):
        pair = f" (between {_list(state.pair)})" if state.pair else ""
        by_word[f"{state.state} {state.code or ''}".strip() + pair].append(state.operator)
    return [f"{word} at {_list(names)}" for word, names in sorted(by_word.items())]


def signatures(found: Assessment, book: FactBook) -> None:
    """Who signed."""
    evidence = found.evidence
    signed = countersigned(evidence)
    owners = list(evidence.filings)
    cells = {
        "operators": f"{len(evidence.statements)}/{len(evidence.operators)}",
        "owners": f"{sum(owner in signed for owner in owners)}/{len(owners)}",
        "recipient": f"{int(evidence.close.recipient in signed)}/1",
    }
    book.add(
        "signatures",
        "signatures",
        f"run attested by computing operators {cells['operators']}; closing countersigned by data owners "
        f"{cells['owners']}, result recipient {cells['recipient']}",
        cells=cells,
        source="run attestations and closing countersignatures",
        by="the parties themselves",
        stable=f"{cells['operators']}, {cells['owners']}, {cells['recipient']}",
    )


def holds_until(found: Assessment, book: FactBook) -> None:
    """The earliest end of what the run rests on."""
    evidence = found.evidence
    ends = [(approval.valid_to, f"approval of {owner}") for owner, approval in valid_approvals(evidence).items()]
    ends += [(evidence.reading.valid_to, "release of the calculation")]
    ends += [
        (pack.expires_on, f"rule pack {name}")
        for name, pack in evidence.federation.rule_packs.items()
        if name in evidence.plan.rule_packs
    ]
    first, what = min(ends)
    book.add(
        "until",
        "until",
        f"{first[:_DATE]} ({what}), or any change of owner, computing operator, software, calculation or rule pack",
        source="validity of approvals, release and rule packs",
        by="approvers, author, reviewers of the rule packs",
        expires=first,
        stable=f"{first[:_DATE]}, {what}",
    )


def not_claimed(_: Assessment, book: FactBook) -> None:
    """What nobody may read into the page."""
    for place, text in enumerate(NOT_CLAIMED):
        book.add(
            "not_claimed", f"not-claimed-{place}", text, state="declared", source="this software", by="this software"
        )
