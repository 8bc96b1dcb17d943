"""A complete federation for tests: all parties' homes and private keys, terms, rule packs, membership and directory.

`make_federation(tmp_path)` is one jurisdiction with two owners and a group cluster; `make_federation(tmp_path, DEMO)` has the
demo's shape. `make_plan`, `make_release`, `make_approval` and `make_calendar` give what a run needs, signed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import prod
from pathlib import Path

import msgspec

from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.envelope.schema import encode
from mpc_ops.envelope.sealing import SealingKey
from mpc_ops.federation.assemble import FederationSpec, add_directory, assemble, read_toml
from mpc_ops.federation.cards import create_party, directory_entry
from mpc_ops.federation.contract import DatasetContract
from mpc_ops.federation.loaded import Federation
from mpc_ops.federation.model import Cluster, Jurisdiction, PayloadClass, Region
from mpc_ops.federation.rulepack import RulePack
from mpc_ops.notices.model import Approval, CalendarRow, Rate, Reference, Release
from mpc_ops.notices.signed import SignedNotice, sign_notice, utc_text
from mpc_ops.plan.expr import Binary, Column
from mpc_ops.plan.layout import shared_lane_count
from mpc_ops.plan.model import (
    Aggregate,
    AggregateNode,
    CrossNode,
    DeliverNode,
    GateNode,
    GroupSumNode,
    Measure,
    MeasureNode,
    Plan,
    RegionGateNode,
    RegionSumNode,
    ScanNode,
    ShareNode,
    Slice,
    Terms,
)  # fmt: skip

DEMO_FOLDER = Path(__file__).parents[2] / "infra" / "federations" / "demo"
SMALL = {"DE": ["de-nord", "de-sued"]}
DEMO = {
    "DE": ["de-nord", "de-sued", "de-west"],
    "CN": ["cn-east", "cn-south"],
    "IN": ["in-north", "in-south"],
    "SA": ["sa-gulf"],
}
CURRENCIES = {"DE": "EUR", "CN": "CNY", "IN": "INR", "SA": "SAR"}
GROUP_SEATS = {"nl-1": "NL", "ch-1": "CH", "sg-1": "SG"}
RATES = {"EUR": "1", "CNY": "0.12840000", "INR": "0.01090000", "SAR": "0.24570000"}
AUTHOR, RECIPIENT = "group-controlling", "group-reporting"


@dataclass(frozen=True)
class MadeFederation:
    """A federation with every private key.

    Attributes:
        folder: the public federation folder (`Federation.load(folder)`).
        federation: the same, loaded, directory included.
        homes: home folder of every operator, owner, recipient, author and `authority`.
        keys: identity key by party; `people` identity keys by person (`<owner>-approver`, `<owner>-signer-1`, `-2`).
        sealing: sealing keys of operators and recipients.
    """

    folder: Path
    federation: Federation
    homes: Mapping[str, Path]
    keys: Mapping[str, IdentityKey]
    people: Mapping[str, IdentityKey]
    sealing: Mapping[str, SealingKey]

    @property
    def owners(self) -> list[str]:
        return list(self.federation.owners)

    def approver(self, owner: str) -> IdentityKey:
        return self.people[f"{owner}-approver"]

    def signers(self, owner: str) -> dict[str, IdentityKey]:
        return {name: self.people[name] for name in self.federation.owner(owner).signers}


def make_federation(
    root: Path,
    regions: Mapping[str, Sequence[str]] = SMALL,
    *,
    endpoints: Mapping[str, Mapping[str, str]] | None = None,
    contract: DatasetContract | None = None,
    packs: Sequence[RulePack] | None = None,
    one_parent: bool = True,
) -> MadeFederation:
    """Make a federation below `root`: `homes/<party>` and `federation/`.

    Args:
        root: an empty folder.
        regions: jurisdiction code to its owners (codes out of DE, CN, IN, SA).
        endpoints: directory endpoints by party, e.g. {"de-1": {"link": "127.0.0.1:4001", "sftp": "..."}}.
        contract: dataset contract; the demo's `sales_line` by default.
        packs: rule packs, one per jurisdiction as `<code>-demo`; the demo's by default.
        one_parent: term of the federation.
    """
    seats = {f"{code.lower()}-{n}": code for code in regions for n in (1, 2, 3)} | GROUP_SEATS
    codes = sorted({*regions, *GROUP_SEATS.values()})
    homes, cards, people = {}, [], {}

    def party(kind, name, **more):
        homes[name] = root / "homes" / name
        cards.append(create_party(kind, name, homes[name], **more))

    for name, code in seats.items():
        party("operator", name, organisation=f"Operator {name}", jurisdiction=code)
    party("recipient", RECIPIENT, organisation="Group Reporting", jurisdiction="NL")
    party("author", AUTHOR)
    party("authority", "authority")
    for code, owners in regions.items():
        for name in owners:
            people |= {f"{name}-{role}": IdentityKey.generate() for role in ("approver", "signer-1", "signer-2")}
            text = {person: key.public.text for person, key in people.items() if person.startswith(f"{name}-")}
            party(
                "owner", name, organisation=f"Entity {name}", jurisdiction=code, region=code.lower(),
                currency=CURRENCIES[code],
                approvers={person: key for person, key in text.items() if person.endswith("approver")},
                signers={person: key for person, key in text.items() if "-signer-" in person},
            )  # fmt: skip
    if contract is None:  # without control totals, since most tests keep no ledger
        demo = read_toml(DEMO_FOLDER / "datasets" / "sales_line.toml", DatasetContract)
        contract = msgspec.structs.replace(demo, control_totals=[])
    packs = packs or [read_toml(DEMO_FOLDER / "rules" / f"{code.lower()}-demo.toml", RulePack) for code in codes]
    areas = {"DE": "EEA", "NL": "EEA"}
    spec = FederationSpec(
        name="test-federation",
        one_parent=one_parent,
        authors=[AUTHOR],
        recipients=[RECIPIENT],
        owners=[name for owners in regions.values() for name in owners],
        datasets=["-"],
        rule_packs=["-"],
        jurisdictions={
            code: Jurisdiction(name=code, area=areas.get(code), rule_packs=[p.id for p in packs if p.origin == code])
            for code in codes
        },
        clusters={
            **{c.lower(): Cluster(kind="region", operators=[f"{c.lower()}-{n}" for n in (1, 2, 3)]) for c in regions},
            "group": Cluster(kind="group", operators=list(GROUP_SEATS)),
        },
        regions={code.lower(): Region(jurisdictions=[code], cluster=code.lower()) for code in regions},
    )
    folder = root / "federation"
    keys = {name: IdentityKey.load(home / "keys" / "identity.pem") for name, home in homes.items()}
    federation = assemble(spec, [contract], packs, cards, out=folder, authority_key=keys["authority"])
    entries = [
        directory_entry(federation, homes[card.name], card.name, 1, **(endpoints or {}).get(card.name, {}))
        for card in cards
        if card.kind in {"operator", "owner", "recipient"}
    ]
    federation = add_directory(folder, entries)
    sealing = {
        name: SealingKey.load(home / "keys" / "sealing.key")
        for name, home in homes.items()
        if (home / "keys" / "sealing.key").exists()
    }
    return MadeFederation(folder, federation, homes, keys, people, sealing)


def make_plan(
    federation: Federation,
    *,
    k: int = 10,
    min_owners: int = 1,
    max_owners: int = 20,
    sign_off: int = 2,
    dimensions: Sequence[str] = ("segment", "product_line"),
    report: str = "group_performance",
    gate_at: str = "owner",
    max_units: int = 1000,
    gate_min_owners: int = 1,
    security: str = "active",
) -> Plan:
    """Return the demo's group report (month, prior year, prior year at constant currency), built by hand."""
    contract = federation.terms.datasets["sales_line"]
    amount = 10**16  # 10,000,000.00 in cents times 10,000,000 rows
    both = [Slice(name="period", months=0), Slice(name="prior_year", months=-12)]
    aggregates = [
        Aggregate(name="revenue", fn="sum", expr=Column(name="revenue_lc"), scale=2, bound=str(amount)),
        Aggregate(
            name="margin", fn="sum", scale=2, bound=str(amount),
            expr=Binary(op="-", left=Column(name="revenue_lc"), right=Column(name="cost_lc")),
        ),
        Aggregate(name="lines", fn="count", bound=str(10**7)),
        Aggregate(name="customers", fn="count_distinct", bound=str(10**7)),
    ]  # fmt: skip
    klass = PayloadClass.AGGREGATE_SHARE if k >= 2 else PayloadClass.RECORD_SHARE
    plan = Plan(
        report=report,
        title="Group performance",
        version=1,
        federation=federation.digest,
        rule_packs=dict(federation.terms.rule_packs),
        terms=Terms(
            max_owners=max_owners, min_owners=min_owners, sign_off=sign_off, on_late="hold", ttl_days=7, give_up_hours=2,
            currency="EUR", max_rate="2", basis="Monthly group reporting", security=security,
        ),
        rollup=bool(dimensions),
        domains={name: contract.column(name).domain for name in dimensions},
        nodes=[
            ScanNode(
                id="scan", dataset="sales_line", contract=sha256_hex(encode(contract)),
                columns=["booked_on", "customer_uid", *dimensions, "revenue_lc", "cost_lc"],
            ),
            AggregateNode(
                id="aggregate", input="scan", slices=both, dimensions=list(dimensions), unit="customer_uid",
                aggregates=aggregates,
            ),
            GateNode(id="gate", input="aggregate", unit="customer_uid", k=k, payload_class=klass),
            MeasureNode(id="measure", input="gate", measures=_measures(amount, rollup=bool(dimensions))),
            ShareNode(id="share", input="measure", lanes=1),
            RegionSumNode(id="region_sum", input="share", regions=list(federation.terms.regions)),
            CrossNode(id="cross", input="region_sum", cluster="group", payload_class=klass),
            GroupSumNode(id="group_sum", input="cross", cluster="group"),
            DeliverNode(
                id="deliver", input="group_sum", recipient=RECIPIENT,
                payload_class=PayloadClass.RELEASED_AGGREGATE if k >= 2 else PayloadClass.RECORD_SHARE,
            ),
        ],
    )  # fmt: skip
    plan = plan if gate_at == "owner" else _gate_in_region(plan, amount, max_units, gate_min_owners)
    nodes = [
        ShareNode(id="share", input="measure", lanes=shared_lane_count(plan)) if n.id == "share" else n
        for n in plan.nodes
    ]
    return _replace(plan, nodes=nodes)


