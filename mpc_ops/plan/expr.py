"""Scalar expressions of a plan: a small typed tree that both the local plan and the checks read."""

from __future__ import annotations

from typing import Annotated, Literal, Union

from msgspec import Meta

from mpc_ops.envelope.schema import Model

__all__ = ["Binary", "Case", "Column", "Expr", "InList", "IsNull", "Literal_", "Logic", "Not"]

Short = Annotated[str, Meta(max_length=200)]


class Column(Model, frozen=True, kw_only=True, tag="column", tag_field="t"):
    """A column of the scanned dataset."""

    name: Short


class Literal_(Model, frozen=True, kw_only=True, tag="literal", tag_field="t"):  # noqa: N801 - `Literal` is typing's
    """A constant: `value` is text; numbers in plain decimal notation, dates as YYYY-MM-DD."""

    type: Literal["int64", "decimal", "string", "date", "boolean"]
    value: Short


class Binary(Model, frozen=True, kw_only=True, tag="binary", tag_field="t"):
    """Arithmetic (`+ - *`) or comparison (`= <> < <= > >=`)."""

    op: Literal["+", "-", "*", "=", "<>", "<", "<=", ">", ">="]
    left: Expr
    right: Expr


class Logic(Model, frozen=True, kw_only=True, tag="logic", tag_field="t"):
    """`and` or `or` of two or more conditions."""

    op: Literal["and", "or"]
    args: Annotated[list[Expr], Meta(min_length=2, max_length=50)]


class Not(Model, frozen=True, kw_only=True, tag="not", tag_field="t"):
    """Negation of a condition."""

    arg: Expr


class InList(Model, frozen=True, kw_only=True, tag="in", tag_field="t"):
    """Membership in a closed list of literals."""

    arg: Expr
    values: Annotated[list[Literal_], Meta(min_length=1, max_length=200)]


class IsNull(Model, frozen=True, kw_only=True, tag="is_null", tag_field="t"):
    """NULL test."""

    arg: Expr


class Case(Model, frozen=True, kw_only=True, tag="case", tag_field="t"):
    """CASE WHEN condition THEN value ELSE otherwise END."""

    condition: Expr
    then: Expr
    otherwise: Expr


Expr = Union[Column, Literal_, Binary, Logic, Not, InList, IsNull, Case]  # noqa: UP007 - a forward reference needs it
