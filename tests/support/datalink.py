"""Three operators in one process with real data links between them, and single links over real sockets."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from mpc_ops.protocol.core.terms import PartyKeys
from mpc_ops.randomness import PairKeys, derive
from mpc_ops.transport.datalink import DataEnds, DataLink, DataTimings
from mpc_ops.transport.datamesh import DataListener, DataMesh, MeshTerms, open_mesh
from mpc_ops.transport.peers import PeerEndpoint
from mpc_ops.transport.tls import client_context, server_context
from tests.support.core import identity
from tests.support.transport import Party

MEMBERS = ("de-1", "de-2", "de-3")
SID = hashlib.sha256(b"a data session").digest()
QUICK = DataTimings(connect_s=20, send_s=5, close_s=2)


def both_keys(seed: str = "s") -> tuple[PairKeys, PairKeys]:
    """Pair keys of two ends: the one's `send` is the other's `receive`."""
    root = hashlib.sha256(seed.encode()).digest()
    parts = [derive(root, name) for name in ("prg", "coin", "commit", "mac", "forth", "back")]
    return PairKeys(*parts), PairKeys(*parts[:4], parts[5], parts[4])


class OneLink:
    """A link `a` to `b` with TLS over loopback; `b` may be left to the test as two raw TLS sockets."""

    def __init__(self, folder: Path, *, raw: bool = False, limit_bytes: int = 1 << 26, **options):
        one, other = Party.make(folder, "a"), Party.make(folder, "b")
        server = server_context(other.certificate, other.key, [one.ca.certificate])
        client = client_context(one.certificate, one.key, [other.ca.certificate])
        pairs = []
        with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
            for _ in range(2):
                accepted = pool.submit(lambda: server.wrap_socket(listener.accept()[0], server_side=True))
                dialled = client.wrap_socket(socket.create_connection(listener.getsockname()))
                pairs.append((dialled, accepted.result()))
        (forth, back), keys = pairs, both_keys()
        options.setdefault("timings", QUICK)
        self.keys, self.inbox, self.other_inbox = keys, SimpleQueue(), SimpleQueue()
        self.a = DataLink(
            DataEnds("de", 1, "a", "b"), forth[0], back[0], keys[0], self.inbox, limit_bytes=limit_bytes, **options
        )
        self.raw_in, self.raw_out = forth[1], back[1]
        self.b = None
        if not raw:
            self.b = DataLink(
                DataEnds("de", 1, "b", "a"), back[1], forth[1], keys[1], self.other_inbox,
                limit_bytes=limit_bytes, **options,
            )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for end in (self.a, self.b):
            if end is not None:
                end.close()
        self.raw_in.close()
        self.raw_out.close()


class Trio:
    """Three operators with certificates, identities and listeners."""

    def __init__(self, folder: Path):
        self.parties = [Party.make(folder, name) for name in MEMBERS]
        pins = {party.name: (party.ca.certificate,) for party in self.parties}
        self.listeners = [
            DataListener(
                party.identity(), ("127.0.0.1", 0), {name: pin for name, pin in pins.items() if name != party.name}
            )
            for party in self.parties
        ]

    def terms(self, position: int, sid: bytes = SID) -> MeshTerms:
        keys = tuple(identity(name).public for name in MEMBERS)
        return MeshTerms(sid=sid, cluster="de", attempt=1, position=position, members=MEMBERS, identity_keys=keys)  # type: ignore[arg-type]

    def endpoints(self, position: int) -> dict[str, PeerEndpoint]:
        return {
            party.name: party.endpoint(port=self.listeners[place].port, dial=position < place)
            for place, party in enumerate(self.parties)
            if place != position
        }

    def open(self, position: int, sid: bytes = SID, **options) -> tuple[DataMesh, dict[int, PairKeys]]:
        options.setdefault("timings", QUICK)
        return open_mesh(
            self.parties[position].identity(), identity(MEMBERS[position]), self.terms(position, sid),
            self.listeners[position], self.endpoints(position), **options,
        )  # fmt: skip

    def run(self, work: Callable[[int, DataMesh, PartyKeys], object], **options) -> list[object]:
        """Run `work` at all three at once and return results or exceptions, by position."""

        def one(position: int) -> object:
            try:
                mesh, keys = self.open(position, **options)
                with mesh:
                    return work(position, mesh, PartyKeys(keys[(position - 1) % 3], keys[(position + 1) % 3]))
            except Exception as error:  # noqa: BLE001 - the test looks at it
                return error

        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(one, range(3)))

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()
