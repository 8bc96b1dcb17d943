"""An owner's site for tests: books, homes, imported release and approval, and the region's operators as its outboxes see them.

`make_owner_site` gives a site of one or more owners over `tests.support.federation`. `Region` plays the operators' side of
the drop-boxes with their real keys: it publishes notices, opens parts and answers filings. `FolderSftp` is an SFTP session
on a folder, with the inbox's rules (create only, rename without replacing).
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.demo.data import ENTITIES
from local_stores.config import Site, create_owner_home, create_site
from local_stores.delivery.sealing import box_info
from mpc_ops.envelope.keys import IdentityKey
from mpc_ops.envelope.sealing import SealingKey
from mpc_ops.errors import PeerUnavailable
from mpc_ops.notices.model import Filed, Manifest, PeriodKeyNotice, Receipt, Rejected, State
from mpc_ops.notices.signed import SignedNotice, parse_notice, run_id_of, sign_notice, utc_text
from mpc_ops.plan.layout import shared_lane_count, unit_limits
from mpc_ops.plan.model import Plan
from mpc_ops.sharing import FilingContext, PartPayload, check_part, expand_part, read_part, reconstruct
from tests.support.demo_data import small_stores
from tests.support.federation import (
    RECIPIENT,
    MadeFederation,
    make_approval,
    make_calendar,
    make_reference,
    make_release,
)

__all__ = ["FolderSftp", "OwnerSite", "Region", "make_owner_site", "write_books"]


class FolderSftp:
    """What `local_stores.delivery.sftp` uses of a paramiko.SFTPClient, on a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sent: list[str] = []

    def get_channel(self):
        return None

    def stat(self, path: str):
        return SimpleNamespace(st_size=(self.root / path).stat().st_size)

    def open(self, path: str, mode: str):
        target = self.root / path
        if mode == "wx":
            target.parent.mkdir(parents=True, exist_ok=True)
        return _File(target, "xb" if mode == "wx" else "rb")

    def rename(self, old: str, new: str) -> None:
        if (self.root / new).exists():
            raise OSError(errno.EEXIST, "exists")
        (self.root / old).rename(self.root / new)
        self.sent.append(Path(new).name)

    def listdir_iter(self, path: str):
        folder = self.root / path
        if not folder.is_dir():
            raise FileNotFoundError(path)
        for entry in sorted(folder.iterdir()):
            status = entry.stat()
            yield SimpleNamespace(filename=entry.name, st_size=status.st_size, st_mode=stat.S_IFMT(status.st_mode))


class _File:
    def __init__(self, path: Path, mode: str) -> None:
        self._file = path.open(mode)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def set_pipelined(self, pipelined: bool) -> None:
        pass

    def prefetch(self, size: int) -> None:
        pass

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def write(self, data: bytes) -> None:
        self._file.write(data)


