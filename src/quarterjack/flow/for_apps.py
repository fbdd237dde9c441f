"""Flows of an app: what is taken for one, and how a queue's and a task's act as one.

A job of a task with a flow, in a queue with another, passes the gates of both,
all taken at once. Of what there can be only one of, the task's counts: it was
written for this work, the queue's for whatever comes along."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from quarterjack._numbers import shown
from quarterjack.errors import InvalidOption
from quarterjack.options import is_remote, runs_commands

from ._fleet import refuse_twins
from .base import Gate
from .flow import Flow, Strategy
from .hedge import Hedge

__all__ = ["as_flow", "check_wraps", "flow_of_batches", "gates_of", "merged", "refuse_twins_of_batches"]


def as_flow(value: Any, where: str) -> Flow | None:
    """Return *value* as the flow of a task or a queue; a strategy alone is a flow of one.

    Raises:
        InvalidOption: If it is none, or holds what means nothing to a stored job.
    """
    if value is None:
        return None
    if isinstance(value, Strategy):
        value = Flow(value)
    if not isinstance(value, Flow):
        hint = " (the class; make an object of it)" if isinstance(value, type) else ""
        if isinstance(value, list | tuple):
            hint = " (put them into one: Flow(…, …))"
        raise InvalidOption(f"{where}: flow must be a Flow such as Flow(ConcurrencyLimit(5)), got {shown(value)}{hint}")
    if value.dedupe is not None:
        raise InvalidOption(
            f"{where}: Dedupe is for a TaskManager, whose jobs are at hand; an app's jobs are stored, "
            'so one for all who ask for the same is an option of theirs: unique="…"'
        )
    return value


def gates_of(flows: Iterable[Flow | None]) -> list[Gate]:
    """Return the gates of *flows*, each once."""
    return list(dict.fromkeys(gate for flow in flows if flow is not None for gate in flow.gates))


def merged(queue: Flow | None, task: Flow | None, where: str) -> Flow | None:
    """Return the flow of a job from that of its queue and that of its task; None if neither has one.

    Raises:
        InvalidOption: If both have an Order, and not the same, or the rest cannot work together.
    """
    if queue is None or task is None or queue is task:
        return task or queue
    if queue.order is not None and task.order is not None and queue.order is not task.order:
        raise InvalidOption(
            f"{where}: its queue's flow orders jobs by {queue.order!r} and its own by {task.order!r}; two Orders "
            "cannot both say who is next: leave one out, or put the same object into both"
        )
    single = (
        task.order or queue.order,
        task.retry or queue.retry,
        task.timeout or queue.timeout,
        task.deadline or queue.deadline,
        task.fallback or queue.fallback,
    )
    try:
        return Flow(
            *queue.gates, *task.gates, *queue.wraps, *task.wraps, *(part for part in single if part is not None)
        )
    except InvalidOption as error:
        raise InvalidOption(f"{where}: its queue's flow and its own do not go together: {error}") from None


def check_wraps(flow: Flow | None, executor: Any, where: str, *, is_coroutine: bool) -> None:
    """Refuse wraps of *flow* that would do nothing for a body that runs at an ``executor=``.

    Args:
        flow: What the job passes.
        executor: Where its body runs, as users write it; None is where bodies of its kind run.
        where: Whose flow it is, for the text.
        is_coroutine: Whether the body, as written, is a coroutine function.

    Raises:
        InvalidOption: With what to do instead.
    """
    if flow is None or not flow.wraps:
        return
    if is_remote(executor):
        place = executor if isinstance(executor, str) else executor.name
        raise InvalidOption(
            f"{where} runs in other processes (executor {place!r}), and its flow holds {flow.wraps[0]!r}, which would "
            "have to run around its body there: leave that out, use an executor of this process, or @app.around, which "
            "runs there, too"
        )
    hedge = next((wrap for wrap in flow.wraps if isinstance(wrap, Hedge)), None)
    if hedge is None:
        return
    if runs_commands(executor):
        raise InvalidOption(
            f"{where} runs a command, and its flow holds {hedge!r}: that begins bodies, and a command's body has "
            "returned before it runs; leave the Hedge out (flow=None, if it is a group's)"
        )
    if not is_coroutine:
        raise InvalidOption(
            f"{where} is a plain function, and its flow holds {hedge!r}: it keeps its thread until it returns, so that "
            "no second body could begin; make it async def, with `await asyncio.to_thread(…)` around what blocks, or "
            "leave the Hedge out (flow=None, if it is a group's)"
        )


def refuse_twins_of_batches(queue: Flow, batch: Flow | None, where: str) -> None:
    """Refuse a limit of a fleet that each item passes in the queue's flow, and once more with its batch.

    Raises:
        InvalidOption: The items would hold what their batch waits for.
    """
    try:
        refuse_twins(gates_of((queue, batch)))
    except InvalidOption as error:
        raise InvalidOption(f"{where}: its items pass the queue's flow, its batches their own: {error}") from None


def flow_of_batches(flow: Flow, where: str) -> Flow:
    """Return *flow* for a task whose jobs go in batches.

    Raises:
        InvalidOption: If it holds what is done for single jobs.
    """
    single: list[tuple[Any, str]] = [
        (flow.retry, "retry=, which tries each item anew"),
        (flow.deadline, "timeout= or start_deadline="),
        (flow.fallback, "a result of the body's for what failed"),
    ]
    for part, instead in single:
        if part is not None:
            raise InvalidOption(
                f"{where}: its flow is passed by batches, and {part!r} is for single jobs; use {instead}"
            )
    return flow
