"""The operator process: party links, spool, timers and, at a group operator, the recipient's API in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections import deque
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpc_ops.errors import ComityError, PeerUnavailable
from mpc_ops.server.computing import Threads
from mpc_ops.server.config import OperatorConfig, load_config
from mpc_ops.server.operator import Operator
from mpc_ops.server.routing import group_operators, peer_table
from mpc_ops.transport.links import LinkManager
from mpc_ops.transport.peers import LinkIdentity, LinkState, LinkStatus, PeerHello

if TYPE_CHECKING:
    from mpc_ops.server.api import RecipientServer

__all__ = ["OperatorProcess", "run_operator"]

_QUEUED_BYTES = 512 << 20


class _Outgoing:
    """Messages to one peer in order; dropped with the link, since the state machines repeat what matters."""

    def __init__(self) -> None:
        self.items: deque[tuple[int, bytes]] = deque()
        self.size = 0
        self.ready = asyncio.Event()

    def put(self, kind: int, payload: bytes) -> None:
        if self.size + len(payload) <= _QUEUED_BYTES:
            self.items.append((kind, payload))
            self.size += len(payload)
            self.ready.set()

    def clear(self) -> None:
        self.items.clear()
        self.size = 0

    async def take(self) -> tuple[int, bytes]:
        while not self.items:
            self.ready.clear()
            await self.ready.wait()
        kind, payload = self.items.popleft()
        self.size -= len(payload)
        return kind, payload


class OperatorProcess:
    """One operator with its sockets; `run` until `stop` or a signal.

    Raises:
        ConfigError: what `Operator` and the link manager raise at start.
    """

    def __init__(self, config: OperatorConfig) -> None:
        self._config = config
        self._operator = Operator(config, self)
        self._queues: dict[str, _Outgoing] = {}
        self._links: LinkManager | None = None
        self._api: RecipientServer | None = None
        self._threads: Threads | None = None
        self._stop = asyncio.Event()

    # ------------------------------------------------------------------------------------------- Post and LinkUser

    def up(self, peer: str) -> bool:
        """`Post.up`."""
        return self._links is not None and peer in self._queues and self._links.state(peer).status is LinkStatus.UP

    def post(self, peer: str, kind: int, payload: bytes) -> None:
        """`Post.post`."""
        if self.up(peer):
            self._queues[peer].put(kind, payload)

    def hello(self, peer: str) -> bytes:
        """`LinkUser.hello`."""
        return self._operator.hello(peer)

    def on_hello(self, peer: str, hello: PeerHello) -> None:
        """`LinkUser.on_hello`."""
        self._operator.on_hello(peer, hello)

    async def on_message(self, peer: str, kind: int, payload: bytes) -> None:
        """`LinkUser.on_message`."""
        self._operator.on_message(peer, kind, payload)
        if self._threads is not None:
            await self._threads.room(peer)

    def on_state(self, peer: str, state: LinkState) -> None:
        """`LinkUser.on_state`."""
        self._queues[peer].clear()
        self._operator.context.log("link", peer=peer, status=str(state.status), code=state.code, why=state.what)
        if state.status is LinkStatus.UP:
            self._operator.link_up(peer)

    # ---------------------------------------------------------------------------------------------------- running

    async def run(self) -> None:
        """Serve until `stop`; whatever raises unexpectedly ends the process: the journal is the truth."""
        files = self._config.keys / "tls" / "leaf.pem", self._config.keys / "tls" / "leaf.key"
        context = self._operator.context
        table = peer_table(context.federation, context.id)
        self._queues = {peer: _Outgoing() for peer in table}
        self._links = LinkManager(
            LinkIdentity(context.id, files[0], files[1], context.boot), self._config.link, table, self
        )
        self._threads = self._operator.sessions.computing = Threads(self._operator.computed)
        self._operator.start()
        await self._links.start()
        work = [
            self._links.wait_closed(),
            self._threads.watch(),
            self._timer(),
            *(self._sender(peer) for peer in table),
        ]
        if context.region_clusters():
            work.append(self._scanner())
        if context.id in group_operators(context.federation):
            self._api = self._recipients(files)
            work.append(self._api.serve())
        self._say_ready()
        await self._until_stopped(work)

    def _recipients(self, files: tuple[Path, Path]) -> RecipientServer:
        # Only group operators pay for FastAPI.
        from mpc_ops.server.api import RecipientServer  # noqa: PLC0415
        from mpc_ops.server.submissions import Submissions  # noqa: PLC0415

        federation = self._operator.context.federation
        pins = {name: tuple(federation.entry(name).tls_cas) for name in federation.terms.recipients}
        return RecipientServer(
            Submissions(self._operator),
            self._config.api,
            files=files,
            pins=pins,
            limit_bytes=self._config.limits.max_body_bytes,
            on_refused=lambda code: self._operator.context.log("api_refused", code=code),
        )

    async def _until_stopped(self, work: Sequence[Coroutine[Any, Any, None]]) -> None:
        tasks = {asyncio.ensure_future(item) for item in work}
        stopper = asyncio.ensure_future(self._stop.wait())
        try:
            done, _ = await asyncio.wait({*tasks, stopper}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopper}:
                task.result()  # raises the bug that ended it
        finally:
            stopper.cancel()
            if self._api is not None:
                self._api.stop()
            if self._threads is not None:
                self._threads.close()
            if self._links is not None:
                await self._links.close()
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._operator.context.log("stopped")
            self._operator.close()

    def stop(self) -> None:
        """End `run`."""
        self._stop.set()

    def _say_ready(self) -> None:
        host, api_host = self._config.link[0], self._config.api[0]
        ready = {
            "ready": "operator",
            "id": self._config.id,
            "link": f"{host}:{self._links.port if self._links else 0}",
            "api": None if self._api is None else f"https://{api_host}:{self._api.port}",
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()

    async def _timer(self) -> None:
        while True:
            self._operator.tick()
            await asyncio.sleep(self._config.limits.tick_s)

    async def _scanner(self) -> None:
        while True:
            self._operator.scan()
            await asyncio.sleep(self._config.limits.scan_s)

    async def _sender(self, peer: str) -> None:
        queue, links = self._queues[peer], self._links
        while links is not None:
            kind, payload = await queue.take()
            with contextlib.suppress(PeerUnavailable):
                await links.send(peer, kind, payload)


async def _main(home: Path) -> None:
    process = OperatorProcess(load_config(home))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stop)
    await process.run()


def run_operator(home: Path) -> int:
    """Run the operator of a home folder until SIGTERM; return the exit code."""
    try:
        asyncio.run(_main(home))
    except ComityError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0