def _gate_in_region(plan: Plan, amount: int, max_units: int, min_owners: int) -> Plan:
    nodes = {node.id: node for node in plan.nodes}
    gate = nodes.pop("gate")
    parts = prod(len(values) for values in plan.domains.values())
    nodes["measure"] = MeasureNode(
        id="measure", input="aggregate", measures=_measures(amount, rollup=plan.rollup, parts=parts)
    )
    nodes["cross"] = _replace(nodes["cross"], input="gate")
    moved = RegionGateNode(
        id="gate", input="region_sum", unit=gate.unit, k=gate.k, payload_class=gate.payload_class, max_units=max_units,
        min_owners=min_owners,
    )  # fmt: skip
    place = list(nodes).index("cross")
    return _replace(plan, nodes=[*list(nodes.values())[:place], moved, *list(nodes.values())[place:]])


def _measures(amount: int, *, rollup: bool, parts: int = 1) -> list[Measure]:
    def one(name, source, slice_, *, rate=None):
        money = source in {"revenue", "margin"}
        return Measure(
            name=name, label=name.replace("_", " "), kind="amount" if money else "count", source=source, slice=slice_,
            translate=rate, scale=2 if money else 0, totals="none" if not rollup else "each_level" if source == "customers" else "foots",
            bound=str(amount * 2 + parts // 2 if money else 10**7),
        )  # fmt: skip

    out = []
    for suffix, slice_ in (("", "period"), ("_py", "prior_year")):
        out += [one(f"{name}{suffix}", name, slice_, rate=slice_) for name in ("revenue", "margin")]
        out += [one(f"{name}{suffix}", name, slice_) for name in ("lines", "customers")]
    return out + [one(f"{name}_py_cc", name, "prior_year", rate="period") for name in ("revenue", "margin")]


def _replace(model, **changes):
    return type(model)(**({name: getattr(model, name) for name in model.__struct_fields__} | changes))


def make_calendar(
    periods: Sequence[str] = ("2026-01", "2026-02", "2026-03"), *, now: datetime | None = None, open_hours: int = 1
) -> list[CalendarRow]:
    """Return months of the past whose submission is open from a minute ago for `open_hours`."""
    moment = now or datetime.now(tz=UTC)
    opens, due = utc_text(moment - timedelta(minutes=1)), utc_text(moment + timedelta(hours=open_hours))
    rows = []
    for key in periods:
        year, month = int(key[:4]), int(key[5:])
        end = f"{year + month // 12}-{month % 12 + 1:02d}-01"
        rows.append(
            CalendarRow(key=key, start_date=f"{key}-01", end_date=end, opens_at=opens, cut_at=opens, due_at=due)
        )
    return rows


def make_release(
    made: MadeFederation,
    plan: Plan,
    *,
    calendar: Sequence[CalendarRow] | None = None,
    statement: str | None = None,
    now: datetime | None = None,
    sql: str = "SELECT 1",
) -> SignedNotice:
    """Return the signed release of a plan, valid from an hour ago for a year."""
    moment = now or datetime.now(tz=UTC)
    release = Release(
        federation=made.federation.digest,
        author=AUTHOR,
        created_at=utc_text(moment),
        valid_from=utc_text(moment - timedelta(hours=1)),
        valid_to=utc_text(moment + timedelta(days=365)),
        plan=encode(plan).decode(),
        sql=sql,
        report_terms="",
        calendar=list(calendar or make_calendar(now=now)),
        reading_text="",
        statement=statement or sha256_hex(b"statement"),
    )
    return sign_notice(release, made.keys[AUTHOR])


def make_approval(
    made: MadeFederation,
    plan: Plan,
    owner: str,
    *,
    statement: str | None = None,
    now: datetime | None = None,
    days: int = 365,
) -> SignedNotice:
    """Return an owner's approval of a plan, signed by its approver, valid from an hour ago."""
    moment = now or datetime.now(tz=UTC)
    approval = Approval(
        plan=plan.digest,
        statement=statement or sha256_hex(b"statement"),
        owner=owner,
        recipients=[RECIPIENT],
        min_owners=plan.terms.min_owners,
        valid_from=utc_text(moment - timedelta(hours=1)),
        valid_to=utc_text(moment + timedelta(days=days)),
        created_at=utc_text(moment),
    )
    return sign_notice(approval, made.approver(owner))


def make_reference(
    made: MadeFederation, period: str = "2026-01", *, rates: Mapping[str, str] | None = None
) -> SignedNotice:
    """Return signed rates of `period` and of the same month a year before, for every currency of the federation."""
    prior = f"{int(period[:4]) - 1}{period[4:]}"
    reference = Reference(
        federation=made.federation.digest,
        author=AUTHOR,
        created_at=utc_text(datetime.now(tz=UTC)),
        period=period,
        version=1,
        currency="EUR",
        rates=[
            Rate(period=key, currency=currency, avg_rate=rate)
            for key in (period, prior)
            for currency, rate in (rates or RATES).items()
        ],
        source="test",
    )
    return sign_notice(reference, made.keys[AUTHOR])
