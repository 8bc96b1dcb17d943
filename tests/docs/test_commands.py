"""Every command is documented, every documented command exists, and wrong usage is one sentence with exit code 2."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from mpc_ops.cli import build_app, run
from tests.support.docs import ROOT, fenced, in_backticks, pages

PAGES = pages()


@pytest.fixture(autouse=True)
def no_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMITY_SITE", raising=False)


@cache
def commands() -> dict[tuple[str, ...], Any]:
    """Return all commands by their words after `comity`."""
    app, missing = build_app()
    assert missing == []

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        children = getattr(command, "commands", None)
        if children is None:
            yield words, command
            return
        for name, child in children.items():
            yield from walk(child, (*words, name))

    return dict(walk(typer.main.get_command(app), ()))


def groups() -> set[str]:
    return {words[0] for words in commands() if len(words) > 1}


def documented() -> Iterator[tuple[str, list[str]]]:
    """Yield (page, words) of every command line in the pages: in fences and between backticks."""
    for page, text in PAGES.items():
        lines = [line for language in ("sh", "text") for block in fenced(text, language)
                 for line in block.replace("\\\n", " ").splitlines()]  # fmt: skip
        lines += in_backticks(text)
        for line in lines:
            for found in re.finditer(
                r"(?:^|[;|&(]\s*|\bdo\s+|\bstart \S+ |^make \S+ && )(comity(?: [^;|&#)]*)?)(?=[;|&#)]|$)", line
            ):
                words = shlex.split(re.sub(r"\$\([^)]*\)|\$\w+|[<>].*$", "x", found[1]), posix=True)
                yield page, words[1:]


def lookup(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    head = tuple(words[:2]) if words and words[0] in groups() else tuple(words[:1])
    return head, words[len(head) :]


DOCUMENTED = list(documented())
ALL = sorted(commands())


def test_documentation_shows_many_commands() -> None:
    assert len(DOCUMENTED) > 60


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_has_help_and_is_documented(words: tuple[str, ...]) -> None:
    command = commands()[words]
    assert (command.help or "").strip().endswith(".")
    for parameter in command.params:
        if parameter.name != "help":
            assert (getattr(parameter, "help", None) or "").strip(), f"{' '.join(words)}: {parameter.name} has no help"
    assert any(lookup(shown)[0] == words for _, shown in DOCUMENTED), f"no page shows `comity {' '.join(words)}`"


@pytest.mark.parametrize(
    ("page", "words"), DOCUMENTED, ids=[f"{page}: {' '.join(words)[:60]}" for page, words in DOCUMENTED]
)
def test_every_documented_command_and_option_exists(page: str, words: list[str]) -> None:
    if not words or words[0].startswith("-"):
        assert words in ([], ["--version"], ["--help"])
        return
    if words[0] in groups() and (len(words) == 1 or words[1] in {"...", "…", "--help"}):
        return
    if words[0] in groups() and "|" in " ".join(words):
        return
    head, rest = lookup(words)
    assert head in commands(), f"{page} shows `comity {' '.join(words)}`"
    options = {
        option for parameter in commands()[head].params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for word in rest:
        if word.startswith("--"):
            assert word.partition("=")[0] in {*options, "--help"}, f"{page}: `comity {' '.join(head)}` has no {word}"


def fails_with_a_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    code = run(arguments)
    said = capsys.readouterr()
    assert code == 2, (arguments, said)
    assert "Traceback" not in said.err + said.out
    assert len(said.err.strip().splitlines()) <= 1
    return said.err


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_an_unknown_option_is_a_sentence(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    said = fails_with_a_sentence([*words, "--no-such-option"], capsys)
    assert said.startswith("USAGE: ")
    assert "--no-such-option" in said or "Missing" in said


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_missing_arguments_are_named(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    if any(parameter.required for parameter in commands()[words].params):
        said = fails_with_a_sentence(list(words), capsys)
        assert re.match(r"USAGE: Missing (argument|option|parameter)", said), said
        assert f"See `comity {' '.join(words)} --help`" in said


@pytest.mark.parametrize(
    "arguments",
    [["no-such-command"], ["federation", "no-such"], ["--no-such-option"], ["evidence", "verify", "a", "b"]],
)
def test_wrong_words_are_a_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert fails_with_a_sentence(arguments, capsys).startswith("USAGE: ")


@pytest.mark.parametrize(
    "arguments", [[], ["federation"], ["operator"], ["report"], ["evidence"], ["owner"], ["group"]]
)
def test_a_group_alone_prints_its_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert "Usage: comity" in said.out + said.err


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["federation", "check", "{tmp}/nowhere"], "FILE_MISSING", 3),
        (["federation", "keys", "king", "x", "--home", "{tmp}/x"], "USAGE", 2),
        (["federation", "keys", "operator", "de_", "--home", "{tmp}/x", "--jurisdiction", "DE"], "NAME_INVALID", 3),
        (["operator", "run", "--home", "{tmp}"], "FILE_MISSING", 3),
        (["evidence", "verify", "{tmp}"], "EVIDENCE_REFUSED", 12),
        (["report", "calendar", "2026-13", "2026-14", "--out", "{tmp}/c.toml"], "USAGE", 2),
        (["file", "r", "2026-01"], "USAGE", 2),
        (["file", "r", "2026-01", "--owner-home", "{tmp}"], "FILE_MISSING", 3),
        (["group", "status", "r", "2026-01"], "SITE_NOT_SET", 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_world_is_a_sentence_with_its_exit_code(
    arguments: list[str], code: str, exit_code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([argument.replace("{tmp}", str(tmp_path)) for argument in arguments]) == exit_code
    said = capsys.readouterr()
    assert code in said.err + said.out
    assert "Traceback" not in said.err + said.out


def test_every_make_target_in_the_pages_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*?##", (ROOT / "Makefile").read_text(), re.MULTILINE)) | {"clean"}
    lines = [line for text in PAGES.values() for block in fenced(text, "sh") for line in block.splitlines()]
    lines += [words for text in PAGES.values() for words in in_backticks(text)]
    shown = {found[1] for line in lines if (found := re.match(r"(?:[A-Z]+=1 )?make ([a-z]+)", line))}
    assert {"demo", "test", "up", "setup"} <= shown
    assert shown <= targets
