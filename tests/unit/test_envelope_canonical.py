"""Canonical bytes: one value, one digest."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_ops.envelope.canonical import MAX_SAFE_INTEGER, canonical_bytes, parse_canonical
from mpc_ops.errors import ConfigError

_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_values)
def test_round_trip_and_agreement_with_json(value: object) -> None:
    data = canonical_bytes(value)
    assert parse_canonical(data) == value
    assert json.loads(data) == value


def test_names_are_sorted_by_utf16_code_units_as_rfc_8785_section_3_2_3_shows() -> None:
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    assert list(json.loads(canonical_bytes(dict.fromkeys(names, 0)))) == [
        "\r",
        "1",
        "\u0080",
        "\u00f6",
        "\u20ac",
        "\U0001f600",
        "\ufb33",
    ]


def test_control_characters_are_escaped_as_rfc_8785_section_3_2_2_2_says() -> None:
    assert canonical_bytes('\u20ac$\u000f\nA\'B"\\\\"/') == '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'.encode()


@pytest.mark.parametrize("value", [1.0, float("nan"), 2**53, -(2**53), {1: 2}, b"x", object(), "\ud800"])
def test_values_without_a_canonical_form_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="JSON_INVALID"):
        canonical_bytes(value)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"b":1,"a":1}',
        b'{"a": 1}',
        b"1.0",
        b"1e3",
        b"NaN",
        b"-0",
        b"\xff",
        b'"\\u0041"',
        b"",
        b"[" * 100_000,
        b"01",
        b'"\\ud800"',
    ],
)
def test_bytes_that_are_not_canonical_are_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match="JSON_INVALID"):
        parse_canonical(data)


def test_too_long_bytes_are_refused_before_parsing() -> None:
    with pytest.raises(ConfigError, match="too long"):
        parse_canonical(b'"' + b"a" * 100 + b'"', limit_bytes=50)
