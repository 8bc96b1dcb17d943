"""Play every attack of the registry and print what became of it: `make adversary`.

    .venv/bin/python tests/adversary/run_matrix.py [--program NAME]... [--jobs N] [--all] [--every N] [--out FILE]

Every message address of every program, in every position (an address has its sender, so all three are there), and every mask and
input of every party. The core programs see every change at every address. In the other programs each address sees one change of
every kind (changed, dropped, delayed, truncated, duplicated, swapped, replayed, lied about consistently), whose variants take
turns, and the largest one is played on fewer rows; with `--all` every one. Exit code 1 if anything happened that never may: a wrong result at an honest party, an unverified
value opened, a barrier passed, keys or gates kept, an honest party named for it.

The output says for every program how many of its addresses saw each kind, and the JSON file too. What is missing had nothing to
do: a message that is the same in every session and has no other to be swapped with.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mpc_ops.protocol.proofs.proof_and import AndLog
from tests.support.active import SMALL_LAYOUT
from tests.support.adversary import Case, play_and_judge, shameless_party, step_kind
from tests.support.attacked import ATTACKED, CORE, SMALLER
from tests.support.attacks import KIND_OF, KINDS, Attack
from tests.support.streams import remembered

OUTCOMES = ("detected", "waiting", "harmless", "nothing to do", "violated")
CHUNK = 400
DEEP = "masks and inputs"


@contextlib.contextmanager
def small_layout() -> Iterator[None]:
    """Prove in small blocks, so that a proof takes milliseconds."""
    with mock.patch.object(AndLog, "layout", SMALL_LAYOUT):
        yield


@dataclass
class Report:
    """What became of some attacks of one program.

    Attributes:
        covered: (number of an address, kind) of every attack on a message that was played.
    """

    program: str
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    steps: Counter[tuple[str, str]] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    covered: set[tuple[int, str]] = field(default_factory=set)
    seconds: float = 0.0

    def add(self, other: Report) -> None:
        self.outcomes += other.outcomes
        self.codes += other.codes
        self.steps += other.steps
        self.violations += other.violations
        self.covered |= other.covered
        self.seconds += other.seconds

    @property
    def played(self) -> int:
        return sum(count for (_, outcome), count in self.outcomes.items() if outcome != "nothing to do")

    def kinds(self) -> dict[str, int]:
        """Addresses that saw an attack, by kind; and masks and inputs that were others."""
        found = Counter(kind for _, kind in self.covered)
        return {kind: found[kind] for kind in (*KINDS, DEEP)}

    def by_outcome(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for (_, outcome), count in self.outcomes.items():
            found[outcome] += count
        return found


@dataclass(frozen=True)
class Work:
    """Attacks number start, start + every, ... < stop of one program."""

    program: str
    everything: bool
    start: int = 0
    stop: int = 0
    every: int = 1


def attacks_of(case: Case, *, everything: bool) -> list[Attack]:
    """Return the attacks on a program: all, or one of every kind at each address."""
    return list(case.attacks() if everything or case.program.name in CORE else case.one_of_each_kind())


def play(work: Work) -> Report:
    """Play some attacks of one program."""
    report, begun = Report(work.program), time.process_time()
    with small_layout(), shameless_party(), remembered():
        case = Case(ATTACKED[work.program])
        numbers = {address: number for number, address in enumerate(case.addresses)}
        for number, attack in enumerate(attacks_of(case, everything=work.everything)):
            if not work.start <= number < work.stop or number % work.every:
                continue
            verdict = play_and_judge(case, attack)
            outcome = "nothing to do" if verdict is None else "violated" if verdict.violations else verdict.outcome
            report.outcomes[f"{attack.change} ({attack.lie})", outcome] += 1
            report.steps[step_kind(attack.address.step) if attack.address else attack.change, outcome] += 1
            if verdict is not None:
                place = (
                    (numbers[attack.address], KIND_OF[attack.change, attack.lie]) if attack.address else (number, DEEP)
                )
                report.covered.add(place)
                report.codes.update(verdict.codes)
                report.violations += [f"{work.program}: {attack}: {what}" for what in verdict.violations]
    report.seconds = time.process_time() - begun
    return report


def sizes(work: Work) -> tuple[int, int]:
    """Return messages and attacks of a program."""
    with small_layout():
        case = Case(ATTACKED[work.program])
        return len(case.addresses), len(attacks_of(case, everything=work.everything))


def table(title: str, counts: Counter[tuple[str, str]]) -> None:
    print(f"\n{title:34}" + "".join(f"{outcome:>15}" for outcome in OUTCOMES))
    for row in sorted({row for row, _ in counts}):
        print(f"{row:34}" + "".join(f"{counts[row, outcome] or '-':>15}" for outcome in OUTCOMES))


def kinds_table(names: Iterable[str], messages: Mapping[str, int], reports: Mapping[str, Report]) -> None:
    """Print how many addresses of each program saw each kind of attack."""
    print(f"\n{'addresses by kind':24}{'messages':>12}" + "".join(f"{kind:>12}" for kind in KINDS) + f"{DEEP:>18}")
    for name in names:
        found = reports[name].kinds()
        cells = "".join(f"{found[kind] or '-':>12}" for kind in KINDS)
        print(f"{name:24}{messages[name]:>12}{cells}{found[DEEP] or '-':>18}")


def run(options: argparse.Namespace, names: Sequence[str]) -> tuple[dict[str, int], dict[str, Report]]:
    """Return messages and reports by program."""
    reports: dict[str, Report] = {name: Report(name) for name in names}
    with ProcessPoolExecutor(options.jobs) as pool:
        found = dict(zip(names, pool.map(sizes, [Work(name, options.all) for name in names]), strict=True))
        work = [
            Work(name, options.all, start, start + CHUNK, options.every)
            for name in names
            for start in range(0, found[name][1], CHUNK)
        ]
        for report in pool.map(play, work):
            reports[report.program].add(report)
    return {name: messages for name, (messages, _) in found.items()}, reports


def summary(messages: Mapping[str, int], reports: Mapping[str, Report]) -> dict[str, object]:
    """Return the counts as they are written."""
    return {
        "attacks": sum(report.played for report in reports.values()),
        "messages": sum(messages.values()),
        "violations": [line for report in reports.values() for line in report.violations],
        "programs": {
            name: {
                "messages": messages[name],
                "attacks": report.played,
                "seconds": round(report.seconds, 1),
                "outcomes": {outcome: report.by_outcome()[outcome] for outcome in OUTCOMES},
                "addresses by kind": report.kinds(),
            }
            for name, report in reports.items()
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", action="append", choices=sorted(ATTACKED), help="only this one; may be repeated")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--all", action="store_true", help="every change at every address of every program")
    parser.add_argument("--every", type=int, default=1, help="only every n-th attack")
    parser.add_argument("--out", type=Path, help="also write the counts as JSON")
    options = parser.parse_args()
    names = options.program or [name for name in ATTACKED if options.all or name not in SMALLER]
    messages, reports = run(options, names)
    total = Report("all")
    per_program: Counter[tuple[str, str]] = Counter()
    for name in names:
        total.add(reports[name])
        for outcome, count in reports[name].by_outcome().items():
            per_program[f"{name} ({messages[name]} messages)", outcome] += count
    table("program", per_program)
    table("change", total.outcomes)
    table("message", total.steps)
    kinds_table(names, messages, reports)
    print("\ncodes at honest parties: " + ", ".join(f"{code} {count}" for code, count in total.codes.most_common()))
    written = summary(messages, reports)
    print(f"{written['attacks']} attacks on {written['messages']} messages in 3 positions: ", end="")
    print(f"{len(total.violations)} violations; {total.seconds:.0f} seconds of computing")
    for line in total.violations[:50]:
        print("VIOLATION", line)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return bool(total.violations)


if __name__ == "__main__":
    sys.exit(main())
