"""Every decoder that reads a peer's, an owner's or an operator's bytes: only a `ComityError` may come out, in bounded memory.

A test run gives each some hundreds of mutated inputs, always the same ones; `make fuzz` (FUZZ_SECONDS for each decoder, and
FUZZ_SEED) goes on for longer with others.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace as replace_struct

from local_stores.config import StoreConfig
from local_stores.receive.client import _said
from mpc_ops.engine.frames import FrameInlet, FrameOutlet, LinkPlace, Place
from mpc_ops.envelope.canonical import parse_canonical
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.keys import IdentityPublicKey, Purpose
from mpc_ops.envelope.schema import decode, encode, to_plain
from mpc_ops.envelope.sealing import SealingPublicKey
from mpc_ops.errors import ConfigError
from mpc_ops.evidence.bundle import make_bundle, read_bundle
from mpc_ops.evidence.verify import verify_pack
from mpc_ops.federation.model import FederationTerms
from mpc_ops.notices.signed import parse_notice, sign_notice, verify_notice
from mpc_ops.plan.checks import read_plan
from mpc_ops.plan.model import load_plan
from mpc_ops.protocol.sums import (
    CrossRoute,
    ResultContext,
    Share,
    build_crossing,
    build_result,
    combine_parts,
    open_crossing,
)
from mpc_ops.randomness import FrameAddress, FrameOpener, FrameSealer, Initiator, Responder
from mpc_ops.randomness.agreement import Confirmation, End, Offer, Reply
from mpc_ops.server.context import moment
from mpc_ops.server.sync import (
    BundleCopy,
    BundleWant,
    Crossed,
    CrossFrame,
    ExtractCopy,
    ExtractHeld,
    FilingClaim,
    Have,
    Holdings,
    LedgerHead,
    Want,
    decode_bulk,
    decode_sync,
    encode_sync,
)
from mpc_ops.session import encode_message
from mpc_ops.session.handshake import SeenOfPeer, SessionMark, decode_seen, encode_seen
from mpc_ops.session.messages import Flushed, Frame, decode_flushed, decode_message
from mpc_ops.sharing import FilingContext, parts_of, share
from mpc_ops.sharing.part import read_part, write_part
from mpc_ops.sharing.units import UnitLimits, unit_planes
from mpc_ops.transport import wire
from mpc_ops.transport.datamesh import Greeting, _receive
from tests.support.core import RUN, hex32, identity
from tests.support.evidence import make_pack, make_run
from tests.support.federation import RECIPIENT, SMALL, make_federation, make_plan
from tests.support.fuzz import Target, fuzz
from tests.support.notices import sample_notices
from tests.unit.test_evidence_pack import resign
from tests.unit.test_session_messages import GOOD
from tests.unit.test_store_reading import NAMES, ROWS, excel, parquet, read

SECONDS = float(os.environ["FUZZ_SECONDS"]) if os.environ.get("FUZZ_SECONDS") else None
SEED = os.environ.get("FUZZ_SEED", "0")


class Wire:
    """A connection on which just these bytes come in."""

    def __init__(self, data: bytes) -> None:
        self.data = len(data).to_bytes(4, "big") + data

    def recv(self, count: int) -> bytes:
        out, self.data = self.data[:count], self.data[count:]
        return out


def key_agreement() -> list[Target]:
    """Offers, replies and confirmations, as bytes and as what the two ends do with them."""
    sid = bytes(32)
    one, two = End("de-1", identity("de-1").public), End("de-2", identity("de-2").public)
    initiator = Initiator(sid, identity("de-1"), one, two)
    responder = Responder(sid, identity("de-2"), two, one, initiator.offer)
    _, confirmation = initiator.finish(responder.reply)

    def offer(data: bytes) -> None:
        Responder(sid, identity("de-2"), two, one, _receive(Wire(data), Offer, "de-1"))

    def reply(data: bytes) -> None:
        initiator.finish(_receive(Wire(data), Reply, "de-2"))

    def confirm(data: bytes) -> None:
        responder.finish(_receive(Wire(data), Confirmation, "de-1"))

    encoded = msgspec.msgpack.encode
    return [
        Target("key offer", offer, [encoded(initiator.offer)]),
        Target("key reply", reply, [encoded(responder.reply)]),
        Target("key confirmation", confirm, [encoded(confirmation)]),
    ]


def links_and_sessions() -> list[Target]:
    """What comes over a link between two operators."""
    greeting = Greeting(1, bytes(32), "de-1", "forth", bytes(16))
    hello = wire.Hello(wire=[1], party="de-1", clock_ms=1, boot=1, state="")
    where = {"run_id": RUN, "cluster": "de"}
    flushed = Flushed(**where, attempt=1, stage="region", link_mac=bytes(32), held_mac=bytes(32))
    seen = SeenOfPeer(boot=4, ledger_length=5, ledger_head=hex32("h"), sessions=(SessionMark(**where, prepared=1),))
    sync = [
        Have(digests=(bytes(32),)), Want(digests=(bytes(32), bytes(32))), Holdings(count=3, fingerprint=bytes(32)),
        FilingClaim(plan=RUN, period="2026-10", owner="de1", edition=1, take=1, notice=RUN), Crossed(**where, digest=RUN),
        LedgerHead(**where, length=1, head=RUN), ExtractHeld(run_id=RUN), BundleWant(run_id=RUN),
    ]  # fmt: skip
    bulk = [
        ExtractCopy(run_id=RUN, ledger=b"a", attestation=b""), BundleCopy(run_id=RUN, data=b"a"),
        CrossFrame(**where, attempt=1, payload_class="x", sealed=b"s", signature=bytes(3309)),
    ]  # fmt: skip
    return [
        Target("link header", lambda data: wire.check_header((data + bytes(5))[:5], "de-1"), [wire.header(wire.Kind.PING, 8)]),
        Target("hello", lambda data: wire.decode_control(data, wire.Hello, "de-1"), [wire.encode_control(hello)]),
        Target(
            "refusal", lambda data: wire.decode_control(data, wire.Refusal, "de-1"),
            [wire.encode_control(wire.Refusal(code="CLOCK_SKEW", what="clocks differ"))],
        ),
        Target("greeting", lambda data: _receive(Wire(data), Greeting, "de-1"), [msgspec.msgpack.encode(greeting)]),
        Target("session message", decode_message, [encode_message(message) for message in GOOD]),
        Target("flushed", decode_flushed, [encode_message(flushed)]),
        Target("handshake", decode_seen, [encode_seen(seen), encode_seen(SeenOfPeer())]),
        Target("sync message", lambda data: decode_sync(data, "de-1"), [encode_sync(message) for message in sync]),
        Target("bulk message", lambda data: decode_bulk(data, "de-1"), [encode_sync(message) for message in bulk]),
    ]  # fmt: skip


def frames() -> list[Target]:
    """Sealed frames: altered ciphertexts, and whole frame messages in any order."""
    address = FrameAddress(
        run_id=RUN, cluster="de", attempt=1, stage="s", step="t", sender="de-1", receiver="de-2", total_bytes=20
    )
    _, sealed = FrameSealer(bytes(32)).seal(address, bytes(20))
    link = LinkPlace(RUN, "de", 1, "de-1", "de-2")
    made = FrameOutlet(link, bytes(32)).send(Place("s", "t"), bytes(300))

    def inlet(data: bytes) -> None:
        message = decode_message(data)
        if isinstance(message, Frame):
            taker = FrameInlet(link)
            taker.unlock(bytes(32))
            taker.take(message)
            list(taker.bodies())

    return [
        Target("frame", lambda data: FrameOpener(bytes(32)).open(address, 0, data), [sealed]),
        Target("frame message", inlet, [encode_message(frame) for frame in made]),
    ]


def shares_of_owners_and_clusters() -> list[Target]:
    """Parts of an owner's filing, crossing frames of a region, result parts of the group."""
    filing = FilingContext(plan_digest="22" * 32, period="2026-10", owner="de1", edition=1, take=1)
    values = np.arange(5, dtype=np.uint64)
    planes = [unit_planes(np.ones((70, 3), dtype=np.bool_))]
    limits = UnitLimits(width=3, tables=1, max_rows=1024)
    plain, tables = parts_of(share(values), filing), parts_of(share(values, planes=planes), filing)
    made = share(values)
    vectors = [part.expand(5).copy() for part in made.components]
    shares = [Share(party, vectors[party], vectors[(party + 1) % 3]) for party in range(3)]
    route = CrossRoute(
        run_id=RUN, source="de", target="group", crossing="cross", lanes=5, senders=("de-1", "de-2", "de-3"),
        receivers=("nl-1", "ch-1", "sg-1"),
    )  # fmt: skip
    result = ResultContext(
        run_id=RUN, cluster="group", recipient="group-reporting", attempt=1, lanes=5, members=route.receivers
    )
    keys = [hashlib.sha256(bytes([number])).digest() for number in range(3)]
    pairs = [(keys[party], keys[(party + 1) % 3]) for party in range(3)]
    crossing = {one.party: build_crossing(one, pairs[one.party], route, 1)[1] for one in shares}
    parts = {one.party: build_result(one, pairs[one.party], result) for one in shares}

    def cross(data: bytes) -> None:
        open_crossing({**crossing, 0: data}, route, 1)

    def combine(data: bytes) -> None:
        combine_parts(result, {0: data, 1: parts[1][1]}, {party: said for party, (said, _) in parts.items()})

    return [
        Target("part", lambda data: read_part(data, filing, 2, 5), [write_part(plain[2])]),
        Target("part with units", lambda data: read_part(data, filing, 1, 5, limits), [write_part(tables[1])]),
        Target("part, seeds", lambda data: read_part(data, filing, 0, 5), [write_part(plain[0])]),
        Target("crossing frame", cross, [crossing[0]]),
        Target("result part", combine, [parts[0][1]]),
    ]


