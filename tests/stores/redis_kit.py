"""Redis stores on a clock that tests move, and what must hold for every key of one."""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import redis

from quarterjack.stores.redis import RedisStore
from quarterjack.testing.store_contract import Bench

__all__ = ["KeptClockStore", "RedisBench", "broken_keys", "cluster_options", "filled", "free_port", "opened"]

CLOCK = "clock-of-tests"
HELD = {"scheduled", "started", "running"}
OPEN = {"submitted", *HELD}
LASTING = {
    "layout",
    "seq",
    "all",
    "states",
    "waiting",
    "scheds",
    "due",
    "delayed",
    "leases",
    "done",
    "audit",
    "workers",
}
"""Keys of the store itself: one each, however much it keeps."""


class KeptClockStore(RedisStore):
    """Asks a key for the time, in place of the server."""

    clock_script = f"return tonumber(redis.call('GET', KEYS[1] .. '{CLOCK}'))"


class RedisBench(Bench):
    """A store with a prefix of its own on a server, and its clock."""

    store: KeptClockStore

    def __init__(self, url: str) -> None:
        prefix = f"qj_{secrets.token_hex(6)}"
        super().__init__(KeptClockStore.from_url(f"{url}?prefix={prefix}"))
        self.client = redis.Redis.from_url(url, decode_responses=True)
        self.root = f"{{{prefix}}}:"
        self._set()

    async def advance(self, seconds: float) -> None:
        await super().advance(seconds)
        self._set()

    def _set(self) -> None:
        self.client.set(self.root + CLOCK, self.clock.now_ns() // 1_000)

    def check(self) -> None:
        """Fail if a key says something else than the others."""
        broken = broken_keys(self.client, self.root)
        assert not broken, "; ".join(broken)

    def end(self) -> None:
        """Check, and take the keys away."""
        try:
            self.check()
        finally:
            self.remove()

    def remove(self) -> None:
        """Take the keys away."""
        self.client.delete(*self.client.scan_iter(match=f"{self.root}*", count=1_000))
        self.client.close()


def broken_keys(client: Any, root: str) -> list[str]:
    """Return, in words, every key that has neither an owner nor an end, or that says something untrue."""
    return list(_Keys(client, root).wrong())


def cluster_options() -> list[str]:
    """Return the options of a server that is a node of a cluster: it listens on a second port, to the others."""
    return ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def opened(url: str) -> AsyncIterator[RedisBench]:
    """Yield an open store on a prefix of its own; look at every key it leaves."""
    bench = RedisBench(url)
    await bench.open()
    yield bench
    await bench.store.close()
    bench.end()


async def filled(store: RedisStore) -> None:
    """Let the server of *store* have no memory left."""
    await store._scripts.link.call("testing", "CONFIG", "SET", "maxmemory", "1")


class _Keys:
    """All keys of a store, read once."""

    def __init__(self, client: Any, root: str) -> None:
        self.all: dict[str, Any] = {}
        self.ends: dict[str, int] = {}
        readers = {
            "hash": client.hgetall,
            "zset": lambda key: dict(client.zrange(key, 0, -1, withscores=True)),
            "set": client.smembers,
            "string": client.get,
            "list": lambda key: client.lrange(key, 0, -1),
        }
        for key in client.scan_iter(match=f"{root}*", count=1_000):
            kind = client.type(key)
            if kind == "none":  # it has just run out
                continue
            self.all[key.removeprefix(root)] = readers[kind](key)
            self.ends[key.removeprefix(root)] = client.pttl(key)
        self.jobs = {name[2:]: fields for name, fields in self.all.items() if name.startswith("j:")}

    def of(self, kind: str) -> Iterator[tuple[str, Any]]:
        """Yield the keys of a kind, what follows the colon and what is in them."""
        return ((name[len(kind) + 1 :], value) for name, value in self.all.items() if name.startswith(f"{kind}:"))

    def wrong(self) -> Iterator[str]:
        yield from self.strays()
        yield from self.waiting()
        yield from self.sets()
        yield from self.keys()
        yield from self.counts()

    def strays(self) -> Iterator[str]:
        """Every key has an owner that knows it, or an end."""
        known = {"j", "d", "ready", "lanes", "open", "turn", "parked", "unique", "sched", "held", "barred", "made"}
        for name in self.all:
            kind = name.partition(":")[0]
            if name in LASTING or name == CLOCK or kind in known:
                continue
            if self.ends[name] == -1:
                yield f"{name} has no end"
        for job_id, _ in self.of("d"):
            if job_id not in self.jobs:
                yield f"d:{job_id} has no job"

    def waiting(self) -> Iterator[str]:
        """Each job stands where it says, and nowhere else."""
        places: dict[str, list[str]] = {}
        for name, members in self.all.items():
            kind = {"ready": "r", "parked": "p"}.get(name.partition(":")[0], "d" if name == "delayed" else "")
            for member in members if kind else ():
                places.setdefault(member[17:], []).append(kind)
        for job_id in self.all.get("done", ()):
            places.setdefault(job_id, []).append("f")
        for job_id, job in self.jobs.items():
            at = [job["at"]] if job.get("at") else []
            if places.pop(job_id, []) != at:
                yield f"job {job_id} is at {at}, and not where that is"
            is_over = job["state"] not in OPEN and "zombie" not in job
            if (job["state"] == "submitted") != (at[:1] in (["r"], ["d"], ["p"])) or is_over != (at == ["f"]):
                yield f"job {job_id}, {job['state']}, is at {at}"
        for job_id in places:
            yield f"{job_id} stands in a line, and is no job"

    def sets(self) -> Iterator[str]:
        """What is looked up by is what the rows say."""
        leased = {job_id: float(-(-int(job["lease_until_ns"]) // 1_000)) for job_id, job in self.jobs.items()
                  if job.get("lease_until_ns")}  # fmt: skip
        if self.all.get("leases", {}) != leased:
            yield f"leases are {self.all.get('leases')}, and should be {leased}"
        if self.all.get("all", {}) != {job_id: float(job["seq"]) for job_id, job in self.jobs.items()}:
            yield "all is not all jobs"
        lanes = {f"{len(queue)}:{queue}{lane}" for queue, names in self.of("lanes") for lane in names}
        if lanes != {name for name, _ in self.of("ready")}:
            yield f"lanes are {lanes}"
        schedules = dict(self.of("sched"))
        if set(self.all.get("scheds", ())) != set(schedules):
            yield "scheds is not all schedules"
        due = {name: float(-(-int(row["wake_ns"]) // 1_000)) for name, row in schedules.items() if "wake_ns" in row}
        if self.all.get("due", {}) != due:
            yield f"due is {self.all.get('due')}, and should be {due}"
        for kind in ("held", "barred"):
            for key, names in self.of(kind):
                for name in names:
                    if "held_up_ns" not in schedules.get(name, {}):
                        yield f"{kind}:{key} holds up {name}, which is not"
        for name, _ in self.of("made"):
            if name not in schedules:
                yield f"made:{name} has no schedule"

    def keys(self) -> Iterator[str]:
        """Overlap keys, turns and unique keys are of open jobs."""
        is_open = {i: job for i, job in self.jobs.items() if job["state"] in OPEN or "zombie" in job}
        opened: dict[str, set[str]] = {}
        for job_id, job in is_open.items():
            has_turn = "turns" in job and job["state"] != "submitted"
            if "overlap_key" in job and (has_turn or "late" not in job):
                opened.setdefault(job["overlap_key"], set()).add(job_id)
        if opened != {key: set(ids) for key, ids in self.of("open")}:
            yield f"open jobs by key are not {opened}"
        turns = dict(self.of("turn"))
        for job_id, job in is_open.items():
            if "turns" in job and job["state"] != "submitted" and turns.pop(job["overlap_key"], None) != job_id:
                yield f"job {job_id} is held without its turn"
        yield from (f"turn:{key} is of {job_id}, which is not held" for key, job_id in turns.items())
        for key, members in self.of("parked"):
            in_line = {i for i, j in is_open.items() if j.get("overlap_key") == key and j.get("at") == "r"}
            if members and not in_line and f"turn:{key}" not in self.all:
                yield f"parked:{key} waits for nobody"
        for key, entry in self.of("unique"):
            if "until" not in entry and entry["id"] not in is_open:
                yield f"unique:{key} is of {entry['id']}, which is over"
            if "until" in entry and self.ends[f"unique:{key}"] == -1:
                yield f"unique:{key} has no end"

    def counts(self) -> Iterator[str]:
        """Counters are what one would count."""
        states: dict[str, int] = {}
        waits: dict[str, int] = {}
        for job in self.jobs.values():
            states[job["state"]] = states.get(job["state"], 0) + 1
            if job["state"] == "submitted":
                waits[job["queue"]] = waits.get(job["queue"], 0) + 1
        for name, counted in (("states", states), ("waiting", waits)):
            if {key: int(n) for key, n in self.all.get(name, {}).items()} != counted:
                yield f"{name} is {self.all.get(name)}, and should be {counted}"
