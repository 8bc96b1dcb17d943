"""What other parties send to an operator's doors or sign: certificates, keys, statements, the recipient's API, SFTP.

As tests.adversary.test_fuzz: only a `ComityError` may come out, some hundreds of mutated inputs in a test run, longer with
`make fuzz`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import paramiko
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fastapi import FastAPI
from msgspec.structs import replace as replace_struct
from paramiko.sftp import SFTP_BAD_MESSAGE

from local_stores.receive.client import ApiClient, Reply
from local_stores.snapshot.record import ContributionId, signatures
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.envelope.keys import Purpose
from mpc_ops.errors import ConfigError, PeerProtocolError, PeerUnavailable
from mpc_ops.evidence.checks import _sign_offs
from mpc_ops.evidence.disputes import _check, settle
from mpc_ops.evidence.ledger import LEDGER_TYPE, verify_extract
from mpc_ops.evidence.statement import IN_TOTO_TYPE, verify_attestation
from mpc_ops.federation import pki
from mpc_ops.federation.assemble import add_directory
from mpc_ops.federation.cards import load_card
from mpc_ops.federation.loaded import DIRECTORY_TYPE, MEMBERSHIP_TYPE
from mpc_ops.notices.model import Filed, SignOff
from mpc_ops.notices.signed import parse_notice, sign_notice
from mpc_ops.protocol.core.blame import ProofShape
from mpc_ops.server.api import build_api
from mpc_ops.server.sftp.config import SftpLimits
from mpc_ops.server.sftp.dropbox import AccountSpool, DropBox
from mpc_ops.server.sftp.session import _BoundedSFTPServer, _Session
from mpc_ops.server.signoffs import check_sign_offs
from mpc_ops.server.submissions import Submissions
from mpc_ops.transport.tls import proven_party
from mpc_ops.transport.wire import Hello, decode_control, encode_control
from tests.adversary.test_blame_operators import ACCOUNT, sample
from tests.support.evidence import make_run
from tests.support.federation import RECIPIENT, SMALL, MadeFederation, make_federation, make_plan
from tests.support.fuzz import Target, fuzz
from tests.support.notices import sample_notices
from tests.support.operators import make_world
from tests.support.transport import Party, Recorder

SECONDS = float(os.environ["FUZZ_SECONDS"]) if os.environ.get("FUZZ_SECONDS") else None
SEED = os.environ.get("FUZZ_SEED", "0")
LIMIT = pytest.mark.timeout(3 * SECONDS + 120 if SECONDS else 60)


def text(data: bytes) -> str:
    """Bytes as the text that a schema lets through."""
    return data.decode("utf-8", "replace")


# --------------------------------------------------------------------------------------------------- keys and TLS


@dataclass
class Tls:
    """A connection whose other end showed this certificate."""

    der: bytes

    def getpeercert(self, binary_form: bool) -> bytes:
        assert binary_form
        return self.der


def certificates(folder: Path) -> list[Target]:
    """Certificates that a peer's own authority issued, which may hold anything; key lines; the state in a HELLO."""
    party = Party.make(folder, "de-1")
    pem = party.certificate.read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    file = folder / "x.pem"

    def certificate(data: bytes) -> None:
        file.write_bytes(data)
        found = pki.load_certificate(file)
        pki.party_of(found)
        pki.issued_by(found, [party.ca.certificate, text(data)])

    manager = party.manager({"de-2": party.endpoint()}, Recorder())
    hello = Hello(wire=[1], party="de-2", clock_ms=1, boot=1, state="AAAA")
    manager._clock = lambda: 0.001

    def judged(data: bytes) -> None:
        manager._boots.clear()
        manager._judge("de-2", decode_control(data, Hello, "de-2"))

    def ssh_key(data: bytes) -> None:
        pki.ssh_fingerprint(text(data))

    return [
        Target("certificate file", certificate, [pem]),
        Target("certificate of a peer", lambda data: proven_party(Tls(data), {"de-1": [party.ca.certificate]}), [der]),
        Target("state in a hello", judged, [encode_control(hello)]),
        Target("SSH key", ssh_key, [pki.create_ssh_key().public.encode()]),
    ]


# --------------------------------------------------------------------------------- what dishonest parties sign


