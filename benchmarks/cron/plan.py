"""quarterjack: what one plan costs after an outage, from a second to a year, by the mode for missed runs."""

from __future__ import annotations

from typing import Final

from measure import SECOND, Meter, answer, options
from quarterjack import Every
from quarterjack.model import Overlap, Payload, Schedule, Timing
from quarterjack.planner import plan, upserted

args = options(missed="latest", away=31_536_000, most=100, steps=2_000)
START: Final = 1_767_225_600 * SECOND

payload = Payload(task="t", missed=args.missed, max_catchup=args.most, overlap=Overlap("allow"))
row = upserted(None, Schedule("s", Timing(trigger=Every(seconds=1)), payload), START)
now = START + args.away * SECOND
plan(row, now)
meter = Meter()
meter.start()
for _ in range(args.steps):
    plan(row, now)
meter.stop()
found = plan(row, now)
answer(args, {"us_per_plan": meter.cpu_s / args.steps * 1e6, "runs": len(found.nominals) if found is not None else 0})
