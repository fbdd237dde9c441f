"""``qj run --workers N``: the app in several processes, looked after by this one.

This process never imports the app. It starts the first of the others, and once
that has loaded the app the rest; it starts anew what has ended unasked, writes
what they write with their names in front, and hands them the orders to end. A
process that was ended by an order of its own (exit code 0: ``qj workers stop``,
``app.stop()``) stays ended.

What it knows of one that has died it tells a living one: that strikes the dead
one off the registry, and frees its jobs for the others at once. How it talks
with them stands in `_member`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.policies.backoff import equal_jitter
from quarterjack.runtime.signals import Signals

from ._children import Orders, command_of, either, ended_how
from ._hints import typed
from ._member import Member
from ._runlog import LogFormat
from ._serving import exit_code
from ._shell import EXIT_FAILED, EXIT_USAGE, Failure

__all__ = ["Fleet", "Pauses", "roles_of", "supervise"]

log = logging.getLogger("quarterjack.run")

MOST_STARTS: Final = 5
"""A process that ended so many times in a row before it had started will not start the next time either."""
JSON_START: Final = b'{"time": '
"""So begin the log lines of `_runlog` in JSON, which name their process themselves."""


def roles_of(count: int, role: str | None, *, isolates_scheduler: bool) -> dict[str, str | None]:
    """Return the names of the processes and their roles; None is the app's own."""
    if isolates_scheduler:
        return {"s1": "scheduler", **{f"w{at}": "worker" for at in range(1, count + 1)}}
    return {f"{'s' if role == 'scheduler' else 'w'}{at}": role for at in range(1, count + 1)}