def documents(root: Path) -> list[Target]:
    """Signed documents of all parties: envelopes, notices, plans, bundles, packs; keys and sealed boxes in them."""
    made = make_federation(root / "made")
    run = make_run(root / "run", made=made)
    plan = make_plan(made.federation)
    notices = [sign_notice(notice, key) for notice, key in sample_notices(made).values()]
    signed = [notice.envelope.to_bytes() for notice in notices]
    terms = encode(made.federation.terms)
    key = made.sealing["de-1"]
    box = key.public.seal(b"secret", b"info")
    bundle = make_bundle(run.run, [notice.envelope for notice in run.notices[:6]], [], [])

    def notice(data: bytes) -> None:
        """What a dishonest party signs: every moment that gets through can be computed with, as operators do."""
        envelope = Envelope.sign(notices[0].envelope.payload_type, data, made.keys["group-controlling"], Purpose.NOTICE)
        plain = to_plain(verify_notice(parse_notice(envelope.to_bytes()), made.federation).notice)
        for value in plain.values():
            if isinstance(value, str) and len(value) == len("2026-01-01T00:00:00Z") and value.endswith("Z"):
                assert moment(value) + timedelta(days=3650) > moment("1970-01-01T00:00:00Z")

    def text(data: bytes) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise ConfigError("JSON_INVALID", "not text") from None

    return [
        Target("canonical JSON", parse_canonical, [terms, b'{"a":[1,null,"x"]}', encode(plan)]),
        Target("envelope", Envelope.parse, signed[:4]),
        Target("notice", parse_notice, signed),
        Target("signed release", notice, [notices[0].envelope.payload]),
        Target("plan", load_plan, [encode(plan)]),
        Target("plan in its federation", lambda data: read_plan(data, made.federation), [encode(plan)]),
        Target(
            "federation terms", lambda data: decode(data, FederationTerms, what="terms", limit_bytes=1 << 24), [terms]
        ),
        Target("evidence bundle", read_bundle, [bundle]),
        Target(
            "identity key", lambda data: IdentityPublicKey.from_text(text(data)), [identity("x").public.text.encode()]
        ),
        Target("sealing key", lambda data: SealingPublicKey.from_text(text(data)), [key.public.text.encode()]),
        Target("sealed box", lambda data: key.open(data, b"info"), [box]),
        Target("error of an operator's server", _said, [b'{"code":"X","what":"y","ids":{"a":"b"},"hint":"c"}', b"[]"]),
    ]


