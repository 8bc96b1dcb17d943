"""Pages say what is true: paths exist, links lead somewhere, generated tables are current, examples parse."""

from __future__ import annotations

import re
import tomllib

import pytest

from mpc_ops.federation.model import PayloadClass
from mpc_ops.notices.model import NOTICE_KINDS
from tests.support.docs import ROOT, docs_script, fenced, in_backticks, pages

PAGES = pages()
_TOP = ("mpc_ops", "local_stores", "dags", "infra", "tests", "docs")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", sorted(PAGES))
def test_paths_in_backticks_exist(page: str) -> None:
    missing = []
    for text in in_backticks(PAGES[page]):
        path = text.split("::")[0].rstrip("/")
        if path.split("/")[0] in _TOP and re.fullmatch(r"[\w./@-]+", path) and not (ROOT / path).exists():
            # A module or package named with dots, `mpc_ops.plan.rules`.
            dotted = ROOT / path.replace(".", "/")
            if not (dotted.exists() or dotted.with_suffix(".py").exists() or dotted.parent.with_suffix(".py").exists()):
                missing.append(text)
    assert not missing, f"{page} names what is not there: {', '.join(missing)}"


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_to_files(page: str) -> None:
    folder = (ROOT / page).parent
    for target in _LINK.findall(PAGES[page]):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (folder / target).exists(), f"{page} links to {target}"


@pytest.mark.parametrize("page", sorted(PAGES))
def test_toml_examples_parse(page: str) -> None:
    for block in fenced(PAGES[page], "toml"):
        tomllib.loads(block)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_pages_are_read_in_plain_words(page: str) -> None:
    text = PAGES[page]
    assert text.startswith(("# ", "**Before you start**"))
    assert "TODO" not in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 200


def test_state_tables_are_current() -> None:
    tables = docs_script("state_tables")
    text = tables.PAGE.read_text()
    assert text.count("<!-- machine: ") == 3
    assert tables.written(text) == text, "run `python infra/docs/state_tables.py`"


def test_the_tour_names_every_package() -> None:
    tour = PAGES["docs/tour.md"]
    for package in ("mpc_ops", "local_stores"):
        for folder in sorted(path.parent for path in (ROOT / package).glob("*/__init__.py")):
            assert folder.name in tour, f"docs/tour.md does not mention {folder.name}"


def test_every_page_is_reachable_from_the_readme() -> None:
    seen, todo = set(), ["README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page not in PAGES:
            continue
        seen.add(page)
        folder = (ROOT / page).parent
        todo += [str((folder / target).resolve().relative_to(ROOT)) for target in _LINK.findall(PAGES[page])
                 if not target.startswith("http")]  # fmt: skip
    assert seen == set(PAGES), f"not linked: {sorted(set(PAGES) - seen)}"


def test_every_notice_and_payload_class_is_in_the_glossary() -> None:
    glossary = PAGES["docs/glossary.md"]
    for word in (*NOTICE_KINDS, *PayloadClass):
        assert f"`{word}`" in glossary, f"docs/glossary.md does not explain {word}"
