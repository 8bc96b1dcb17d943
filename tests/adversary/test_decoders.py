"""Every place that reads a form is in the fuzz table, or has a reason not to be; every target of the table is fuzzed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adversary import test_fuzz, test_fuzz_engine, test_fuzz_parties
from tests.support.decoders import FUZZED, NOT_FUZZED, decoders, decoders_of

ROOT = Path(__file__).parents[2]
TARGETS = {
    *test_fuzz.BYTES, *test_fuzz.DOCUMENTS, *test_fuzz.PACKS, *test_fuzz.FILES, *test_fuzz_engine.SMALL, *test_fuzz_engine.RUNS,
    *test_fuzz_parties.TLS, *test_fuzz_parties.SIGNED, *test_fuzz_parties.API, "SFTP session",
}  # fmt: skip


def test_every_decoder_is_fuzzed_or_has_a_reason() -> None:
    found = decoders(ROOT / "mpc_ops", ROOT / "local_stores")
    fuzzed = {place for places in FUZZED.values() for place in places}
    assert not found - fuzzed - set(NOT_FUZZED), "name the target that reaches it in tests/support/decoders.py"
    assert not set(NOT_FUZZED) - found, "what is gone needs no reason"
    assert not fuzzed & set(NOT_FUZZED)


def test_every_target_of_the_table_is_fuzzed() -> None:
    """`fuzz` itself insists that a target's good samples run through its places."""
    assert not set(FUZZED) - TARGETS


@pytest.mark.parametrize(
    "line",
    [
        "return msgspec.json.decode(data, type=X)", "return msgspec.msgpack.decode(data)", "return _decoder.decode(data)",
        "return int.from_bytes(data, 'big')", "return struct.unpack('>I', data)[0]", "return _HEAD.unpack_from(data)",
        "return json.loads(data)", "return base64.b64decode(data)", "return np.frombuffer(data)", "return str(data, 'utf-8')",
        "return data.decode()", "return from_body(data, 3)", "return datetime.strptime(data, '%Y')", "return tomllib.load(data)",
    ],
)  # fmt: skip
def test_a_decoder_that_somebody_adds_is_seen(line: str) -> None:
    assert decoders_of(f"class A:\n    def read(self, data):\n        {line}\n") == {"A.read"}
    assert not decoders_of("def said(data):\n    return base64.b64encode(data).decode('ascii')\n")
