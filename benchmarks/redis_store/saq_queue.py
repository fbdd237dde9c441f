"""SAQ over a Valkey server on this machine."""

from __future__ import annotations

from measure import options, run
from saq_jobs import play_saq
from valkey import server

args = options(n=20_000, how="drain", concurrency=100, lot=1_000, tasks=1, backlog=0)


async def main() -> None:
    with server() as one:
        await play_saq(args, one)


run(main, args)
