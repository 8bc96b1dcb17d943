"""What `make demo` prints: steps with progress, the report, what crossed each border, who could learn what, the verdict.

Takes plain values and tables that exist anyway (`summary.json`, `ReportTable`), computes nothing that is published, and
prints to any terminal: without a terminal (CI, a pipe) lines come out one after another, without control codes.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from local_stores.publish.derive import YearToDate, figures, footing, percent
from local_stores.publish.model import Measure, ReportTable, Row
from local_stores.publish.text import exact_text, percent_text, period_label, scaled_text
from local_stores.publish.view import line_label, prior_label, unit_of
from mpc_ops.evidence.reconcile import CONTROL_CLASSES, RECORD_CLASSES
from mpc_ops.evidence.words import CLASS_WORDS
from mpc_ops.federation.model import PayloadClass

__all__ = ["DemoConsole"]

_PLAIN_WIDTH = 118
_SHARED = frozenset({PayloadClass.AGGREGATE_SHARE, PayloadClass.RELEASED_AGGREGATE})


class DemoConsole:
    """Prints the demo. One per process.

    Args:
        console: where to print; by default the standard output, at least 118 columns wide where that is no terminal.

    Attributes:
        seconds: wall-clock seconds by step, in order, for `summary.json`.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or _default_console()
        self.seconds: dict[str, float] = {}
        self._done: dict[tuple[str, str], set[str]] = {}

    @contextmanager
    def step(self, name: str, text: str) -> Iterator[None]:
        """Print a step of the path, run the block, print how long it took (or that it failed)."""
        started = time.monotonic()
        if not self.console.is_terminal:
            self.console.print(Text(f"  \u00b7 {text} ..."))
        try:
            with self.console.status(Text(text)):
                yield
        except BaseException:
            self.console.print(Text(f"  \u2717 {text}", style="bold red"))
            raise
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 2)
        self.console.print(
            Text.assemble(("  \u2713 ", "green"), text, (f"  {time.monotonic() - started:.1f} s", "dim"))
        )

    def heading(self, text: str) -> None:
        """Print a heading with a rule."""
        self.console.print()
        self.console.rule(Text(text, style="bold"), align="left", characters="\u2500")

    def say(self, text: str) -> None:
        """Print one line of plain text; brackets in it are no markup."""
        self.console.print(Text(text))

    def report(self, table: ReportTable, year: YearToDate | None, *, leaves: bool = True) -> None:
        """Print the group report: per line the month, changes and the year to date; totals and not-allocated lines.

        Args:
            table: the published table.
            year: the year to date, if any.
            leaves: print every line; False prints totals and the top's not-allocated line only.
        """
        unit, unit_label = unit_of(table)
        shown = Table(
            title=f"{table.title}, {period_label(table.period)}, {unit_label}",
            title_justify="left",
            title_style="bold",
            box=None,
            pad_edge=False,
        )
        shown.add_column(" /\n".join(table.dimension_labels) or "Line", no_wrap=True, vertical="bottom")
        for title in (title for base in table.bases for title, _ in _cells(table, table.rows[-1], base, year, unit)):
            shown.add_column(title, justify="right", min_width=max(map(len, title.split())), vertical="bottom")
        group = ""
        for row in table.rows:
            if not leaves and (row.level == "leaf" or (row.level == "not_allocated" and row.labels)):
                continue
            if leaves and row.level == "leaf" and row.labels[:-1] and row.labels[0] != group:
                group = row.labels[0]
                shown.add_row(Text(group, style="bold"))
            style = {"subtotal": "bold", "total": "bold", "not_allocated": "dim italic"}.get(row.level, "")
            label = Text(
                ("  " if leaves and row.level in {"leaf", "not_allocated"} and row.labels else "") + line_label(row)
            )
            cells = [Text(text) for base in table.bases for _, text in _cells(table, row, base, year, unit)]
            shown.add_row(label, *cells, style=style, end_section=row.level in {"subtotal", "total"})
        self.console.print(shown)
        found = footing(table)
        foots = f"Totals foot: {found.checked - found.failed} of {found.checked} sums." if found.checked else ""
        counted = [base.label for base in table.bases if not base.foots]
        note = f" {', '.join(counted)}: counted anew at every level, do not add up." if counted else ""
        self.say(f"{foots}{note}")

    def progress(self, period: str, task: str, text: str, who: str, expected: Collection[str]) -> None:
        """Count one party's finished step; print the step once all `expected` parties have finished it.

        Args:
            period: month.
            task: name of the step.
            text: what is done, in words that fit every party.
            who: the party that has finished it.
            expected: every party that takes this step.
        """
        done = self._done.setdefault((period, task), set())
        if who in done:
            return
        done.add(who)
        if done >= set(expected):
            names = next(iter(expected)) if len(expected) == 1 else f"{len(expected)} of {len(expected)} entities"
            self.console.print(Text.assemble(("  \u2713 ", "green"), f"{period}  {names:<17}  {text}"))

    def flows(self, flows: Sequence[Mapping[str, object]]) -> None:
        """Print what crossed each border: data pair by pair, what is needed beside it in total, then what stayed home.

        Args:
            flows: `{from, to, payload_class, bytes, messages}` with jurisdiction codes, as in `summary.json`.
        """
        shown = Table(box=None, pad_edge=False, show_edge=False)
        for title in ("From", "To", "Class", "What it is"):
            shown.add_column(title, no_wrap=True)
        for title in ("Messages", "Bytes"):
            shown.add_column(title, justify="right", no_wrap=True)
        crossing = [flow for flow in flows if flow["from"] != flow["to"]]
        data = [flow for flow in crossing if str(flow["payload_class"]) not in CONTROL_CLASSES]
        for flow in sorted(data, key=lambda flow: (str(flow["payload_class"]), str(flow["from"]), str(flow["to"]))):
            _flow_row(shown, str(flow["from"]), str(flow["to"]), [flow])
        beside = [flow for flow in crossing if str(flow["payload_class"]) in CONTROL_CLASSES]
        for kind in sorted({str(flow["payload_class"]) for flow in beside}):
            _flow_row(shown, "all", "all", [flow for flow in beside if flow["payload_class"] == kind])
        home = [flow for flow in flows if flow["from"] == flow["to"]]
        for kind in sorted({str(flow["payload_class"]) for flow in home}):
            same = [flow for flow in home if flow["payload_class"] == kind]
            _flow_row(
                shown, "at home", f"{len(same)} countries" if len(same) > 1 else str(same[0]["to"]), same, style="dim"
            )
        self.console.print(shown)
        records = [flow for flow in crossing if str(flow["payload_class"]) in RECORD_CLASSES]
        shares = sum(_sum([flow], "bytes") for flow in data if str(flow["payload_class"]) in _SHARED)
        self.say(
            f"{_sum(crossing, 'bytes'):,} bytes crossed a border, {shares:,} of them secret shares; "
            f"record-level classes among them: {len(records) or 'none recorded'}."
        )

    def pairs(self, rows: Sequence[tuple[str, str]]) -> None:
        """Print (name, text) pairs in two columns: what each party could learn, where the files are."""
        shown = Table(box=None, show_header=False, pad_edge=False)
        shown.add_column(style="bold", no_wrap=True)
        shown.add_column(overflow="fold")
        for name, text in rows:
            shown.add_row(Text(name), Text(text))
        self.console.print(shown)

    def verdict(self, passed: bool, text: str) -> None:  # noqa: FBT001 - a verdict is one word
        """Print a check's outcome."""
        mark, style = ("\u2713", "bold green") if passed else ("\u2717", "bold red")
        self.console.print(Text(f"{mark} {text}", style=style))

    def files(self, paths: Sequence[Path], root: Path) -> None:
        """Print paths below `root`, as one would type them."""
        for path in paths:
            self.say(f"  {path.relative_to(root) if path.is_relative_to(root) else path}")


