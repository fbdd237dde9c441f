"""The time until an expression that never comes is refused: ``--of`` ours, cronsim or croniter.

Each is asked for the first fire time of expressions that are well-formed and name dates
that do not exist. The answer is the dearest and the median of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from cron.walk import START
from measure import Meter, answer, options, percentile

EXPRESSIONS: Final = ("0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "* * 31 feb-jun/2 *", "*/7 1-5 30,31 2 *")
args = options(of="ours", times=20)


def ours(expression: str) -> object:
    from quarterjack import Cron  # noqa: PLC0415  # each contender has only its own library

    return Cron(expression).next(START)


def cronsim(expression: str) -> object:
    from cronsim import CronSim  # noqa: PLC0415

    return next(CronSim(expression, START))


def croniter(expression: str) -> object:
    from croniter import croniter as make  # noqa: PLC0415

    return make(expression, START).get_next()


ASK: Final[dict[str, Callable[[str], object]]] = {"ours": ours, "cronsim": cronsim, "croniter": croniter}


def microseconds(ask: Callable[[str], object], expression: str, times: int) -> float:
    """Return the CPU time of one refusal."""
    meter = Meter()
    meter.start()
    for _ in range(times):
        with suppress(Exception):  # each has an error of its own for it, or ends its iteration
            ask(expression)
    meter.stop()
    return meter.cpu_s / times * 1e6


ask: Any = ASK[args.of]
microseconds(ask, EXPRESSIONS[0], 1)  # imports
found = sorted(microseconds(ask, expression, args.times) for expression in EXPRESSIONS)
answer(args, {"us_median": percentile(found, 0.5), "us_most": found[-1]})
