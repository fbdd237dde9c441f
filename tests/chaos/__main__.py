"""A long chaos run: ``python3 dev.py chaos [--for 10m] [--store sqlite] [--seed 7]``.

Rounds of some seconds each on one store after the other: processes serve jobs
and schedules, every second or so one of them or their server is dealt a blow,
and at the end the oracle judges what the ledger and the rows say together. The
seed decides which blows come when; it does not decide when processes get their
turn, so a round that found something is worth repeating, and its folder is kept."""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, Final

from quarterjack._durations import parse_duration
from tests.chaos.arena import Arena, arena
from tests.chaos.blows import blows_on
from tests.chaos.ground import KINDS, Ground, ground
from tests.chaos.oracle import Evidence, take_ups, verdict

STRUCK_S: Final = 15.0
"""Blows fall for so long in a round; then it comes to its end."""
FLOOD: Final = 1_000


class Round:
    """One round on one store."""

    def __init__(self, kind: str, seed: str, jobs: int) -> None:
        self.kind = kind
        self.jobs = jobs
        self.rng = Random(seed)  # decides blows, guards nothing
        self.blows: Counter[str] = Counter()

    async def perform(self, folder: Path) -> tuple[Evidence | None, list[str]]:
        """Play it; return what there is to judge, and what is wrong."""
        async with ground(self.kind, folder) as on, arena(on.url, folder, crew_url=on.crew_url) as place:
            await place.start("scheduler", "both", "both", "worker")
            try:
                await asyncio.gather(self.strike(place, on), self.feed(place))
                evidence = await place.settle()
            except (TimeoutError, AssertionError) as error:
                return None, [f"it did not come to its end: {error!r}", *place.crew.complaints()]
            return evidence, [*verdict(evidence), *place.crew.complaints()]

    async def strike(self, place: Arena, on: Ground) -> None:
        """Deal blows."""
        possible, ends_at = blows_on(on), monotonic() + STRUCK_S
        while monotonic() < ends_at:
            await asyncio.sleep(self.rng.uniform(0.3, 1.3))
            name = self.rng.choice(sorted(possible))
            self.blows[name] += 1
            print(f"    {name}", flush=True)
            await possible[name](place, on, self.rng)

    async def feed(self, place: Arena) -> None:
        """Submit jobs, short ones and some that are long enough to be met."""
        chaos, left = place.chaos, self.jobs
        while left > 0:
            size = min(left, FLOOD)
            await place.submit(chaos.short.bind(n) for n in range(size))
            await place.submit(chaos.long.bind(self.rng.uniform(0.5, 3.0)) for _ in range(10))
            await place.submit(chaos.threaded.bind(self.rng.uniform(0.5, 2.0)) for _ in range(3))
            await place.submit(chaos.limited.bind(self.rng.uniform(0.05, 0.4)) for _ in range(10))
            left -= size
            await asyncio.sleep(STRUCK_S * size / self.jobs)


def report(evidence: Evidence) -> str:
    """Return what a round was, in words."""
    ticks = sum(row.origin is not None for row in evidence.rows)
    dead = sum(entry.kind == "dead" for entry in evidence.entries)
    pauses = [(second.begun_ns - died_ns) / 1e9 for died_ns, _, second in take_ups(evidence)]
    taken = f"{len(pauses)} jobs of dead workers taken up within {max(pauses):.2f} s" if pauses else "none to take up"
    again = len(evidence.bodies) - len(evidence.by_job)
    return f"{len(evidence.rows)} jobs, {ticks} of schedules; {dead} processes ended; {again} bodies again; {taken}"


async def campaign(wanted: Any) -> int:
    """Play rounds until the time is over; return how many found something."""
    ends_at, number, wrong_rounds = monotonic() + wanted.seconds, 0, 0
    kinds = KINDS if wanted.store == "all" else (wanted.store,)
    while number == 0 or monotonic() < ends_at:
        kind, seed = kinds[number % len(kinds)], f"{wanted.seed}.{number}"
        number += 1
        print(f"round {number} on {kind}, seed {seed}", flush=True)
        folder = Path(tempfile.mkdtemp(prefix=f"quarterjack-chaos-{kind}-"))
        this = Round(kind, seed, wanted.jobs)
        evidence, wrong = await this.perform(folder)
        print("  blows: " + ", ".join(f"{count} × {name}" for name, count in this.blows.most_common()))
        if evidence is not None:
            print("  " + report(evidence))
        if wrong:
            wrong_rounds += 1
            print(f"  WRONG ({len(wrong)}), the ledger and the logs are in {folder}:", *wrong[:20], sep="\n    ")
        else:
            print("  nothing is lost, nothing ran twice without a reason", flush=True)
            shutil.rmtree(folder)
    print(f"{number} rounds, {wrong_rounds} of them found something; seed {wanted.seed}")
    return wrong_rounds


def duration(text: str) -> float:
    """Read a duration such as 10m."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py chaos", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument(
        "--for", dest="seconds", metavar="TIME", type=duration, default=60.0, help="how long, such as 10m (default 1m)"
    )
    parser.add_argument("--store", choices=(*KINDS, "all"), default="all", help="which store (default all, in turn)")
    parser.add_argument("--seed", default=str(Random().randrange(10_000)), help="what decides the blows")
    parser.add_argument("--jobs", type=int, default=20_000, help="how many in each round (default 20,000)")
    wanted = parser.parse_args()
    logging.getLogger("quarterjack").setLevel(logging.CRITICAL)  # of the client, which is told of each outage
    return 1 if asyncio.run(campaign(wanted)) else 0


if __name__ == "__main__":
    sys.exit(main())