def _sum(flows: Sequence[Mapping[str, object]], name: str) -> int:
    return sum(int(str(flow[name])) for flow in flows)


def _flow_row(
    shown: Table, origin: str, target: str, flows: Sequence[Mapping[str, object]], *, style: str = ""
) -> None:
    kind = str(flows[0]["payload_class"])
    texts = (
        origin,
        target,
        kind,
        CLASS_WORDS.get(kind, ""),
        f"{_sum(flows, 'messages'):,}",
        f"{_sum(flows, 'bytes'):,}",
    )
    shown.add_row(*map(Text, texts), style="bold red" if kind in RECORD_CLASSES and origin != "at home" else style)


def _default_console() -> Console:
    # Tables need this much; a narrower terminal wraps lines, which is better than a figure that is cut off.
    return Console(highlight=False, soft_wrap=False, width=max(Console().width, _PLAIN_WIDTH))


def _cells(table: ReportTable, row: Row, base: Measure, year: YearToDate | None, unit: int) -> list[tuple[str, str]]:
    """Return (title, text) of one measure: fewer columns than the page, so that a terminal holds them."""
    own = figures(table, row, base, year)
    if base.kind == "count":
        return [(base.label, exact_text(own.month, base.scale))]
    cells = [(base.label, scaled_text(own.month, base.scale, unit))]
    if base.percent_of:
        whole = table.value(row, base.percent_of)
        return [*cells, (f"{base.label} %", _share(own.month, whole))]
    if own.prior is not None:
        cells += [
            (prior_label(table.period), scaled_text(own.prior, base.scale, unit)),
            ("Change", _share(own.change, own.prior, sign=True)),
        ]
    if own.prior_cc is not None:
        cells.append(("at constant rates", _share(own.change_cc, own.prior_cc, sign=True)))
    if own.ytd is not None:
        cells.append(("Year to date", scaled_text(own.ytd, base.scale, unit)))
    return cells


def _share(part: int | None, whole: int | None, *, sign: bool = False) -> str:
    return percent_text(percent(part, whole), sign=sign) if part or whole else "\u2013"
