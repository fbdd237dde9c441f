"""A clock application with groups and dependencies, after aioclock's example.

python examples/aioclock_app.py          runs until Ctrl-C
python examples/aioclock_app.py 3        stops after three seconds
qj ls examples/aioclock_app.py           its schedules
"""

from __future__ import annotations

import asyncio
import sys

from quarterjack import At, Depends, Every, Forever, Group, Once, OnShutdown, OnStartup, Quarterjack

# groups.py

group = Group("examples")


def more_useless_than_me() -> str:
    """A dependency: filled in at each run."""
    return "a screen door on a submarine"


@group.task(Every(seconds=2))
async def every() -> None:
    """Coroutine functions run on the loop."""
    print("every 2 seconds: a quantum leap")


@group.task(Every(seconds=1))
def even_sync_works() -> None:
    """Plain functions run in a thread."""
    print("every second: a plain function, in a thread")


@group.task(At(hour=0, minute=0, second=0, tz="UTC"))
async def at() -> None:
    """Named times of day, in any zone."""
    print("midnight: a pumpkin")


@group.task(Forever(pause=0.5))
async def forever(value: str = Depends(more_useless_than_me)) -> None:
    """Again as soon as the last run ended."""
    await asyncio.sleep(0.2)
    print(f"forever: still here, with {value}")


@group.task(Once())
async def once() -> None:
    """One shot."""
    print("once: I love lamp")


# app.py

app = Quarterjack()
app.include_group(group)


@app.task(OnStartup())
async def startup() -> None:
    """Before the first job."""
    print("welcome")


@app.task(OnShutdown())
async def shutdown() -> None:
    """After the last."""
    print("going offline")


async def main(seconds: float | None) -> None:
    """Serve until a signal, or for some seconds."""
    if seconds is not None:
        asyncio.get_running_loop().call_later(seconds, app.stop)
    await app.serve()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else None))
