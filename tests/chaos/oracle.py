"""The oracle: what the ledger and the store's rows say together, and what of it must never be.

A body *has* its job from when it begins until it ends or its process dies. Where
a process is stopped, or cut off from the store, it has it only as long as its
lease may have lasted: what it does later is between it and the fence."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Final

from quarterjack.model import JobRecord, JobState
from tests.chaos.app import LIMIT, LINE_S, TICK_S
from tests.chaos.ledger import Entry

__all__ = ["EVERYBODY", "LAWS", "Body", "Evidence", "take_ups", "verdict"]

NS_PER_S: Final = 1_000_000_000
EVERYBODY: Final = "*"
SHARE: Final = 3
"""Leases are renewed so often that this part of them is left at least."""
SOON_S: Final = 1.0
"""Within the lease and a second a dead worker's job is taken up,"""
MACHINE_S: Final = 2.0
"""and the machine may take as long again to do it, with everything else that it has to do.

Or as long as it takes to start a process, which tells how busy it is.
"""
TICKS: Final = {"tick": round(TICK_S * NS_PER_S), "line": round(LINE_S * NS_PER_S)}


@dataclass(frozen=True)
class Body:
    """One attempt whose body has begun."""

    job: str
    attempt: int
    task: str
    who: str
    begun_ns: int
    ended_ns: int | None
    """When it ended or was broken off; None where its process died first."""
    has_returned: bool


@dataclass(frozen=True)
class Span:
    """When somebody could not renew leases."""

    who: str
    from_ns: int
    to_ns: int


@dataclass
class Evidence:
    """What is known at the end."""

    entries: Sequence[Entry]
    rows: Sequence[JobRecord]
    submitted: Iterable[str]
    lease_s: float
    bodies: list[Body] = field(init=False)
    died_ns: dict[str, int] = field(init=False)
    spans: list[Span] = field(init=False)

    def __post_init__(self) -> None:
        self.bodies = list(bodies_of(self.entries))
        self.died_ns = {entry.who: entry.at_ns for entry in self.entries if entry.kind == "dead"}
        self.spans = list(spans_of(self.entries, round(self.lease_s * NS_PER_S)))

    @cached_property
    def machine_ns(self) -> int:
        """What the machine may take for what is done at once."""
        begun_ns = {entry.who: entry.at_ns for entry in self.entries if entry.kind == "start"}
        starts_ns = [entry.at_ns - begun_ns[entry.who] for entry in self.entries if entry.kind == "up"]
        return max(round(MACHINE_S * NS_PER_S), min(starts_ns, default=0))

    def cuts(self, body: Body, afterwards_ns: int = 0) -> list[Span]:
        """Return the spans in which the lease of a body may have run out while it ran, or that long afterwards."""
        until_ns = self.lived_until_ns(body) + afterwards_ns
        return [
            span
            for span in self.spans
            if span.who in {body.who, EVERYBODY} and span.from_ns <= until_ns and span.to_ns >= body.begun_ns
        ]

    def could_say_so(self, body: Body) -> bool:
        """Say whether a body's process had the time to record its end."""
        died_ns = self.died_ns.get(body.who)
        is_dead = died_ns is not None and died_ns < self.lived_until_ns(body) + self.machine_ns
        return not is_dead and not self.cuts(body, self.machine_ns)

    def lived_until_ns(self, body: Body) -> int:
        """Return when a body was certainly over."""
        if body.ended_ns is not None:
            return body.ended_ns
        return self.died_ns.get(body.who, self.entries[-1].at_ns)

    def had_until_ns(self, body: Body) -> int:
        """Return until when a body certainly had its job; before it began, where it was to begin as all stood still."""
        sure_ns = round(self.lease_s * NS_PER_S) // SHARE
        return min([self.lived_until_ns(body), *(span.from_ns + sure_ns for span in self.cuts(body))])

    @property
    def by_job(self) -> dict[str, list[Body]]:
        """Return the bodies of each job, by attempt."""
        found: defaultdict[str, list[Body]] = defaultdict(list)
        for body in sorted(self.bodies, key=lambda body: body.attempt):
            found[body.job].append(body)
        return found


def bodies_of(entries: Iterable[Entry]) -> Iterator[Body]:
    """Yield the bodies that the ledger tells of; one that has begun twice is there twice."""
    ends = {(entry.job, entry.attempt, entry.who): entry for entry in entries if entry.kind in {"end", "broken off"}}
    for entry in entries:
        if entry.kind == "begin":
            end = ends.get((entry.job, entry.attempt, entry.who))
            has_returned = end is not None and end.kind == "end"
            ended_ns = None if end is None else end.at_ns
            yield Body(entry.job, entry.attempt, entry.task, entry.who, entry.at_ns, ended_ns, has_returned)


def spans_of(entries: Sequence[Entry], lease_ns: int) -> Iterator[Span]:
    """Yield when processes stood still or were cut off: until a lease after that they may still pay for it."""
    open_ns: dict[str, int] = {}
    for entry in entries:
        if entry.kind == "stalled":
            yield Span(entry.who, entry.at_ns - entry.attempt * 1_000_000, entry.at_ns + lease_ns)
        elif entry.kind in {"stopped", "cut off"}:
            open_ns.setdefault(entry.who, entry.at_ns)
        elif entry.kind in {"going on", "connected", "dead"} and entry.who in open_ns:
            yield Span(entry.who, open_ns.pop(entry.who), entry.at_ns + lease_ns)
    for who, from_ns in open_ns.items():
        yield Span(who, from_ns, entries[-1].at_ns)


