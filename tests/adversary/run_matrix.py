"""Play every attack of the registry and print what became of it: `make adversary`.

    .venv/bin/python tests/adversary/run_matrix.py [--program NAME]... [--jobs N] [--all] [--every N] [--out FILE]

Every message address of every program, with changes on the wire and consistent ones, in every position (an address has its
sender, so all three are there), and every mask and input of every party. In programs over tables, which have many messages, each
address gets some of the changes, in turn, unless `--all` is given. Exit code 1 if anything happened that never may: a wrong result at an honest
party, an unverified value opened, a barrier passed, keys or gates kept, an honest party named for it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mpc_ops.protocol.proofs.proof_and import AndLog
from tests.support.active import SMALL_LAYOUT
from tests.support.adversary import Attack, Case, play_and_judge, shameless_party, step_kind
from tests.support.attacked import CORE, PROGRAMS

OUTCOMES = ("detected", "waiting", "harmless", "nothing to do", "violated")
CHUNK = 400
MANY = 1500
"""Attacks on the messages of a program over tables, if each address gets at least one; without `--all`."""


@contextlib.contextmanager
def small_layout() -> Iterator[None]:
    """Prove in small blocks, so that a proof takes milliseconds."""
    with mock.patch.object(AndLog, "layout", SMALL_LAYOUT):
        yield


@dataclass
class Report:
    """What became of some attacks of one program."""

    program: str
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    steps: Counter[tuple[str, str]] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        self.outcomes += other.outcomes
        self.codes += other.codes
        self.steps += other.steps
        self.violations += other.violations


def attacks_of(case: Case, *, everything: bool) -> list[Attack]:
    """Return the attacks on a program: all, or for programs over tables as many at each address as bound them, in turn."""
    if everything or case.program.name in CORE:
        return list(case.attacks())
    out: list[Attack] = []
    each = max(1, MANY // len(case.addresses))
    for number, address in enumerate(case.addresses):
        found = list(case.attacks_at(address))
        out += found if each >= len(found) else [found[(number * each + turn) % len(found)] for turn in range(each)]
    return out + [attack for attack in case.attacks() if attack.lie == "deep"]


def play(work: tuple[str, int, int, int, bool]) -> Report:
    """Play attacks number start, start + every, ... < stop of one program."""
    name, start, stop, every, everything = work
    report = Report(name)
    with small_layout(), shameless_party():
        case = Case(PROGRAMS[name])
        for number, attack in enumerate(attacks_of(case, everything=everything)):
            if not start <= number < stop or number % every:
                continue
            verdict = play_and_judge(case, attack)
            outcome = "nothing to do" if verdict is None else "violated" if verdict.violations else verdict.outcome
            report.outcomes[f"{attack.change} ({attack.lie})", outcome] += 1
            report.steps[step_kind(attack.address.step) if attack.address else attack.change, outcome] += 1
            if verdict is not None:
                report.codes.update(verdict.codes)
                report.violations += [f"{name}: {attack}: {what}" for what in verdict.violations]
    return report


def sizes(work: tuple[str, bool]) -> tuple[int, int]:
    """Return messages and attacks of a program."""
    name, everything = work
    with small_layout():
        case = Case(PROGRAMS[name])
        return len(case.addresses), len(attacks_of(case, everything=everything))


def table(title: str, counts: Counter[tuple[str, str]]) -> None:
    print(f"\n{title:34}" + "".join(f"{outcome:>15}" for outcome in OUTCOMES))
    for row in sorted({row for row, _ in counts}):
        print(f"{row:34}" + "".join(f"{counts[row, outcome] or '-':>15}" for outcome in OUTCOMES))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", action="append", choices=sorted(PROGRAMS), help="only this one; may be repeated")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--all", action="store_true", help="every change at every address of every program")
    parser.add_argument("--every", type=int, default=1, help="only every n-th attack")
    parser.add_argument("--out", type=Path, help="also write the counts as JSON")
    options = parser.parse_args()
    names = options.program or list(PROGRAMS)
    with ProcessPoolExecutor(options.jobs) as pool:
        found = dict(zip(names, pool.map(sizes, [(name, options.all) for name in names]), strict=True))
        work = [
            (name, start, start + CHUNK, options.every, options.all)
            for name in names
            for start in range(0, found[name][1], CHUNK)
        ]
        reports: dict[str, Report] = defaultdict(lambda: Report(""))
        for report in pool.map(play, work):
            reports[report.program].add(report)
    total = Report("all")
    per_program: Counter[tuple[str, str]] = Counter()
    for name in names:
        total.add(reports[name])
        for (_, outcome), count in reports[name].outcomes.items():
            per_program[f"{name} ({found[name][0]} messages)", outcome] += count
    table("program", per_program)
    table("change", total.outcomes)
    table("message", total.steps)
    print("\ncodes at honest parties: " + ", ".join(f"{code} {count}" for code, count in total.codes.most_common()))
    played = sum(count for (_, outcome), count in total.outcomes.items() if outcome != "nothing to do")
    messages = sum(found[name][0] for name in names)
    print(f"{played} attacks on {messages} messages in 3 positions: {len(total.violations)} violations")
    for line in total.violations[:50]:
        print("VIOLATION", line)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        summary = {
            "attacks": played, "messages": messages, "violations": total.violations,
            "programs": {
                name: {outcome: per_program[f"{name} ({found[name][0]} messages)", outcome] for outcome in OUTCOMES}
                for name in names
            },
        }  # fmt: skip
        options.out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return bool(total.violations)


if __name__ == "__main__":
    sys.exit(main())