def read_by_all(der: bytes, ca: str) -> str | None:
    """Read a certificate at every place that does; return the party whose it is taken for, None if it is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library will refuse some forms later, and says so
        try:
            found = pki.read_certificate(der)
            pki.party_of(found)
        except ConfigError:
            pass
        else:
            pki.issued_by(found, [ca])
        try:
            return proven_party(Tls(der), {"de-1": [ca]})
        except PeerProtocolError:
            return None


def test_a_certificate_that_says_things_twice_or_in_other_forms(tmp_path: Path) -> None:
    """What a party's own authority may sign, and TLS libraries may let through: every byte of the certificate, changed."""
    party = Party.make(tmp_path, "de-1")
    ca = party.ca.certificate
    der = x509.load_pem_x509_certificate(party.certificate.read_bytes()).public_bytes(Encoding.DER)
    signed = pki.read_certificate(der).tbs_certificate_bytes
    first = der.index(signed)
    assert read_by_all(der, ca) == "de-1"
    for place in range(len(der)):
        for value in (0, 3, der[place] ^ 1, der[place] + 3 & 0xFF, 0xA3, 0xFF):
            changed = der[:place] + bytes([value]) + der[place + 1 :]
            said = read_by_all(changed, ca)
            # Around what is signed, one signature may have a second form: it says the same.
            assert said is None or (said == "de-1" and changed[first : first + len(signed)] == signed), place
    version, subject_key, basic = (
        der.index(b"\xa0\x03\x02\x01\x02") + 4,
        b"\x06\x03\x55\x1d\x0e",
        b"\x06\x03\x55\x1d\x13",
    )
    names = der.index(b"\x06\x03\x55\x1d\x11")
    uri = der.index(b"\x86", names)
    for changed in (
        der[:version] + b"\x12" + der[version + 1 :], der.replace(subject_key, basic), der[:uri] + b"\xa3" + der[uri + 1 :],
    ):  # fmt: skip
        assert changed != der
        assert read_by_all(changed, ca) is None
    future = x509.load_pem_x509_certificate(ca.encode()).public_bytes(Encoding.PEM).decode()
    assert not pki.issued_by(pki.read_certificate(der), ["", "é", future.replace("MII", "AAA", 1)])


def federation_documents(made: MadeFederation, folder: Path) -> list[Target]:
    """Directory entries of dishonest parties, the authority's membership list, cards."""
    federation, card = made.federation, made.homes["de-nord"] / "public.json"
    membership = Envelope.parse((made.folder / "membership.dsse").read_bytes())
    entries = [federation.envelopes[name].payload for name in ("de-1", "nl-1", RECIPIENT)]

    def entry(data: bytes) -> Envelope:
        said = re.search(rb'"party":"([a-z0-9-]+)"', data)
        key = made.keys.get(text(said[1]) if said else "", made.keys["de-1"])
        return Envelope.sign(DIRECTORY_TYPE, data, key, Purpose.DIRECTORY)

    def into_folder(data: bytes) -> None:
        shutil.rmtree(folder / "copy", ignore_errors=True)
        shutil.copytree(made.folder, folder / "copy")
        add_directory(folder / "copy", [entry(data)])

    def members(data: bytes) -> None:
        federation.with_membership(Envelope.sign(MEMBERSHIP_TYPE, data, made.keys["authority"], Purpose.FEDERATION))

    def load(data: bytes) -> None:
        (folder / "card.json").write_bytes(data)
        load_card(folder / "card.json")

    return [
        Target("directory entry", lambda data: federation.with_directory([entry(data)]), entries),
        Target("directory entry in a folder", into_folder, entries, slow=True),
        Target("membership", members, [membership.payload]),
        Target("card", load, [card.read_bytes()]),
    ]


SHAPES = (
    ProofShape(words=64), ProofShape(words=1 << 24), ProofShape(), ProofShape(0, 1, 2), ProofShape(0, 1 << 40, 1 << 40),
    ProofShape(0, 5, 5), ProofShape(64, 1, 1),
)  # fmt: skip