# -- what must never be ---------------------------------------------------------------------


def lost(evidence: Evidence) -> Iterator[str]:
    """A job that was accepted is there, has ended well, and the result is that of the attempt that the store names."""
    rows = {row.id: row for row in evidence.rows}
    for job_id in evidence.submitted:
        if job_id not in rows:
            yield f"{job_id} is lost"
    returned = {(body.job, body.attempt, body.who) for body in evidence.bodies if body.has_returned}
    for row in evidence.rows:
        if not row.state.is_finished:
            if row.task != "chain":
                yield f"{row.id} ({row.task}) has not ended: {row.state.value}, {row.reason}"
        elif row.state is not JobState.DONE:
            yield f"{row.id} ({row.task}) ended as {row.state.value}: {row.reason}, {row.error}"
        elif row.result is None or (row.id, *row.result) not in returned:
            yield f"{row.id} ({row.task}) is done with a result that nobody returned: {row.result}"
        elif row.result[0] != row.attempt:
            yield f"{row.id} ({row.task}) is done by attempt {row.attempt} with the result of {row.result}"


def begun_without_reason(evidence: Evidence) -> Iterator[str]:
    """A job is begun again only after its worker died or may have lost its lease, and not while that has it."""
    for job_id, bodies in evidence.by_job.items():
        for first, second in pairwise(bodies):
            by = f"as {first.attempt} in {first.who} and as {second.attempt} in {second.who}"
            what = f"{job_id} ({first.task}) was begun {by}"
            if first.attempt == second.attempt:
                yield f"{what}: one attempt twice"
            elif evidence.had_until_ns(first) > second.begun_ns:
                yield f"{what} while the first one had it"
            elif first.has_returned and evidence.could_say_so(first):
                yield f"{what} although the first one returned and could say so"


def ticks(evidence: Evidence) -> Iterator[str]:
    """Each fire time from the first to the last has one job."""
    for name, every_ns in TICKS.items():
        found = Counter(row.origin.nominal_ns for row in evidence.rows if row.task == name and row.origin is not None)
        for nominal_ns, count in found.items():
            if count > 1:
                yield f"{name} has {count} jobs for {nominal_ns}"
        for one, two in pairwise(sorted(found)):
            if two - one != every_ns:
                missing = (two - one) // every_ns - 1
                yield f"{name} has nothing between {one} and {two}: {missing} fire times are missing"


def side_by_side(evidence: Evidence) -> Iterator[str]:
    """Of a schedule that takes turns, and of a chain, one job runs at a time."""
    for name in ("line", "chain"):
        mine = sorted((body for body in evidence.bodies if body.task == name), key=lambda body: body.begun_ns)
        for one, two in pairwise(mine):
            if evidence.had_until_ns(one) > two.begun_ns:
                yield f"{name}: {two} began while {one} had the turn"


def too_many(evidence: Evidence) -> Iterator[str]:
    """Of what is limited no more bodies run at once than the limit, in all processes together."""
    times = [(b.begun_ns, evidence.had_until_ns(b)) for b in evidence.bodies if b.task == "limited"]
    times = [(begun_ns, until_ns) for begun_ns, until_ns in times if until_ns > begun_ns]
    moves = [(begun_ns, 1) for begun_ns, _ in times] + [(until_ns, -1) for _, until_ns in times]
    running = 0
    for at_ns, step in sorted(moves):
        running += step
        if running > LIMIT:
            yield f"{running} bodies of limited at {at_ns}"


def taken_up_late(evidence: Evidence) -> Iterator[str]:
    """Within the lease and a second another worker has the job of a dead one."""
    most_ns = round((evidence.lease_s + SOON_S) * NS_PER_S) + evidence.machine_ns
    for died_ns, first, second in take_ups(evidence):
        if any(span.from_ns < second.begun_ns and span.to_ns > died_ns for span in evidence.spans):
            continue
        # Else one more had it, and died before its body began
        is_next = second.attempt == first.attempt + 1
        if is_next and second.begun_ns - died_ns > most_ns:
            pause = f"{(second.begun_ns - died_ns) / NS_PER_S:.2f} s"
            yield f"{first.job} ({first.task}) of {first.who} waited for {pause} until {second.who} had it"


def take_ups(evidence: Evidence) -> Iterator[tuple[int, Body, Body]]:
    """Yield when a process died under a body, that body, and the one that was begun in its place."""
    for bodies in evidence.by_job.values():
        for first, second in pairwise(bodies):
            died_ns = evidence.died_ns.get(first.who)
            if first.ended_ns is None and died_ns is not None:
                yield died_ns, first, second


def ended_by_themselves(evidence: Evidence) -> Iterator[str]:
    """No process ends unasked, but one that finds no server as it starts."""
    up = {entry.who for entry in evidence.entries if entry.kind == "up"}
    cuts = [span for span in evidence.spans if span.who == EVERYBODY]
    for entry in evidence.entries:
        is_excused = entry.who not in up and any(span.from_ns < entry.at_ns < span.to_ns for span in cuts)
        if entry.kind == "ended" and not is_excused:
            yield f"{entry.who} ended by itself"


LAWS: Final = (ended_by_themselves, lost, begun_without_reason, ticks, side_by_side, too_many, taken_up_late)


def verdict(evidence: Evidence) -> list[str]:
    """Return all that is wrong, in words."""
    return [wrong for law in LAWS for wrong in law(evidence)]
