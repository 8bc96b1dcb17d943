"""HTTPS to the three group operators: mutual TLS with pinned authorities, bounded answers, errors by code.

Every operator is known by its own pinned authority alone and must name itself in its certificate. What an operator says
beyond signed notices and sealed parts (states, lists) is its word only; callers verify or ask all three.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from local_stores.errors import (
    ComityError,
    ConfigError,
    NotYet,
    PeerProtocolError,
    PeerUnavailable,
    PolicyViolation,
    StateError,
    TransportError,
)  # fmt: skip
from local_stores.receive.home import RecipientHome
from mpc_ops.envelope.dsse import Envelope
from mpc_ops.federation.loaded import Federation
from mpc_ops.notices.signed import SignedNotice
from mpc_ops.transport.tls import client_context, explain, proven_party

__all__ = ["ApiClient", "GroupClients", "Reply"]

MAX_JSON_BYTES = 16 << 20
_CODE = re.compile(r"[A-Z][A-Z0-9_]{2,60}")
_MORE = ("expected", "got", "hint")
_LINE = re.compile(r"[^\x20-\x7e\u00a0-\uffff]")
_NOT_YET = frozenset({404, 425, 429, 503})

T = TypeVar("T")


@dataclass(frozen=True)
class Reply:
    """A bounded answer."""

    status: int
    body: bytes


class ApiClient:
    """One group operator's API. Close it, or use it in a `with` block.

    Args:
        operator: id of the operator.
        federation: gives its directory entry (URL and pinned authorities).
        home: own certificate, key and time-outs.

    Raises:
        ConfigError: DIRECTORY_MISSING, DIRECTORY_EXPIRED, DIRECTORY_INCOMPLETE, CERTIFICATE_INVALID, SECRET_MISSING.
    """

    def __init__(self, operator: str, federation: Federation, home: RecipientHome) -> None:
        entry = federation.entry(operator)
        if not entry.api or not entry.api.startswith("https://") or not entry.tls_cas:
            raise ConfigError(
                "DIRECTORY_INCOMPLETE",
                "the directory entry of a group operator has no https address or no authority",
                ids={"party": operator},
            )
        self.operator = operator
        self._pins = {operator: tuple(entry.tls_cas)}
        context = client_context(*home.certificate, entry.tls_cas)
        self._http = httpx.Client(
            base_url=entry.api,
            verify=context,
            timeout=httpx.Timeout(home.timeout_s, connect=min(10, home.timeout_s)),
            trust_env=False,  # a proxy that ends TLS cannot work here, see docs
            follow_redirects=False,
        )
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def put_notice(self, signed: SignedNotice) -> bool:
        """Hand over a notice; return whether it was new there.

        Raises:
            StateError: the code of a 409 (not in this state). PolicyViolation: the code of a 422 (not valid).
            NotYet, TransportError: try again.
        """
        return self.put_envelope(signed.digest, signed.envelope)

    def put_envelope(self, digest: str, envelope: Envelope) -> bool:
        """The same for an envelope; see `put_notice`."""
        reply = self._ask("PUT", f"/v1/notices/{digest}", limit=1 << 20, content=envelope.to_bytes())
        return reply.status == 201

    def period(self, plan: str, period: str) -> dict[str, Any]:
        """Return what the operator says about a period."""
        return self._json(f"/v1/periods/{plan}/{period}")

    def run(self, run: str) -> dict[str, Any]:
        """Return what the operator says about a run."""
        return self._json(f"/v1/runs/{run}")

    def result(self, run: str, *, limit: int) -> bytes:
        """Return the operator's sealed result part, at most `limit` bytes; raises NotYet while it is not ready."""
        return self._ask("GET", f"/v1/runs/{run}/result", limit=limit).body

    def evidence(self, run: str, *, limit: int) -> bytes:
        """Return the operator's evidence bundle of a run, at most `limit` bytes."""
        return self._ask("GET", f"/v1/runs/{run}/evidence", limit=limit).body

    def _json(self, path: str) -> dict[str, Any]:
        reply = self._ask("GET", path, limit=MAX_JSON_BYTES)
        try:
            value = json.loads(reply.body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise PeerProtocolError("API_INVALID", "an operator's answer is not a JSON object", ids=self._ids(path))
        return value

    def _ids(self, path: str) -> dict[str, object]:
        return {"party": self.operator, "path": path[:60]}

    def _ask(self, method: str, path: str, *, limit: int, content: bytes | None = None) -> Reply:
        try:
            with self._lock, self._http.stream(method, path, content=content) as response:
                proven_party(_tls_of(response), self._pins)
                body = self._bounded(response, limit, path)
        except httpx.HTTPError as error:
            raise self._explained(error) from None
        if response.status_code in {200, 201}:
            return Reply(response.status_code, body)
        raise self._error(response.status_code, body, path)

    def _bounded(self, response: httpx.Response, limit: int, path: str) -> bytes:
        size, chunks = 0, []
        for chunk in response.iter_raw():
            size += len(chunk)
            if size > limit:
                raise PeerProtocolError(
                    "API_INVALID", "an operator's answer is too long", expected=f"at most {limit} bytes",
                    ids=self._ids(path),
                )  # fmt: skip
            chunks.append(chunk)
        return b"".join(chunks)

    def _explained(self, error: httpx.HTTPError) -> ComityError:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, (ssl.SSLError, ComityError)):
                return explain(cause, self.operator)
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, httpx.TimeoutException):
            return PeerUnavailable("API_TIMEOUT", "a group operator does not answer", ids={"party": self.operator})
        return PeerUnavailable(
            "API_UNAVAILABLE",
            f"a group operator cannot be reached ({type(error).__name__})",
            ids={"party": self.operator},
        )

    def _error(self, status: int, body: bytes, path: str) -> ComityError:
        code, what, ids, more = _said(body)
        ids = {**ids, "party": self.operator}
        if status in _NOT_YET or status >= 500:
            kind: type[ComityError] = NotYet if status in _NOT_YET else PeerUnavailable
            return kind(code or "API_UNAVAILABLE", what or f"a group operator answers {status}", ids=ids, **more)
        if status == 409:
            return StateError(code or "STATE", what or "not allowed in this state", ids=ids, **more)
        if status == 422:
            return PolicyViolation(code or "INVALID", what or "the operator does not accept it", ids=ids, **more)
        return PeerProtocolError(
            code or "API_INVALID", what or f"a group operator answers {status}", ids={**ids, "path": path[:60]}
        )