def _common(one: bytes, other: bytes) -> int:
    """How many bytes are the same at the beginning."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def evidence_packs(root: Path) -> list[Target]:
    """Packs of a dishonest recipient: the index fits every changed file and is signed; notices by dishonest parties likewise."""
    run = make_run(root / "run", SMALL)
    pack = make_pack(run, root / "pack")
    names = sorted(path.relative_to(pack).as_posix() for path in pack.rglob("*") if path.is_file())
    names = [name for name in names if not name.startswith("index.json")]
    kept = {name: (pack / name).read_bytes() for name in names}
    operators = [notice for notice in run.notices if notice.kind in ("state", "receipt", "result")]
    by_digest = {f"notices/{notice.kind}/{notice.digest}.dsse": notice for notice in operators}
    by_digest = {name: notice for name, notice in by_digest.items() if name in kept}

    def verify(changes: dict[str, bytes | None]) -> None:
        resign(pack, run.made.keys[RECIPIENT], changes)
        assert verify_pack(pack).words
        back = {name: kept.get(name) for name in changes}
        resign(pack, run.made.keys[RECIPIENT], back)

    def closest(data: bytes, content: Mapping[str, bytes]) -> str:
        """The file that begins most like it; now and then any other."""
        if zlib.crc32(data) % 8 == 0:
            return sorted(content)[zlib.crc32(data) // 8 % len(content)]
        return max(sorted(content), key=lambda name: _common(content[name], data))

    def changed(data: bytes) -> None:
        verify({closest(data, kept): data})

    def signed(data: bytes) -> None:
        name = closest(data, {name: notice.envelope.payload for name, notice in by_digest.items()})
        notice = by_digest[name]
        key = run.made.keys[notice.notice.operator]
        envelope = Envelope.sign(notice.envelope.payload_type, data, key, Purpose.NOTICE)
        verify({name: None, f"notices/{notice.kind}/{envelope.digest}.dsse": envelope.to_bytes()})

    samples = [kept[name] for name in names if len(kept[name]) < 40_000 and zlib.crc32(kept[name]) % 8]
    payloads = [notice.envelope.payload for notice in by_digest.values() if zlib.crc32(notice.envelope.payload) % 8]
    return [
        Target("file of a pack", changed, samples, slow=True), Target("notice in a pack", signed, payloads, slow=True)
    ]  # fmt: skip


def files_of_an_owner(folder: Path) -> list[Target]:
    """Files from which an owner's data is read: written by the owner's own systems, and as strange as those are."""
    csv_file, xlsx, pack = folder / "a.csv", folder / "a.xlsx", folder / "a.parquet"
    csv_file.write_text(
        "\n".join([",".join(NAMES), *(",".join(map(str, row)) for row in ROWS)]) + "\n", encoding="utf-8"
    )
    excel(xlsx, ROWS)
    parquet(folder)

    def through(name: str, kind: str) -> Callable[[bytes], None]:
        path = folder / name

        def read_file(data: bytes) -> None:
            path.write_bytes(data)
            read(StoreConfig(dataset="sales_line", kind=kind, location=str(path)))

        return read_file

    return [
        Target("CSV file", through("x.csv", "csv"), [csv_file.read_bytes()]),
        Target("Excel file", through("x.xlsx", "excel"), [xlsx.read_bytes()]),
        Target("Parquet file", through("x.parquet", "parquet"), [pack.read_bytes()]),
    ]


BYTES = (
    "key offer", "key reply", "key confirmation", "link header", "hello", "refusal", "greeting", "session message", "flushed",
    "handshake", "sync message", "bulk message", "frame", "frame message", "part", "part with units", "part, seeds",
    "crossing frame", "result part",
)  # fmt: skip
DOCUMENTS = (
    "canonical JSON", "envelope", "notice", "signed release", "plan", "plan in its federation", "federation terms", "evidence bundle",
    "identity key", "sealing key", "sealed box", "error of an operator's server",
)  # fmt: skip
PACKS = ("file of a pack", "notice in a pack")
FILES = ("CSV file", "Excel file", "Parquet file")
LIMIT = pytest.mark.timeout(3 * SECONDS + 120 if SECONDS else 60)


@pytest.fixture(scope="module")
def made_bytes() -> dict[str, Target]:
    makers = (key_agreement, links_and_sessions, frames, shares_of_owners_and_clusters)
    return {target.name: target for make in makers for target in make()}


@pytest.fixture(scope="module")
def made_documents(tmp_path_factory) -> dict[str, Target]:
    return {target.name: target for target in documents(tmp_path_factory.mktemp("fuzz"))}


@LIMIT
@pytest.mark.parametrize("name", BYTES)
def test_bytes_of_peers_and_owners(name: str, made_bytes: dict[str, Target]) -> None:
    assert set(made_bytes) == set(BYTES)
    fuzz(made_bytes[name], runs=300, seconds=SECONDS, seed=SEED)


@LIMIT
@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_of_all_parties(name: str, made_documents: dict[str, Target]) -> None:
    assert set(made_documents) == set(DOCUMENTS)
    fuzz(made_documents[name], runs=200, seconds=SECONDS, seed=SEED)


@LIMIT
def test_evidence_packs(tmp_path: Path) -> None:
    for target in evidence_packs(tmp_path):
        assert target.name in PACKS
        fuzz(target, runs=8, seconds=SECONDS, seed=SEED)


# Arrow hands a row of the wrong length over as text; where it is none, Arrow reports that and refuses the file by itself.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@LIMIT
@pytest.mark.parametrize("name", FILES)
def test_files_of_an_owner(name: str, tmp_path: Path) -> None:
    made = {target.name: target for target in files_of_an_owner(tmp_path)}
    assert set(made) == set(FILES)
    fuzz(made[name], runs=200, seconds=SECONDS, seed=SEED)


def test_a_signed_moment_that_no_calendar_has_is_refused(tmp_path: Path) -> None:
    """Operators compute deadlines from what others signed; such a moment would stop them."""
    made = make_federation(tmp_path, SMALL)
    close, key = sample_notices(made)["manifest"]
    for text in ("2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z", "9999-12-31T23:59:59Z"):
        signed = sign_notice(replace_struct(close, created_at=text), key)
        with pytest.raises(ConfigError, match="SCHEMA_INVALID"):
            parse_notice(signed.envelope.to_bytes())