def statements(made: MadeFederation, root: Path) -> list[Target]:
    """Statements about a disputed proof, sign-offs, extracts of transfer logs."""
    keys, federation = made.keys, made.federation
    shape = {"words": 512, "said": "0" * 16 * 6, "heard": "1" * 16 * 6}
    stated = [sample(**shape), sample(**{**shape, "operator": "de-3", "said": shape["heard"], "heard": shape["said"]})]
    stated.append(sample(**{**ACCOUNT, "operator": "de-2", "prover": 1}))
    notices = [sign_notice(notice, keys[notice.operator]) for notice in stated]

    def dispute(data: bytes) -> None:
        said = re.search(rb'"operator":"(de-[123])"', data)
        author = text(said[1]) if said else "de-1"
        envelope = Envelope.sign(notices[0].envelope.payload_type, data, keys[author], Purpose.NOTICE)
        others = [one for one in notices if zlib.crc32(data) % 2 or one.notice.operator != author]
        settle([parse_notice(envelope.to_bytes()), *others], federation)

    def proof_values(data: bytes) -> None:
        number, half = zlib.crc32(data), len(data) // 2
        _check(("and", "ring", "ring32")[number % 3], SHAPES[number // 3 % len(SHAPES)])(data[:half], data[half:])

    run = make_run(root, made=made)
    filed = next(
        notice.notice for notice in run.notices if isinstance(notice.notice, Filed) and notice.notice.sign_offs
    )
    report = SimpleNamespace(plan=run.plan)
    owner = federation.owner(filed.owner)
    reading = SimpleNamespace(federation=federation)

    def sign_off(data: bytes) -> None:
        first, *rest = filed.sign_offs
        given = replace_struct(filed, sign_offs=[SignOff(signer=first.signer, signature=text(data)), *rest])
        _sign_offs(reading, given)
        check_sign_offs(given, report, owner)

    extract, attestation = run.ledgers["de-1"], run.attestations["de-1"]

    of = ContributionId(filed.plan, filed.period, filed.owner, filed.edition)
    signer, committed = filed.sign_offs[0].signer, "0" * 64
    signature = base64.b64encode(made.people[signer].sign(of.signed_bytes(committed), Purpose.SIGN_OFF)).decode()

    def signature_file(data: bytes) -> None:
        state = SimpleNamespace(names=lambda _: [f"{signer}.json"], require=lambda *_, **__: data)
        signatures(state, of, committed, owner)

    def transfer_log(data: bytes) -> None:
        said = re.search(rb'"party":"([a-z0-9-]+)"', data)
        key = keys.get(text(said[1]) if said else "", keys["de-1"])
        verify_extract(Envelope.sign(LEDGER_TYPE, data, key, Purpose.LEDGER), federation)

    def attested(data: bytes) -> None:
        said = re.search(rb'"operator":"([a-z0-9-]+)"', data)
        key = keys.get(text(said[1]) if said else "", keys["de-1"])
        verify_attestation(Envelope.sign(IN_TOTO_TYPE, data, key, Purpose.ATTESTATION), run.manifest, federation)

    return [
        Target("dispute", dispute, [notice.envelope.payload for notice in notices]),
        Target("values of a disputed proof", proof_values, [bytes(96), bytes(512)]),
        Target("sign-off", sign_off, [filed.sign_offs[0].signature.encode()]),
        Target(
            "signature of a signer", signature_file, [json.dumps({"signer": signer, "signature": signature}).encode()]
        ),
        Target("transfer log", transfer_log, [extract.payload]),
        Target("attestation", attested, [attestation.payload]),
    ]


# ------------------------------------------------------------------------------------------- the doors of an operator


def request(api: FastAPI, method: str, path: str, body: bytes) -> int:
    """Return the status of one request of the recipient, whose connection has proven who it is."""
    status: list[int] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict) -> None:
        status.extend([message["status"]] if message["type"] == "http.response.start" else [])

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "https", "path": path,
        "raw_path": quote(path).encode(), "query_string": b"", "headers": [], "root_path": "", "comity_party": RECIPIENT,
    }  # fmt: skip
    asyncio.run(api(scope, receive, send))
    return status[0]


