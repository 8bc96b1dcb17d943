"""The page for reviewers: one self-contained HTML file made from `facts.json` alone. No script, no outside resource."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import DictLoader, Environment, StrictUndefined

from mpc_ops.evidence.facts import Fact, Facts

__all__ = ["render_page"]

_TEMPLATE = "evidence.html.j2"


def _tag(fact: Fact) -> tuple[str, str]:
    """Return (style, word) of a fact's state: sign and word, so that colour is never alone."""
    if fact.outcome == "failed":
        return "failed", "✕ FAILED"
    if fact.outcome == "passed":
        return "passed", f"✓ {fact.state}"
    return {"measured": ("measured", "● measured"), "declared": ("declared", "◇ declared"), "open": ("open", "○ OPEN")}[
        fact.state
    ]


def render_page(facts: Facts) -> bytes:
    """Return the page as UTF-8 HTML: the same bytes for the same facts and software version.

    Every text is escaped; the page holds four printed pages (decision, flows, reach and metadata, change since last
    month) and a register of all facts.
    """
    text = (files("mpc_ops.evidence") / "templates" / _TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(
        loader=DictLoader({_TEMPLATE: text}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    by_key = {fact.key: fact for fact in facts.facts}
    page = environment.get_template(_TEMPLATE).render(doc=facts, key=by_key, tag=_tag, section=facts.section)
    return page.encode("utf-8")
