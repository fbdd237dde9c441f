"""One of the drift laboratory's ways, in a process of its own that this one starts and meters."""

from __future__ import annotations

from grid import metrics_of
from laboratory import account, catalog, heat
from measure import SECOND, answer, options

args = options(way="", period=0.1, seconds=20.0, body=0.0, tasks=1)
way, period_ns = catalog.find(args.way), round(args.period * SECOND)
body = "sleep" if args.body else "none"  # the laboratory's waits for 0 to 0.9 of the period, as that of case A2 does
with heat.Heat([way.name], period_ns=period_ns, seconds=args.seconds, body=body, loop=args.loop, gc=args.gc) as one:
    one.run()
    (found,) = one.results()
if found.error:
    raise SystemExit(found.error)
length_ns = round(found.seconds * SECOND)
counted = account.count(
    found.starts_ns, origin_ns=found.origin_ns, period_ns=period_ns, length_ns=length_ns, promise=way.promise
)
if counted is None:
    raise SystemExit("nothing was started")
answer(args, metrics_of([counted], found.cpu_s or 0.0), way.about)
