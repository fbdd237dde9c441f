"""Runs: each contender in a process of its own, in turn, round after round.

A B C A B C rather than A A B B C C: what the neighbours do to the machine for a
minute then falls on all contenders alike, and a ratio within a round holds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .case import Case, Contender
from .envs import BENCHMARKS, Environment, EnvironmentFailed, ready

__all__ = ["Result", "run_case"]


@dataclass(slots=True)
class Result:
    """What one contender answered: its metrics round by round (None for a round that failed), and why it failed."""

    contender: Contender
    rounds: list[dict[str, float] | None] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def run_case(
    case: Case,
    contenders: Sequence[Contender],
    environments: Mapping[str, Environment],
    *,
    rounds: int,
    quick: bool,
    gc: str,
) -> list[Result]:
    """Run the case and return one result per contender, in order.

    A contender that fails is shown as failed and never stops the others.
    """
    results = [Result(contender) for contender in contenders]
    for number in range(1, rounds + 1):
        for result in results:
            print(f"  {case.name} round {number}/{rounds}: {result.contender.name}", file=sys.stderr)
            options = {**case.options, **(case.quick if quick else {})}
            # A smaller count of a contender's own stands, unless the quick one is smaller still.
            own = {
                name: value
                for name, value in result.contender.options.items()
                if not _is_larger(value, options.get(name))
            }
            _run_once(result, environments[result.contender.env], {**options, **own, "gc": gc}, case.seconds)
    return results


def _is_larger(own: object, common: object) -> bool:
    return isinstance(own, int) and isinstance(common, int) and own > common


def _run_once(result: Result, env: Environment, options: Mapping[str, object], limit_s: float) -> None:
    try:
        out, errors = _answer_of(_command(result.contender, env, options), _environment(env), limit_s)
    except (EnvironmentFailed, subprocess.TimeoutExpired) as error:
        result.rounds.append(None)
        result.error = str(error)
        return
    try:
        answer = json.loads(out.strip().splitlines()[-1])
    except (IndexError, ValueError):
        result.rounds.append(None)
        result.error = (errors.strip() or "no answer").splitlines()[-1][:200]
        return
    result.rounds.append(answer.pop("metrics"))
    result.about = {**answer, "settings": env.about}


def _answer_of(command: Sequence[str], environment: Mapping[str, str], limit_s: float) -> tuple[str, str]:
    """Run a contender, and end it with all that it has started if it takes too long; return what it wrote.

    Raises:
        TimeoutExpired: If it did.
    """
    with subprocess.Popen(
        command,
        env=environment,
        cwd=BENCHMARKS,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            return process.communicate(timeout=limit_s)
        except BaseException:  # a Ctrl-C as well: it is in another group, and hears none
            os.killpg(process.pid, signal.SIGKILL)
            raise


def _command(contender: Contender, env: Environment, options: Mapping[str, object]) -> list[str]:
    """Return the command; ``-P`` keeps the script's folder off the path, where names of peers stand."""
    given = [f"--{name}={value}" for name, value in options.items()]
    return [str(ready(env)), "-P", contender.script, *given, f"--packages={','.join(env.packages)}"]


def _environment(env: Environment) -> dict[str, str]:
    """Return the variables a contender sees: nothing of the caller's Python, the same hash seed for all."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    path = [str(BENCHMARKS), *([str(BENCHMARKS.parent / "src")] if env.source else [])]
    return {**kept, "PYTHONPATH": os.pathsep.join(path), "PYTHONHASHSEED": "0"}