def _tls_of(response: httpx.Response) -> ssl.SSLSocket:
    found = response.extensions["network_stream"].get_extra_info("socket")
    if not isinstance(found, ssl.SSLSocket):
        raise PeerProtocolError("TLS_REQUIRED", "the connection to a group operator is not encrypted")
    return found


def _said(body: bytes) -> tuple[str, str, dict[str, object], dict[str, str]]:
    """Return (code, sentence, ids, expected/got/hint) of an error body as far as they have the form they must have."""
    try:
        value = json.loads(body[: 1 << 16])
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return "", "", {}, {}
    code = value.get("code")
    what = value.get("what")
    ids = value.get("ids")
    known = {
        str(name)[:40]: _LINE.sub(" ", str(text))[:100]
        for name, text in (list(ids.items())[:12] if isinstance(ids, dict) else ())
    }
    more = {name: _LINE.sub(" ", value[name])[:200] for name in _MORE if isinstance(value.get(name), str)}
    return (
        code if isinstance(code, str) and _CODE.fullmatch(code) else "",
        _LINE.sub(" ", what)[:400] if isinstance(what, str) else "",
        dict(known),
        more,
    )


class GroupClients:
    """The three operators of a group cluster, asked at once.

    Args:
        operators: ids by party index.
        federation: directory.
        home: the recipient's home.
    """

    def __init__(self, operators: Iterable[str], federation: Federation, home: RecipientHome) -> None:
        self._clients: dict[str, ApiClient] = {}
        try:
            for name in operators:
                self._clients[name] = ApiClient(name, federation, home)
        except ComityError:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            client.close()

    @property
    def names(self) -> list[str]:
        """Operators by party index."""
        return list(self._clients)

    def each(self, ask: Callable[[ApiClient], T]) -> tuple[dict[str, T], dict[str, ComityError]]:
        """Call `ask` for every operator; return answers and errors by operator."""
        answers: dict[str, T] = {}
        errors: dict[str, ComityError] = {}

        def one(client: ApiClient) -> None:
            try:
                answers[client.operator] = ask(client)
            except ComityError as error:
                errors[client.operator] = error

        with ThreadPoolExecutor(max_workers=len(self._clients)) as pool:
            list(pool.map(one, self._clients.values()))
        return answers, errors

    def post(self, signed: SignedNotice, *, at_least: int = 3) -> dict[str, bool]:
        """Hand a notice to all three; return {operator: whether it was new}.

        A terminal refusal by one is raised at once; operators that cannot be reached are passed over if `at_least`
        others took it, since operators swap notices among themselves.

        Raises:
            StateError, PolicyViolation: an operator's refusal, naming it. TransportError: too few could be reached.
        """
        answers, errors = self.each(lambda client: client.put_notice(signed))
        raise_terminal(errors)
        if len(answers) < at_least:
            raise first_transient(errors)
        return answers


def raise_terminal(errors: Mapping[str, ComityError]) -> None:
    """Raise the first terminal error, in order of the operators' names."""
    for _, error in sorted(errors.items()):
        if not error.transient:
            raise error


def first_transient(errors: Mapping[str, ComityError]) -> ComityError:
    """Return one transient error that says how many operators did not answer."""
    for _, error in sorted(errors.items()):
        return error
    return TransportError("API_UNAVAILABLE", "no group operator answered")
