"""Bytes that nobody would send on purpose: seeded mutations of good ones, and what a decoder may do with them.

A decoder of a peer's or an owner's bytes may return something or raise a `ComityError`; any other exception, and memory
that does not follow from the length of the bytes, is a bug. Runs are deterministic: the same seed gives the same bytes.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import msgspec
import pyarrow as pa

from mpc_ops.errors import ComityError
from tests.support.decoders import FUZZED

__all__ = ["Crash", "Target", "fuzz", "mutants", "reached"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Target:
    """One decoder.

    Attributes:
        name: unique.
        decode: takes the bytes; what it returns is not looked at.
        samples: good bytes to begin with.
        memory: most bytes that a call may allocate besides 64 times the length of its bytes.
        slow: a call takes long: only mutations of the samples.
    """

    name: str
    decode: Callable[[bytes], object]
    samples: Sequence[bytes]
    memory: int = 16 << 20
    slow: bool = False


class Crash(AssertionError):
    """A decoder raised something else, or took too much memory; the bytes are in `data`."""

    def __init__(self, target: str, what: str, data: bytes) -> None:
        super().__init__(f"{target}: {what} for {data[:200]!r} ({len(data)} bytes)")
        self.data = data


DEEP = 20_000
STRANGE: tuple[bytes, ...] = (
    b"", b"\0", b"\xff" * 64, b"{}", b"[]", b"null", b"NaN", b"-Infinity", b"1e400", b"0.1", b'"\\ud800"', b"\xef\xbb\xbf{}",
    b"9" * 5000, b"[" * DEEP, b'{"a":' * DEEP, b"[" * DEEP + b"]" * DEEP, b'{"a":1,"a":2}', b'"' + b"a" * 100_000 + b'"',
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\x91" * DEEP,
    b"\x81\xa4type" * 2000, b"\x81\xa4type\xa5\xff\xfe\xfd\xfc\xfb", b"\xc1", b"\xca\x7f\xc0\x00\x00", b"\xcf" + b"\xff" * 8,
    b"ARROW1\0\0", b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"PK\x03\x04", b"\x80\x04\x95", b"<?xml version='1.0'?>",
)  # fmt: skip
"""Whole inputs: no bytes, depth, lengths that are not there, numbers that do not fit, other formats."""

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 255, 2**31, 2**53, -(2**53), 2**63 - 1, -(2**63), 0.5, "", "a", "\n", "A" * 300, "../..", "0" * 64,
    "é", "\u202e", "\0", [], {}, [[]], [None] * 50, {"a": 1}, {"type": "x"}, list(range(300)),
)  # fmt: skip
"""Values that stand in the place of another one."""


def _bytes_mutant(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind, size = rng.randrange(9), len(out)
        at, more = rng.randrange(size + 1), rng.randrange(1, 17)
        if kind == 0 and size:
            out[at % size] ^= 1 << rng.randrange(8)
        elif kind == 1 and size:
            out[at % size] = rng.choice((0, 1, 0x7F, 0x80, 0xC1, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del out[at:]
        elif kind == 3:
            del out[at : at + more]
        elif kind == 4:
            out[at:at] = rng.randbytes(more)
        elif kind == 5:
            out[at:at] = out[at : at + 4 * more]
        elif kind == 6:
            other = rng.choice(others)
            cut = rng.randrange(len(other) + 1)
            out[at:] = other[cut:]
        elif kind == 7:
            number = rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, size, 2**63, 2**64 - 1))
            width = rng.choice((2, 4, 8))
            out[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, rng.choice(("big", "little")))
        else:
            out += rng.randbytes(more)
    return bytes(out)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _places(item, (*path, name))
    elif isinstance(value, list):
        for number, item in enumerate(value[:50]):
            yield from _places(item, (*path, number))


def _changed(rng: random.Random, value: Any, path: tuple[Any, ...], binary: bool) -> Any:
    if not path:
        kind = rng.randrange(6)
        if isinstance(value, dict) and kind < 2 and value:
            gone = rng.choice(list(value))
            return {name: item for name, item in value.items() if name != gone}
        if isinstance(value, dict) and kind == 2:
            return {**value, rng.choice(("", "more", "type", "\0", "a" * 1000)): rng.choice(VALUES)}
        if isinstance(value, list) and kind < 3:
            return value * rng.choice((0, 2, 30)) if len(value) < 1000 else []
        if isinstance(value, str | bytes) and kind < 4:
            piece = rng.choice((0, 1, len(value) // 2))
            return rng.choice((value[piece:], value + value[:1], value * 2, value.swapcase(), value[::-1]))
        if isinstance(value, int) and kind < 4:
            return value + rng.choice((-1, 1, 2**31, -(2**40)))
        pool = (*VALUES, b"", bytes(32), bytes(3309)) if binary else VALUES
        return rng.choice(pool)
    head, *rest = path
    out: Any = dict(value) if isinstance(value, dict) else list(value)
    out[head] = _changed(rng, value[head], tuple(rest), binary)
    return out


def _tree_mutant(rng: random.Random, data: bytes) -> bytes | None:
    """Change one value of a JSON or MessagePack document; None if it is neither."""
    try:
        tree, binary = json.loads(data), False
    except (ValueError, RecursionError):
        try:
            tree, binary = msgspec.msgpack.decode(data), True
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
    tree = _changed(rng, tree, rng.choice(list(_places(tree))), binary)
    try:
        if binary:
            return msgspec.msgpack.encode(tree)
        return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (OverflowError, TypeError, UnicodeError, ValueError, RecursionError):
        return None


def mutants(seed: object, samples: Sequence[bytes], *, strange: bool = True) -> Iterator[bytes]:
    """Give bytes for ever: the strange ones first, then changes of the samples."""
    rng = random.Random(repr(seed))
    if strange:
        yield from STRANGE
    while True:
        data = rng.choice(samples)
        changed = _tree_mutant(rng, data) if rng.random() < 0.5 else None
        yield _bytes_mutant(rng, data, samples) if changed is None else changed


def _try(target: Target, data: bytes) -> None:
    try:
        target.decode(data)
    except ComityError:
        pass
    except Exception as error:
        raise Crash(target.name, f"{type(error).__name__}: {error}", data) from error


def _try_measured(target: Target, data: bytes) -> None:
    tracemalloc.start()
    try:
        _try(target, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if peak > target.memory + 64 * len(data):
        raise Crash(target.name, f"{peak >> 20} MiB of memory", data)


def reached(target: Target) -> set[str]:
    """Give a decoder its good samples, which must pass; return what ran of the packages, as tests.support.decoders names it."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    for turn_on in (threading.setprofile, sys.setprofile):
        turn_on(note)
    try:
        for sample in target.samples[: 1 if target.slow else None]:
            target.decode(sample)
    finally:
        for turn_off in (threading.setprofile, sys.setprofile):
            turn_off(None)
    mine = [code for code in seen if code.co_filename.startswith(f"{ROOT}/")]
    names = {code: code.co_qualname.replace(".<locals>", "") for code in mine}
    return {f"{Path(code.co_filename).relative_to(ROOT).as_posix()}:{name}" for code, name in names.items()}


def fuzz(target: Target, *, runs: int, seconds: float | None = None, seed: object = 0) -> int:
    """Give a decoder strange bytes; return how many. Every good sample must pass first, through what is said to be fuzzed.

    Args:
        target: the decoder.
        runs: how many, if no time is given.
        seconds: how long instead.
        seed: which bytes.

    Raises:
        Crash: with the bytes.
    """
    ran = reached(target)
    missed = set(FUZZED.get(target.name, ())) - ran
    assert not missed, f"{target.name} does not reach {missed}"
    end = None if seconds is None else time.monotonic() + seconds
    pool = pa.default_memory_pool()
    done = 0
    for done, data in enumerate(mutants((target.name, seed), target.samples, strange=not target.slow), start=1):
        held = pool.bytes_allocated()
        (_try_measured if (done <= len(STRANGE) or done % 16 == 0) and not target.slow else _try)(target, data)
        if pool.bytes_allocated() > held + target.memory:
            raise Crash(target.name, "Arrow keeps memory", data)
        if done >= runs if end is None else time.monotonic() >= end:
            break
    return done
