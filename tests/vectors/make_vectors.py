"""Write the test vectors of the computational core and of the protocols, or check that they are current.

    .venv/bin/python tests/vectors/make_vectors.py            # write
    .venv/bin/python tests/vectors/make_vectors.py --check    # exit 1 if a file differs

Every vector has explicit seeds. A changed vector means that operators of two versions no longer understand each other.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from mpc_ops.protocol.sums import (  # noqa: E402 - the path above makes the script runnable from anywhere
    CrossRoute,
    ResultContext,
    Share,
    build_crossing,
    build_result,
    combine_parts,
    open_crossing,
)
from mpc_ops.randomness import SessionContext, derive, encode_context, expand, session_digest  # noqa: E402
from mpc_ops.ring import encode_signed, to_bytes  # noqa: E402
from mpc_ops.sharing import FilingContext, held_by, share, sharing_commitments  # noqa: E402
from tests.vectors.engine_vectors import engine  # noqa: E402
from tests.vectors.unit_vectors import units  # noqa: E402

RUN = "11" * 32
PLAN = "22" * 32
VALUES = [0, 1, -1, 2**62, -(2**62), 123456789, -987654321]
FILING = FilingContext(plan_digest=PLAN, period="2026-10", owner="de1", edition=1, take=1)
ROUTE = CrossRoute(
    run_id=RUN, source="de", target="group", crossing="cross", lanes=len(VALUES),
    senders=("de-1", "de-2", "de-3"), receivers=("nl-1", "ch-1", "sg-1"),
)  # fmt: skip
RESULT = ResultContext(
    run_id=RUN, cluster="group", recipient="group-reporting", attempt=1, lanes=len(VALUES), members=ROUTE.receivers
)


def counted() -> Callable[[int], bytes]:
    """A source of "random" bytes for vectors: SHA-256 of a counter."""

    def numbers() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    source = numbers()
    return lambda size: hashlib.sha256(b"vector" + bytes([next(source)])).digest()[:size]


def pair_key(purpose: str, component: int) -> bytes:
    return hashlib.sha256(f"pair key {purpose} {component}".encode()).digest()


def contexts() -> list[dict[str, Any]]:
    cases: list[tuple[Any, ...]] = [(), ("",), ("a", "b"), ("ab",), ("1",), (1,), (-5,), (b"a",), ("ü", 2**70)]
    return [
        {
            "items": [{type(item).__name__: item.hex() if isinstance(item, bytes) else str(item)} for item in items],
            "encoded": encode_context(*items).hex(),
        }
        for items in cases
    ]


def streams() -> dict[str, Any]:
    seed = bytes(range(32))
    return {
        "derive": [
            {"key": seed.hex(), "context": context, "output": derive(seed, *context).hex()}
            for context in ([], ["a"], ["a", 1], ["prg"], ["expand", "component"])
        ],
        "expand": [
            {"seed": seed.hex(), "context": context, "lanes": lanes, "output": to_bytes(expand(seed, lanes, *context)).hex()}
            for context, lanes in ([["component"], 1], [["component"], 5], [["sub-share"], 4], [[], 3])
        ],
        "sid": session_digest(
            SessionContext(
                federation_digest="33" * 32, cluster="de", plan_digest=PLAN, period="2026-10", manifest_digest="44" * 32,
                attempt=2, protocol="comity/active/v1", security="active", limit_bytes=1 << 24, operator_keys=(b"key 0", b"key 1", b"key 2"), nonces=(bytes(32), b"\1" * 32, b"\2" * 32),
            )
        ).hex(),
    }  # fmt: skip


def sharing() -> dict[str, Any]:
    made = share(encode_signed(VALUES, -(2**62), 2**62), counted())
    return {
        "values": [str(value) for value in VALUES],
        "seeds": [part.body().hex() for part in made.components[:2]],
        "salts": [salt.hex() for salt in made.salts],
        "explicit": made.components[2].body().hex(),
        "filing": {"plan": PLAN, "period": "2026-10", "owner": "de1", "edition": 1, "take": 1},
        "commitments": list(sharing_commitments(made, FILING)),
    }


def _shares() -> list[Share]:
    made = share(encode_signed(VALUES, -(2**62), 2**62), counted())
    vectors = [part.expand(len(VALUES)).copy() for part in made.components]
    return [Share(party, vectors[held_by(party)[0]], vectors[held_by(party)[1]]) for party in range(3)]


def crossing() -> dict[str, Any]:
    shares = _shares()
    frames = [
        build_crossing(one, (pair_key("prg", one.party), pair_key("prg", (one.party + 1) % 3)), ROUTE, 1)
        for one in shares
    ]
    received = [
        open_crossing({sender: frames[sender][receiver] for sender in range(3)}, ROUTE, receiver)
        for receiver in range(3)
    ]
    return {
        "keys": [pair_key("prg", component).hex() for component in range(3)],
        "frames": [[frame.hex() for frame in sent] for sent in frames],
        "components": [to_bytes(received[party].first).hex() for party in range(3)],
        "bad_frames": [
            {
                "what": "sub-share altered",
                "sender": 0,
                "receiver": 1,
                "byte": 48,
                "code": "CROSS_MISMATCH",
                "pair": "de-1,de-3",
            },
            {
                "what": "check altered",
                "sender": 2,
                "receiver": 0,
                "byte": 143,
                "code": "CROSS_MISMATCH",
                "pair": "de-1,de-3",
            },
            {
                "what": "attempt altered",
                "sender": 1,
                "receiver": 2,
                "byte": 7,
                "code": "CROSS_INVALID",
                "party": "de-2",
            },
        ],
    }


def result() -> dict[str, Any]:
    made = [
        build_result(one, (pair_key("commit", one.party), pair_key("commit", (one.party + 1) % 3)), RESULT)
        for one in _shares()
    ]
    combined = combine_parts(
        RESULT,
        {party: part for party, (_, part) in enumerate(made)},
        {party: said for party, (said, _) in enumerate(made)},
    )
    assert np.array_equal(combined, encode_signed(VALUES, -(2**62), 2**62))
    return {
        "keys": [pair_key("commit", component).hex() for component in range(3)],
        "commitments": [list(said) for said, _ in made],
        "parts": [part.hex() for _, part in made],
        "bad_parts": [
            {"what": "component altered", "party": 0, "byte": 108, "code": "RESULT_MISMATCH", "pair": "nl-1,sg-1"},
            {"what": "salt altered", "party": 1, "byte": 44, "code": "RESULT_MISMATCH", "pair": "ch-1,nl-1"},
            {"what": "context altered", "party": 2, "byte": 20, "code": "RESULT_INVALID"},
        ],
    }


def files() -> dict[str, str]:
    """Return the text of every vector file by name."""
    makers: dict[str, Callable[[], Any]] = {
        "contexts": contexts, "streams": streams, "sharing": sharing, "crossing": crossing, "result": result,
        "units": lambda: units(FILING, counted()),
    }  # fmt: skip
    core = {f"core_{name}": (name, make()) for name, make in makers.items()}
    protocols = {name: (name, data) for name, data in engine().items()}
    return {
        f"{file}.json": json.dumps(
            {"schema": f"comity/vectors/{name}", "version": 2 if file in protocols else 1, "data": data},
            indent=1,
            ensure_ascii=False,
        )
        + "\n"
        for file, (name, data) in {**core, **protocols}.items()
    }


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        print("usage: make_vectors.py [--check]")
        return 2
    different = []
    for name, text in files().items():
        path = HERE / name
        if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            different.append(name)
        elif not check:
            path.write_text(text, encoding="utf-8")
    if different:
        print("not current:", ", ".join(different), "- refresh with .venv/bin/python tests/vectors/make_vectors.py")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
