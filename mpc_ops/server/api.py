"""The recipient's API of a group operator: five routes over HTTPS with mutual TLS 1.3; documentation pages are off.

The client certificate must be issued by the authority that a recipient's directory entry pins; the connection is that
recipient's. Bodies are bounded; every refusal is JSON `{"code": ..., "what": ...}`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from mpc_ops.errors import ComityError, DeliveryError, NotYet, StateError, TransportError
from mpc_ops.ids import check_digest, check_period
from mpc_ops.server.submissions import Submissions
from mpc_ops.transport.tls import proven_party, server_context

__all__ = ["RecipientServer", "build_api"]

_UNKNOWN = frozenset({"RUN_UNKNOWN", "PLAN_UNKNOWN", "PERIOD_UNKNOWN"})


def status_of(error: ComityError) -> int:
    """Return the HTTP status: 404 unknown, 425 not yet, 409 not in this state, 503 try again, 422 not acceptable."""
    if error.code in _UNKNOWN:
        return 404
    if isinstance(error, NotYet):
        return 425
    if isinstance(error, (StateError, DeliveryError)):
        return 409
    return 503 if isinstance(error, TransportError) else 422


async def _body(request: Request, limit_bytes: int) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit_bytes:
            raise DeliveryError("BODY_TOO_LONG", "the request is too long", expected=f"at most {limit_bytes} bytes")
    return bytes(data)


def build_api(submissions: Submissions, limit_bytes: int) -> FastAPI:
    """Return the application; `request.scope["comity_party"]` is the recipient that the connection proved."""
    api = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, title="Comity operator")

    @api.exception_handler(ComityError)
    async def refuse(_request: Request, error: ComityError) -> JSONResponse:
        status = 413 if error.code == "BODY_TOO_LONG" else status_of(error)
        return JSONResponse({**error.as_dict(), "transient": error.transient}, status_code=status)

    @api.put("/v1/notices/{digest}")
    async def put_notice(digest: str, request: Request) -> Response:
        data = await _body(request, limit_bytes)
        new = submissions.put(check_digest(digest), data, request.scope["comity_party"])
        return JSONResponse({"digest": digest, "new": new}, status_code=201 if new else 200)

    @api.get("/v1/periods/{plan}/{period}")
    async def get_period(plan: str, period: str, request: Request) -> Response:
        submissions.require_recipient(request.scope["comity_party"], plan=check_digest(plan))
        return JSONResponse(submissions.period(plan, check_period(period)))

    @api.get("/v1/runs/{run}")
    async def get_run(run: str, request: Request) -> Response:
        submissions.require_recipient(request.scope["comity_party"], run=check_digest(run))
        return JSONResponse(submissions.run(run))

    @api.get("/v1/runs/{run}/result")
    async def get_result(run: str, request: Request) -> Response:
        submissions.require_recipient(request.scope["comity_party"], run=check_digest(run))
        return Response(submissions.result(run), media_type="application/octet-stream")

    @api.get("/v1/runs/{run}/evidence")
    async def get_evidence(run: str, request: Request) -> Response:
        party = request.scope["comity_party"]
        submissions.require_recipient(party, run=check_digest(run))
        return Response(submissions.evidence(run, party), media_type="application/json")

    return api


def _protocol(pins: Mapping[str, Sequence[str]], on_refused: Callable[[str], None]) -> type[H11Protocol]:
    class RecipientProtocol(H11Protocol):
        """Adds the recipient that the client certificate proves to every request of the connection."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            try:
                party = proven_party(transport.get_extra_info("ssl_object"), pins)
            except ComityError as error:
                on_refused(error.code)
                transport.abort()
                return
            inner = self.app

            async def app(scope: Any, receive: Any, send: Any) -> None:
                scope["comity_party"] = party
                await inner(scope, receive, send)

            self.app = app

    return RecipientProtocol


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the operator process."""
        yield


class RecipientServer:
    """The API's HTTPS server inside the operator's event loop.

    Args:
        submissions: what it serves.
        listen: host and port; port 0 lets the system choose.
        files: own leaf certificate and key (PEM files).
        pins: pinned authorities (PEM) of every recipient.
        limit_bytes: largest request body.
        on_refused: hears the code of connections of strangers.
    """

    def __init__(
        self,
        submissions: Submissions,
        listen: tuple[str, int],
        *,
        files: tuple[Any, Any],
        pins: Mapping[str, Sequence[str]],
        limit_bytes: int,
        on_refused: Callable[[str], None],
    ) -> None:
        context: ssl.SSLContext = server_context(files[0], files[1], [pin for found in pins.values() for pin in found])
        config = uvicorn.Config(
            build_api(submissions, limit_bytes),
            http=_protocol(pins, on_refused),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            h11_max_incomplete_event_size=16 << 10,
            limit_concurrency=64,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=2,
        )
        config.load()
        config.ssl = context
        self._server = _Server(config)
        family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
        self._socket = socket.create_server(listen, family=family, backlog=64)

    @property
    def port(self) -> int:
        """Port in use."""
        return int(self._socket.getsockname()[1])

    async def serve(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Finish what is under way and end `serve`."""
        self._server.should_exit = True
