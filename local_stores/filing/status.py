"""What an owner sees of its own filings: lines for the command line, from what lies here."""

from __future__ import annotations

from collections.abc import Iterator

from local_stores.config import Site
from local_stores.delivery.answers import receipts_of, was_refused
from local_stores.delivery.sealing import latest_take
from local_stores.errors import ComityError
from local_stores.filing.readiness import Who, closing_manifest, require_approval, who
from local_stores.filing.releases import list_releases
from local_stores.snapshot.page import contribution_rows
from local_stores.snapshot.record import Contribution

__all__ = ["contribution_text", "status_lines"]


def status_lines(site: Site, owner: str) -> Iterator[str]:
    """Yield one line for the owner, one for each report, one for each of its periods."""
    home = site.owner(owner)
    yield f"{owner} at site {site.id}; stores: {', '.join(sorted(home.stores)) or 'none'}"
    releases = {info.report: info for info in list_releases(site)}
    if not releases:
        yield "no release is imported here"
    for report, info in sorted(releases.items()):
        yield f"{report}: {info.title}, release {info.digest[:16]}"
        for row in info.calendar:
            yield f"  {row.key}: {_period(site, owner, report, row.key)}"


def _period(site: Site, owner: str, report: str, period: str) -> str:
    try:
        one = who(site, owner, report, period)
        take = latest_take(site.state, one.of)
        if take is None:
            approval = require_approval(one)
            return f"not filed; edition {one.edition}, due {one.row.due_at}, approved until {approval.valid_to}"
        words = f"filing {take.filing[:16]}, take {take.filed.take} of edition {one.edition}"
        if was_refused(one.mirror, take):
            return f"{words}: refused"
        manifest = closing_manifest(one)
        if manifest is not None:
            return f"{words}: submission closed"
        return f"{words}: {len(receipts_of(one.mirror, take, one.operators))} of 3 receipts"
    except ComityError as error:
        return str(error)


def contribution_text(one: Who, record: Contribution) -> str:
    """Return the owner's own figures as a text table."""
    heads, rows = contribution_rows(one.info.plan, record)
    table = [["", *heads], *([label, *numbers] for label, numbers in rows)]
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]
    return "\n".join(line.rstrip() for line in lines)