@dataclass
class Region:
    """The three operators of a region as an owner meets them.

    Attributes:
        down: operators that do not answer; sent: (operator, name) of every file that was really sent.
    """

    made: MadeFederation
    owner: str
    root: Path
    period_keys: dict[str, SealingKey] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    opened: int = 0
    sessions: dict[str, FolderSftp] = field(default_factory=dict)

    @property
    def operators(self) -> list[str]:
        federation = self.made.federation
        return list(federation.cluster(federation.region_of(self.owner)[1].cluster).operators)

    def inbox(self, operator: str) -> Path:
        return self.root / operator / "inbox"

    def outbox(self, operator: str) -> Path:
        return self.root / operator / "outbox"

    @contextmanager
    def open(self, operator: str) -> Iterator[FolderSftp]:
        if operator in self.down:
            raise PeerUnavailable("SFTP_UNAVAILABLE", "no connection to the SFTP server", ids={"party": operator})
        self.opened += 1
        yield self.sessions.setdefault(operator, FolderSftp(self.root / operator))

    def publish(self, signed: SignedNotice, *operators: str, data: bytes | None = None) -> SignedNotice:
        """Put a notice into the owner's outbox at some operators (all by default)."""
        for operator in operators or self.operators:
            path = self.outbox(operator) / signed.kind / f"{signed.digest}.dsse"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data if data is not None else signed.envelope.to_bytes())
        return signed

    def sign(self, notice, party: str) -> SignedNotice:
        return sign_notice(notice, self.made.keys[party])

    def open_period(self, plan: Plan, period: str, *, edition: int = 1, operators: Sequence[str] | None = None) -> None:
        """Publish period keys and the period's rates."""
        for operator in operators or self.operators:
            key = self.period_keys.setdefault(f"{operator}/{edition}", SealingKey.generate())
            notice = PeriodKeyNotice(
                plan=plan.digest,
                period=period,
                edition=edition,
                operator=operator,
                key=key.public.text,
                created_at=now(),
            )
            self.publish(self.sign(notice, operator))
        self.publish(make_reference(self.made, period))

    def filed(self, operator: str) -> list[SignedNotice]:
        """Return the filings that lie in an operator's inbox, by take."""
        found = [parse_notice(path.read_bytes()) for path in self.inbox(operator).glob("notice.*")]
        return sorted(
            (one for one in found if isinstance(one.notice, Filed)),
            key=lambda one: (one.notice.edition, one.notice.take),
        )

    def receive(self, plan: Plan) -> np.ndarray:
        """Open, check and add up the values of the latest filing, as all three operators together could."""
        parts = self.payloads(plan)
        lanes = parts[0].lanes
        return reconstruct([part.first for part in parts], parts[0].words)[:lanes].view(np.int64)

    def receive_tables(self, plan: Plan) -> list[np.ndarray]:
        """Open and put together the units' rows of each slice of the latest filing: shape (padded rows, bits)."""
        parts = [expand_part(part) for part in self.payloads(plan)]
        out = []
        for number in range(len(parts[0].tables)):
            first, second, third = (part.tables[number][0] for part in parts)
            planes = first ^ second ^ third
            out.append(np.unpackbits(planes.view(np.uint8), axis=1, bitorder="little").T.astype(bool))
        return out

    def payloads(self, plan: Plan) -> list[PartPayload]:
        """Open and check the three parts of the latest filing."""
        parts, lanes, limits = [], shared_lane_count(plan), unit_limits(plan)
        for position, operator in enumerate(self.operators):
            filed = self.filed(operator)[-1].notice
            context = FilingContext(
                plan_digest=filed.plan, period=filed.period, owner=filed.owner, edition=filed.edition, take=filed.take
            )
            (part,) = [part for part in filed.parts if part.operator == operator]
            box = (self.inbox(operator) / f"part.{part.sha256}").read_bytes()
            data = self.period_keys[f"{operator}/{filed.edition}"].open(box, box_info(context, operator))
            payload = read_part(data, context, position, lanes, limits)
            check_part(payload, filed.commitments)
            parts.append(payload)
        assert [part.second.body() for part in parts] == [parts[(i + 1) % 3].first.body() for i in range(3)]
        return parts

    def receipt(self, filing: str, *operators: str) -> None:
        for operator in operators or self.operators:
            self.publish(self.sign(Receipt(filing=filing, operator=operator, received_at=now()), operator))

    def reject(
        self, filing: str, operator: str, code: str, *, reason: str = "refused", pair: Sequence[str] = ()
    ) -> None:
        notice = Rejected(filing=filing, operator=operator, code=code, reason=reason, pair=list(pair), created_at=now())
        self.publish(self.sign(notice, operator))

    def close(self, plan: Plan, period: str, filings: Sequence[str], *, edition: int = 1) -> str:
        """Publish a submission close and return the run id."""
        federation = self.made.federation
        manifest = Manifest(
            plan=plan.digest, period=period, edition=edition, recipient=RECIPIENT, membership=federation.membership_digest,
            directory=federation.directory_digest, reference=None, filings=sorted(filings), created_at=now(),
            give_up_at="2099-01-01T00:00:00Z",
        )  # fmt: skip
        return run_id_of(self.publish(self.sign(manifest, RECIPIENT)))

    def fail(self, run: str, operator: str, code: str, *, pair: Sequence[str] = ()) -> None:
        cluster = self.made.federation.region_of(self.owner)[1].cluster
        state = State(
            run=run, cluster=cluster, operator=operator, attempt=1, state="FAILED", code=code, pair=list(pair),
            created_at=now(),
        )  # fmt: skip
        self.publish(self.sign(state, operator))


@dataclass
class OwnerSite:
    """One owner with everything that it needs to file.

    Attributes:
        books: folder of its store; plan, release: what is imported.
    """

    site: Site
    owner: str
    plan: Plan
    release: SignedNotice
    region: Region
    books: Path
    made: MadeFederation

    @property
    def home(self) -> Path:
        return self.site.owner(self.owner).folder

    @property
    def call(self) -> tuple[Site, str, str]:
        return self.site, self.owner, self.plan.report

    def approve(self, **changes) -> SignedNotice:
        """Put an approval where the owner's approvers put it."""
        return self.keep(make_approval(self.made, self.plan, self.owner, **changes))

    def keep(self, signed: SignedNotice) -> SignedNotice:
        folder = self.home / "approvals"
        folder.mkdir(exist_ok=True)
        (folder / f"{signed.digest}.dsse").write_bytes(signed.envelope.to_bytes())
        return signed

    def signers(self) -> Mapping[str, IdentityKey]:
        return self.made.signers(self.owner)


def now() -> str:
    return utc_text(datetime.now(tz=UTC))


def write_books(folder: Path, rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> None:
    """Replace a Parquet store's rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.parquet"):
        path.unlink()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), folder / "all.parquet")


def make_owner_site(
    root: Path, made: MadeFederation, plan: Plan, *, owner: str = "de-nord", calendar=None, open_period: bool = True
) -> OwnerSite:
    """Make a site with one owner: the demo's small books, release imported, approval given, period 2026-03 open."""
    (store,) = small_stores(root / "books", entities=[one for one in ENTITIES if one.name == owner]).stores
    home = root / "owners" / owner
    create_owner_home(
        home, owner, stores=[{"dataset": "sales_line", "kind": store.kind, "location": str(store.path)}], site="../../site.toml"
    )  # fmt: skip
    keys = made.homes[owner] / "keys"
    (home / "keys").symlink_to(keys)
    site = create_site(root, "de", federation=str(made.folder), owners=[f"owners/{owner}"])
    release = make_release(made, plan, calendar=calendar or make_calendar(("2026-01", "2026-02", "2026-03")))
    site.releases_dir.mkdir(exist_ok=True)
    (site.releases_dir / f"{release.digest}.dsse").write_bytes(release.envelope.to_bytes())
    region = Region(made, owner, root / "operators")
    made_site = OwnerSite(site, owner, plan, release, region, Path(store.path), made)
    made_site.approve()
    if open_period:
        region.open_period(plan, "2026-03")
    return made_site