def supervise(
    target: str | None, options: Sequence[str], roles: Mapping[str, str | None], *, until_idle: bool, form: LogFormat
) -> int:
    """Run the app in a process for each of *roles* until a signal; return the exit code.

    Raises:
        Failure: If one of them does not start, again and again.
    """
    if sys.platform == "win32":
        raise Failure("several processes at once need a system with POSIX signals", typed(target or "module:app"))
    is_coloured = form == "text" and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    words = command_of(target, [*options, *(["--coloured"] if is_coloured else [])])
    fleet = Fleet(words, roles, until_idle=until_idle, form=form, alone=typed(*([] if target is None else [target])))
    return asyncio.run(fleet.run())


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long to wait before a process is started anew: growing, jittered, and short again after a long life."""

    first_s: float = 0.5
    cap_s: float = 30.0
    long_life_s: float = 60.0

    def draw(self, times: int, rng: Random) -> float:
        """Return the seconds before the restart number *times* in a row, from half the ceiling to all of it."""
        return equal_jitter(min(self.cap_s, self.first_s * 2 ** min(times - 1, 64)), rng)


class Fleet:
    """Several processes of one app.

    Args:
        words: The command of each, up to what tells one from another.
        roles: Their names, and what they are to do; None is the app's own role.
        until_idle: Whether each ends by itself when nothing is left to do.
        form: How they log.
        alone: The command that runs the app in one process.
        pauses: Between an unasked end and the next start.
    """

    def __init__(
        self,
        words: Sequence[str],
        roles: Mapping[str, str | None],
        *,
        until_idle: bool = False,
        form: LogFormat = "text",
        alone: str = "qj run",
        pauses: Pauses = Pauses(),
    ) -> None:
        self.words, self.pauses, self.until_idle = list(words), pauses, until_idle
        self.rng = Random()  # noqa: S311  # spreads restarts, keeps no secret
        self.ending, self.loaded = asyncio.Event(), asyncio.Event()
        self.orders = Orders(self.ending, log)
        self.has_started = self.has_failures = False
        self.failure: Failure | None = None
        self.is_misused = False
        self._form, self._alone = form, alone
        self._width = max(map(len, roles)) + len("[]")
        self.sharing = max(1, sum(role != "scheduler" for role in roles.values()))
        """How many of them share the processors for bodies in processes."""
        self._posts = [_Post(self, name, role) for name, role in roles.items()]
        self._living: list[Member] = []
        """Those whose start is complete."""
        self._dead: list[str] = []
        """Processes that ended without a word, by their ids in the registry: to be struck off there."""

    async def run(self) -> int:
        """Keep all of them running until a signal, or until each has ended in order; return the exit code.

        Raises:
            Failure: If one of them ended `MOST_STARTS` times in a row before it had started.
        """
        with Signals(self.orders.take):
            log.info("running %d processes; Ctrl-C drains, twice stops now", len(self._posts))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._posts[0].keep())
                # An app that cannot be loaded is told once, not by each; and its modules are compiled once.
                loaded = group.create_task(self.loaded.wait())
                await either(self.ending, loaded)
                loaded.cancel()
                for post in self._posts[1:]:
                    group.create_task(post.keep())
        log.info("all processes have ended")
        if self.failure is not None:
            raise self.failure
        is_idle = all(post.is_idle for post in self._posts)
        is_complete = is_idle if self.until_idle else self.has_started
        code = exit_code(self.orders.signals, is_complete=is_complete, has_failures=self.has_failures)
        return EXIT_USAGE if self.is_misused else code

    def started(self, member: Member) -> None:
        """The start of a process is complete."""
        self.has_started = True
        self._living.append(member)
        self._bury()

    def over(self, member: Member) -> None:
        """A process has ended; one that did so in order has struck itself off."""
        if member in self._living:
            self._living.remove(member)
        self._dead += [*member.burying, *([member.owner] if member.code and member.owner else [])]
        self._bury()

    def _bury(self) -> None:
        """Have one that lives strike off those that are dead: it has the store, this process has none."""
        if self._living:
            while self._dead:
                self._living[0].bury(self._dead.pop())

    def write(self, name: str, is_error: bool, line: bytes) -> None:
        """Write what a process has written, with its name in front."""
        stream = sys.stderr if is_error else sys.stdout
        has_name = is_error and self._form == "json" and line.startswith(JSON_START)
        prefix = "" if has_name else f"{f'[{name}]':<{self._width}} "
        with suppress(OSError, ValueError):  # a pipe that nobody reads, or closed
            stream.flush()
            stream.buffer.write(prefix.encode() + line + b"\n")
            stream.buffer.flush()

    def give_up(self, name: str, how: str, last_words: Sequence[str]) -> None:
        """End all, for this one does not start."""
        log.error("%s has ended %d times before it had started: the others are drained", name, MOST_STARTS)
        said = "".join(f"\n  {line}" for line in last_words)
        words = f"{name} has ended {MOST_STARTS} times before it had started, the last time{how}"
        self.failure = Failure(f"{words}{':' if said else ''}{said}", f"{self._alone}, to see it in one process")
        self.ending.set()

    def refuse(self) -> None:
        """End all, for a slip in the command line, which a process has told."""
        self.is_misused = True
        self.ending.set()


class _Post:
    """One place among the processes, which is filled anew when it falls vacant."""

    def __init__(self, fleet: Fleet, name: str, role: str | None) -> None:
        self._fleet, self._name = fleet, name
        self._role = [] if role is None else ["--role", role]
        self._failed_starts = self._restarts = 0
        self.is_idle = False
        """True once it has ended by itself because nothing was left to do."""

    async def keep(self) -> None:
        """Keep a process running until all end, or until it ends in order."""
        ending = self._fleet.ending
        while not ending.is_set():
            pause_s = await self._run_one()
            if pause_s is None:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await ending.wait()

    async def _run_one(self) -> float | None:
        """Run a process to its end; return the seconds to wait before the next one, None if there is to be none."""
        fleet, began_s = self._fleet, SYSTEM_CLOCK.monotonic()
        try:
            child = await Member.start(fleet, self._name, self._role)
        except OSError as error:  # too many processes, no memory
            return self._vacant(f" at once: {error}", [], has_started=False, lived_s=0.0)
        try:
            await either(fleet.ending, child.over)
            if not child.over.done():
                await child.end(None, fleet.orders.hurry)
        finally:
            await child.kill()
            child.close()
        fleet.over(child)
        code = child.code or 0
        if fleet.ending.is_set():
            fleet.has_failures |= code == EXIT_FAILED
            return None
        if code == EXIT_USAGE and not child.has_loaded:
            fleet.refuse()
            return None
        if fleet.until_idle and code >= 0:
            self.is_idle = True
            fleet.has_failures |= code != 0
            return None
        if code == 0 and child.has_started:
            log.warning("%s was told to stop, and has ended; it is not started again", self._name)
            return None
        lived_s = SYSTEM_CLOCK.monotonic() - began_s
        return self._vacant(ended_how(code), child.last_words(), has_started=child.has_started, lived_s=lived_s)

    def _vacant(self, how: str, last_words: Sequence[str], *, has_started: bool, lived_s: float) -> float | None:
        """Return how long to wait after an end that nobody asked for; None if that is no use."""
        fleet = self._fleet
        self._failed_starts = 0 if has_started else self._failed_starts + 1
        if self._failed_starts >= MOST_STARTS:
            fleet.give_up(self._name, how, last_words)
            return None
        self._restarts = 1 if has_started and lived_s >= fleet.pauses.long_life_s else self._restarts + 1
        pause_s = fleet.pauses.draw(self._restarts, fleet.rng)
        log.warning("%s has ended%s; it is started again in %.1f s", self._name, how, pause_s)
        return pause_s