def api_of(root: Path, made: MadeFederation) -> list[Target]:
    """The recipient's API of a group operator: bodies that nobody signed, and what a dishonest recipient signs."""
    world = make_world(root, made, make_plan(made.federation, min_owners=2))
    inner = build_api(Submissions(world.net.operators["nl-1"]), 1 << 20)

    signed = {notice.kind: (notice, key) for notice, key in _signed(made)}
    release = world.release.envelope

    def put(data: bytes, digest: str) -> None:
        assert request(inner, "PUT", f"/v1/notices/{digest}", data) < 500

    def body(data: bytes) -> None:
        digest = re.search(rb'"payload":"', data) and _digest_of(data)
        put(data, digest or "0" * 64)

    def notice(data: bytes) -> None:
        said = re.search(rb'"kind":"([a-z_]+)"', data)
        first, key = signed.get(text(said[1]) if said else "", signed["manifest"])
        envelope = Envelope.sign(first.envelope.payload_type, data, key, Purpose.NOTICE)
        put(envelope.to_bytes(), envelope.digest)

    def path(data: bytes) -> None:
        assert request(inner, "GET", f"/v1/{text(data)}", b"") < 500

    def answer(data: bytes) -> None:
        reader = SimpleNamespace(_ask=lambda *_, **__: Reply(200, data), _ids=lambda _: {})
        ApiClient._json(reader, "/v1/runs/x")

    plan = world.desk.plan.digest
    payloads = [one.envelope.payload for one, _ in signed.values()]
    return [
        Target("API, body", body, [release.to_bytes()]),
        Target("API, notice", notice, payloads),
        Target("API, path", path, [f"periods/{plan}/2026-01".encode(), f"runs/{plan}".encode(), b"runs/x/result"]),
        Target("answer of an operator's server", answer, [b'{"phase":"COMMITTED"}']),
    ]


def _signed(made: MadeFederation):
    for kind in ("release", "reference", "manifest", "cancel", "reopen", "ack", "outcome"):
        notice, key = sample_notices(made)[kind]
        yield sign_notice(notice, key), key


def _digest_of(data: bytes) -> str | None:
    try:
        return Envelope.parse(data).digest
    except ConfigError:
        return None


class Channel:
    """An SSH channel on which just these bytes come in."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def get_transport(self):
        return SimpleNamespace(get_log_channel=lambda: "fuzz", get_hexdump=lambda: False, _log=lambda *_: None)

    def get_name(self) -> str:
        return "fuzz"

    def recv(self, count: int) -> bytes:
        piece, self.data = self.data[:count], self.data[count:]
        return piece

    def send(self, data: bytes) -> int:
        return len(data)

    def close(self) -> None:
        return


class Strict(_BoundedSFTPServer):
    """The product's server, that does not leave it to paramiko what becomes of an exception."""

    def _process(self, t, request_number, msg) -> None:
        try:
            super()._process(t, request_number, msg)
        except UnicodeDecodeError:  # a name that is no UTF-8: paramiko answers that it failed
            raise
        except Exception as error:
            self.foreign = error
            raise


def packet(kind: int, *parts: object) -> bytes:
    message = paramiko.Message()
    message.add_byte(bytes([kind]))
    for part in parts:
        {int: message.add_int, bytes: message.add_string}[type(part)](part)
    data = message.asbytes()
    return len(data).to_bytes(4, "big") + data


def sftp(root: Path) -> list[Target]:
    """Packets of an account that has logged in."""
    limits = SftpLimits(max_file_bytes=1 << 20, max_account_bytes=1 << 20, min_free_bytes=0)
    spool = AccountSpool(root / "spool", "de-a", limits)
    (spool.outbox / "note").write_bytes(b"a note")
    version, opened = packet(1, 3), packet(3, 1, b"inbox/x.1.part", 0x1A, 0)
    handle = b"hx1"
    samples = [
        version + opened + packet(6, 2, handle, 0, 0, b"content") + packet(4, 3, handle) + packet(18, 4, b"inbox/x.1.part", b"inbox/x"),
        version + packet(11, 1, b"outbox") + packet(12, 2, handle) + packet(4, 3, handle),
        version + packet(3, 1, b"outbox/note", 1, 0) + packet(5, 2, handle, 0, 0, 100) + packet(8, 3, handle),
        version + packet(3, 1, b"outbox/note", 1, 0) + packet(5, 2, handle, (1 << 32) - 1, 0, 100),
        version + packet(17, 1, b"inbox/x") + packet(16, 2, b"../..") + packet(200, 3, b"check-file", handle, b"sha1"),
    ]  # fmt: skip

    def session(data: bytes) -> None:
        channel = Channel(data)
        server = Strict(channel, "sftp", None, _Session, DropBox(spool), "de-a")
        server.foreign = None
        try:
            server.start_subsystem("sftp", channel.get_transport(), channel)
        except EOFError:
            raise PeerUnavailable("LINK_CLOSED", "as the session ends") from None
        finally:
            server.finish_subsystem()
            for path in spool.inbox.iterdir():
                path.unlink()
        if server.foreign is not None:
            raise server.foreign

    return [Target("SFTP session", session, samples)]


