"""Three small HTTPS servers that answer like group operators, with real certificates and whatever a test wants to hear.

`group_api(made)` starts them on free ports and puts their addresses into the directory; `api.answers[operator][path]` is
(status, body), a callable that gives one, or `HANG`. `result_of` makes real sealed parts and commitments of a result.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import numpy as np

from mpc_ops.envelope.canonical import canonical_bytes, sha256_hex
from mpc_ops.envelope.sealing import SealingPublicKey
from mpc_ops.evidence.bundle import make_bundle
from mpc_ops.federation.cards import directory_entry
from mpc_ops.federation.loaded import Federation
from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices.model import ResultCommitment
from mpc_ops.notices.signed import sign_notice
from mpc_ops.plan.layout import lane_count
from mpc_ops.protocol.sums.linear import Share
from mpc_ops.protocol.sums.result import ResultContext, build_result
from mpc_ops.sharing import share
from mpc_ops.transport.tls import server_context
from tests.support.evidence import MadeRun
from tests.support.federation import GROUP_SEATS, RECIPIENT, MadeFederation

HANG = "hang"


@dataclass
class GroupApi:
    """Answers by operator and path, and what was asked."""

    answers: dict[str, dict[str, object]]
    asked: list[tuple[str, str, str, bytes]] = field(default_factory=list)

    def clear(self) -> None:
        self.asked.clear()
        for answers in self.answers.values():
            answers.clear()

    def all(self, path: str, answer: object) -> None:
        for operator in self.answers:
            self.answers[operator][path] = answer

    def posted(self, operator: str) -> list[bytes]:
        return [body for name, method, _, body in self.asked if name == operator and method == "PUT"]


def _handler(api: GroupApi, operator: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            api.asked.append((operator, self.command, self.path, body))
            known = api.answers[operator]
            found = known.get(self.path, known.get(self.path.rpartition("/")[0] + "/*", (404, {"code": "RUN_UNKNOWN"})))
            if callable(found):
                found = found()
            if found == HANG:
                time.sleep(3)
                return
            status, data = found
            raw = data if isinstance(data, bytes) else json.dumps(data).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_PUT = _answer

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 16

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def group_api(
    made: MadeFederation, *, leaf_of: dict[str, str] | None = None
) -> Iterator[tuple[GroupApi, MadeFederation]]:
    """Serve for all group operators; `leaf_of` lets one show another party's certificate.

    Gives the answers, and the federation with the servers' addresses in its directory.
    """
    api = GroupApi({name: {} for name in GROUP_SEATS})
    pins = made.federation.entry(RECIPIENT).tls_cas
    servers = []
    for name in GROUP_SEATS:
        tls = made.homes[(leaf_of or {}).get(name, name)] / "keys" / "tls"
        context: ssl.SSLContext = server_context(tls / "leaf.pem", tls / "leaf.key", pins)
        server = _Server(("127.0.0.1", 0), _handler(api, name))
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        servers.append(server)
        entry = directory_entry(
            made.federation,
            made.homes[name],
            name,
            1 + made.federation.directory[name].version,
            api=f"https://127.0.0.1:{server.server_address[1]}",
        )
        (made.folder / "directory" / f"{name}.dsse").write_bytes(entry.to_bytes())
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield api, replace(made, federation=Federation.load(made.folder))
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


@dataclass
class Result:
    """A result of a run: its values, sealed parts and commitment notices by operator."""

    values: list[int]
    sealed: dict[str, bytes]
    commitments: dict[str, object]


def result_of(run: MadeRun, *, alter: Callable[[str, bytes], bytes] | None = None) -> Result:
    """Share made-up values among the group operators as a committed run does, and seal the parts."""
    lanes = lane_count(run.plan)
    values = np.random.default_rng(7).integers(-(10**12), 10**12, lanes)
    components = [part.expand(lanes) for part in share(values.astype(np.uint64)).components]
    members = tuple(GROUP_SEATS)
    keys = [bytes([place]) * 32 for place in range(3)]
    context = ResultContext(
        run_id=run.run, cluster="group", recipient=RECIPIENT, attempt=1, lanes=lanes, members=members
    )
    sealed, commitments = {}, {}
    for place, name in enumerate(members):
        other = (place + 1) % 3
        said, part = build_result(
            Share(place, components[place], components[other]), (keys[place], keys[other]), context
        )
        info = canonical_bytes({"box": "comity/result/v1", "run": run.run, "operator": name, "recipient": RECIPIENT})
        part = part if alter is None else alter(name, part)
        key = SealingPublicKey.from_text(run.made.federation.entry(RECIPIENT).sealing_key)
        sealed[name] = key.seal(part, info)
        notice = ResultCommitment(
            run=run.run, cluster="group", operator=name, attempt=1, recipient=RECIPIENT, lanes=lanes,
            commitments=list(said), created_at=run.manifest.notice.created_at,
        )  # fmt: skip
        commitments[name] = sign_notice(notice, run.made.keys[name])
    return Result([int(value) for value in values], sealed, commitments)


def use_result(run: MadeRun, result: Result) -> None:
    """Put a real result's parts and commitments into a made run, in place of the made-up ones, and sign all again."""
    for name, log in run.books.logs.items():
        for place, entry in enumerate(log):
            if entry.event == "frame_sent" and entry.payload_class == PayloadClass.RELEASED_AGGREGATE:
                data = result.sealed[name]
                log[place] = msgspec.structs.replace(entry, digest=sha256_hex(data), bytes=len(data))
    del run.books.logs[RECIPIENT]
    run.notices = [n for n in run.notices if n.kind not in {"result", "ack", "erased", "outcome"}]
    run.notices += list(result.commitments.values())
    run.ledgers, run.attestations, run.closing = {}, {}, None
    run.sign_books()


def bundle_of(run: MadeRun, *, without: str | None = None) -> bytes:
    """Return the evidence bundle of a run as an operator hands it over; `without` leaves one operator out."""
    return make_bundle(
        run.run,
        [notice.envelope for notice in run.notices],
        [envelope for name, envelope in run.attestations.items() if name != without],
        [envelope for name, envelope in run.ledgers.items() if name != without],
    )


def period_answer(made: MadeFederation, plan: str, period: str, filings: dict[str, str], **change: object) -> dict:
    """Return the body of `GET /v1/periods/...`; owners that are not in `filings` have not submitted."""
    owners = {
        name: {
            "state": "AGREED" if name in filings else "EXPECTED", "filing": filings.get(name),
            "take": int(name in filings), "nil": False, "code": None, "pair": [],
            "receipts": made.federation.operators_of(name) if name in filings else [],
        }
        for name in made.owners
    }  # fmt: skip
    return {
        "plan": plan, "period": period, "edition": 1, "opens_at": "2026-01-01T00:00:00Z", "overdue": False,
        "due_at": "2099-01-01T00:00:00Z", "state": "OPEN", "run": None, "reference": None, "owners": owners, **change,
    }  # fmt: skip


def run_answer(run: MadeRun, **change: object) -> dict:
    """Return the body of `GET /v1/runs/...` of a committed run."""
    return {
        "run": run.run, "plan": run.plan.digest, "period": run.manifest.notice.period, "edition": 1,
        "state": "COMMITTED", "phase": "COMMITTED", "code": None, "pair": [], "regions": ["de"], "done": ["de"],
        "stall": None, "sessions": {}, "statements": list(run.made.federation.terms.operators), **change,
    }  # fmt: skip
