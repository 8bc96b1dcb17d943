"""What goes wrong on purpose: expected refusals, withdrawals, and parts that were changed after they were sealed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from mpc_ops.envelope.canonical import sha256_hex
from mpc_ops.errors import ComityError
from mpc_ops.notices.model import Filed, Part, Withdrawal
from mpc_ops.notices.signed import SignedNotice, sign_notice, utc_text
from tests.support.operators import Desk, Sealed
from tests.support.whole import Report, Whole

__all__ = ["changed", "now_text", "refused", "says", "with_part", "withdrawal"]


def now_text() -> str:
    return utc_text(datetime.now(tz=UTC))


def says(error: ComityError, code: str, *names: str) -> None:
    """Check the exact code of an error, and that its message names the parties (`a|b`: one of the two forms)."""
    assert error.code == code, str(error)
    for name in names:
        assert any(form in str(error) for form in name.split("|")), str(error)


@contextmanager
def refused(kind: type[ComityError], code: str, *names: str, transient: bool = False) -> Iterator[None]:
    """Expect a refusal of a class, with a code, naming parties; terminal unless said otherwise."""
    with pytest.raises(kind) as caught:
        yield
    says(caught.value, code, *names)
    assert caught.value.transient is transient


def changed(notice: Any, **changes: Any) -> Any:
    """Return a copy of a notice with other members."""
    return type(notice)(**({name: getattr(notice, name) for name in notice.__struct_fields__} | changes))


def withdrawal(whole: Whole, report: Report, owner: str) -> SignedNotice:
    """Return an owner's withdrawal, signed by its approver."""
    notice = Withdrawal(plan=report.plan.digest, owner=owner, created_at=now_text(), reason="no longer agreed")
    return sign_notice(notice, whole.made.approver(owner))


def with_part(desk: Desk, sealed: Sealed, operator: str, box: bytes) -> Sealed:
    """Return the filing with another sealed part for one operator, named in a notice that its owner signs."""
    filed = sealed.filed.expect(Filed)
    parts = [
        Part(operator=operator, sha256=sha256_hex(box), size=len(box)) if part.operator == operator else part
        for part in filed.parts
    ]
    return Sealed(desk.sign(changed(filed, parts=parts)), {**sealed.parts, operator: box}, sealed.values)