TLS = ("certificate file", "certificate of a peer", "state in a hello", "SSH key")
SIGNED = (
    "directory entry", "directory entry in a folder", "membership", "card", "dispute", "values of a disputed proof", "sign-off",
    "signature of a signer",
    "transfer log", "attestation",
)  # fmt: skip
API = ("API, body", "API, notice", "API, path", "answer of an operator's server")
RUNS = {"directory entry in a folder": 10, "dispute": 150, "API, notice": 100, "API, path": 100}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> MadeFederation:
    return make_federation(tmp_path_factory.mktemp("made"), SMALL)


@pytest.fixture(scope="module")
def signed(made, tmp_path_factory) -> dict[str, Target]:
    folder, run = tmp_path_factory.mktemp("folder"), tmp_path_factory.mktemp("run")
    return {target.name: target for target in (*federation_documents(made, folder), *statements(made, run))}


@pytest.fixture(scope="module")
def api(made, tmp_path_factory) -> dict[str, Target]:
    return {target.name: target for target in api_of(tmp_path_factory.mktemp("world"), made)}


@LIMIT
@pytest.mark.parametrize("name", TLS)
def test_keys_and_certificates(name: str, tmp_path: Path) -> None:
    targets = {target.name: target for target in certificates(tmp_path)}
    assert set(targets) == set(TLS)
    fuzz(targets[name], runs=300, seconds=SECONDS, seed=SEED)


@LIMIT
@pytest.mark.parametrize("name", SIGNED)
def test_what_dishonest_parties_sign(name: str, signed: dict[str, Target]) -> None:
    assert set(signed) == set(SIGNED)
    fuzz(signed[name], runs=RUNS.get(name, 200), seconds=SECONDS, seed=SEED)


@LIMIT
@pytest.mark.parametrize("name", API)
def test_the_api_of_a_group_operator(name: str, api: dict[str, Target]) -> None:
    assert set(api) == set(API)
    fuzz(api[name], runs=RUNS.get(name, 200), seconds=SECONDS, seed=SEED)


@pytest.mark.timeout(20)
def test_a_packet_that_announces_more_than_it_holds_is_answered_at_once(tmp_path: Path) -> None:
    """Attributes are counted by the client: 2^32 of them in a packet of 40 bytes would be read for hours."""
    sent: list[bytes] = []

    class Answered(Channel):
        def send(self, data: bytes) -> int:
            sent.append(bytes(data))
            return len(data)

    spool = AccountSpool(tmp_path, "de-a", SftpLimits())
    extended, many = 0x80000000, (1 << 32) - 1
    for request in (
        packet(3, 7, b"inbox/x.part", 0x1A, extended, many),
        packet(14, 7, b"inbox", extended, many),
        packet(4, 7),
    ):
        channel = Answered(packet(1, 3) + request)
        server = Strict(channel, "sftp", None, _Session, DropBox(spool), "de-a")
        server.start_subsystem("sftp", channel.get_transport(), channel)
        server.finish_subsystem()
        number, code = struct.unpack(">II", sent[-1][5:13])
        assert (sent[-1][4], number, code) == (101, 7, SFTP_BAD_MESSAGE)
    assert not list(spool.inbox.iterdir())


@LIMIT
def test_sftp_packets(tmp_path: Path) -> None:
    (target,) = sftp(tmp_path)
    fuzz(target, runs=300, seconds=SECONDS, seed=SEED)
