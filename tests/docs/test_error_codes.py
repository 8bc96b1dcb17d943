"""docs/errors.md and the sources name the same codes, classes and exit codes."""

from __future__ import annotations

import pytest

from mpc_ops import errors
from mpc_ops.errors import EXIT_CODES, ComityError
from tests.support.docs import docs_script

COMMAND = "run `python infra/docs/error_rows.py` and copy its rows into docs/errors.md"
rows = docs_script("error_rows")
PAGE = rows.PAGE.read_text()


def test_every_code_of_the_sources_is_documented_and_no_other() -> None:
    missing, gone = rows.missing_rows(PAGE)
    assert not missing, f"docs/errors.md lacks codes; {COMMAND}:\n" + "\n".join(missing)
    assert not gone, f"nothing raises these codes any more; remove them from docs/errors.md: {', '.join(gone)}"


def test_classes_and_exit_codes_are_current() -> None:
    assert rows.written(PAGE) == PAGE, "run `python infra/docs/error_rows.py --write`"


def test_no_code_stands_twice_and_every_row_says_what_to_do() -> None:
    found = rows.read_rows(PAGE)
    codes = [row[0] for row in found]
    assert len(codes) == len(set(codes))
    for code, classes, meaning, action in found:
        assert "?" not in {classes, meaning, action}, code
        assert len(meaning) > 10, code
        assert action.endswith("."), code


def test_every_row_of_the_page_is_read() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(lines) == len(rows.read_rows(PAGE)) > 250


def test_the_collector_finds_codes_in_every_form_they_are_given() -> None:
    found = rows.collect()
    assert found["NAME_INVALID"].classes == {"ConfigError"}  # an error class
    assert found["APPROVAL_MISSING"].classes == {"PolicyViolation"}  # a helper that builds the error
    assert found["NULL_NOT_ALLOWED"].classes == {"LocalDataError"}  # a table that a loop goes over
    assert found["PORT_UNREACHABLE"].places == {"mpc_ops/server/doctor.py"}  # a field `code`
    assert found["REGION_FAILED"].places == {"mpc_ops/server/runs.py"}  # put together


@pytest.mark.parametrize("name", sorted(errors.__all__))
def test_every_class_has_a_documented_exit_code(name: str) -> None:
    kind = getattr(errors, name)
    if name == "EXIT_CODES":
        assert sorted(EXIT_CODES) == list(range(14))
        return
    assert issubclass(kind, ComityError)
    assert kind.exit_code in EXIT_CODES
    assert f"| {kind.exit_code} | {EXIT_CODES[kind.exit_code]} |" in PAGE
    assert kind.__doc__


def test_an_error_says_code_what_and_what_to_do_on_one_line() -> None:
    error = errors.ConfigError("SOME_CODE", "it broke", expected=1, got=2, ids={"party": "de-1"}, hint="Mend it")
    assert str(error) == "SOME_CODE: it broke; expected 1; got 2 [party=de-1]. Mend it"
    assert error.as_dict() == {
        "code": "SOME_CODE", "what": "it broke", "ids": {"party": "de-1"}, "expected": "1", "got": "2", "hint": "Mend it",
    }  # fmt: skip
    assert (errors.NotYet.transient, errors.ConfigError.transient) == (True, False)
