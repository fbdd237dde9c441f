"""Run the benchmarks: ours and the peers in turn, in one run on one machine.

    python benchmarks/run.py                      every case, three rounds
    python benchmarks/run.py A1 B1 --rounds 5     two cases
    python benchmarks/run.py B --quick            all of B, small and once
    python benchmarks/run.py A1 --peers ours,raw  some contenders only (environments or parts of names)
    python benchmarks/run.py --list               what there is

Needs python3 (3.11 or newer) with pip, or uv; the contenders' environments are
made under ``benchmarks/.venvs`` on first use. Tables go to standard output,
progress to standard error, everything measured to ``--json``. Nothing is asserted."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.case import Case, Contender
from harness.cases import CASES
from harness.envs import load_environments
from harness.machine import facts
from harness.report import as_json, settings, table
from harness.rounds import Result, run_case


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; return the exit status: 0, or 1 when a contender failed."""
    args = _parse(argv)
    if args.list:
        print(_listing())
        return 0
    environments, machine = load_environments(), facts()
    print("\n".join(f"- {name}: {fact}" for name, fact in machine.items()), end="\n\n", flush=True)
    every: list[Result] = []
    cases: dict[str, object] = {}
    for case in args.cases:
        contenders = _chosen(case, args.peers)
        if not contenders:
            continue
        results = run_case(case, contenders, environments, rounds=args.rounds, quick=args.quick, gc=args.gc)
        print(table(case, results), end="\n\n", flush=True)
        every += results
        cases[case.name] = as_json(case, results)
        if args.json is not None:  # after each case, so that a run cut short keeps what it has
            args.json.parent.mkdir(parents=True, exist_ok=True)
            whole = {"machine": machine, "rounds": args.rounds, "quick": args.quick, "cases": cases}
            args.json.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print("### Versions and settings\n\n" + settings(every))
    return int(any(result.error for result in every))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "cases", nargs="*", metavar="case", help="names or their beginnings (A, A3, B1); all by default"
    )
    parser.add_argument("--rounds", type=int, help="rounds, 3 by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--quick", action="store_true", help="small counts, short runs, one round: does it work?")
    parser.add_argument(
        "--peers", metavar="a,b", help="only contenders of these environments or with these words in their names"
    )
    parser.add_argument(
        "--gc", choices=("on", "off"), default="on", help="Python's garbage collector in every contender"
    )
    parser.add_argument("--list", action="store_true", help="list cases and contenders")
    args = parser.parse_args(argv)
    args.rounds = args.rounds if args.rounds is not None else (1 if args.quick else 3)
    if args.rounds < 1:
        parser.error("--rounds must be 1 or more")
    unknown = [word for word in args.cases if not _named(word)]
    if unknown:
        parser.error(f"no case {unknown[0]!r}; there are {', '.join(CASES)}")
    args.cases = [case for case in CASES.values() if not args.cases or any(case in _named(word) for word in args.cases)]
    args.peers = args.peers.split(",") if args.peers else []
    return args


def _named(word: str) -> list[Case]:
    """Return the cases whose name begins with *word*, in any case of letters."""
    return [case for name, case in CASES.items() if name.lower().startswith(word.lower())]


def _chosen(case: Case, words: Sequence[str]) -> list[Contender]:
    """Return the contenders asked for; the reference always runs, for there is no ratio without it."""
    return [
        contender
        for contender in case.contenders
        if not words
        or contender.name in (case.reference, case.floor)
        or any(word.lower() == contender.env or word.lower() in contender.name.lower() for word in words)
    ]


def _listing() -> str:
    lines = []
    for case in CASES.values():
        lines.append(f"{case.name}: {case.title} (reference: {case.reference})")
        lines += [f"    {contender.name}  [{contender.env}]" for contender in case.contenders]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
