"""The parts of a task with dependencies, as fast-depends is given them.

Each part is made for one task and takes keywords of our own naming, whose
defaults are the marks of other parts. So fast-depends lends its order, its cache
and its clean-up, and has nothing to look up by itself: no names in the frames of
whoever calls, no values by the name of a parameter, no model of a dependency
shared by all who name it. Plain generators of coroutine functions are handed over
as asynchronous ones, so that a cancellation leaves them as it leaves the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from inspect import BoundArguments, Parameter, Signature
from typing import TYPE_CHECKING, Any

from ._needs import Filling, Fn, Needs

if TYPE_CHECKING:
    from anyio import CapacityLimiter

__all__ = ["awaiting", "injected", "passed_as"]

Arguments = Callable[[Mapping[str, Any]], BoundArguments]
"""From what fast-depends passes to what the user's callable takes."""


def injected(needs: Needs) -> Fn:
    """Return the task's function with its dependencies filled in; it takes its arguments `passed_as` keywords."""
    from fast_depends import Provider, inject  # noqa: PLC0415  # only tasks that declare dependencies come here

    root = _Parts(needs.kind).root(needs)
    made: Fn = inject(root, cast=False, cast_result=False, dependency_provider=Provider())
    return made


def passed_as(parameter: Parameter) -> str:
    """Return the name an argument of the task goes by: no user's, and none of fast-depends' own."""
    prefix = "rest" if parameter.kind in {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD} else "argument"
    return f"{prefix}_{parameter.name}"


class _Parts:
    """Makes the callables of one task: one for each dependency, and for each use of one that is not shared."""

    def __init__(self, root_kind: str) -> None:
        self._in_threads = root_kind == "coroutine"
        self._shared: dict[Any, tuple[str, Any]] = {}
        self._count = 0

    def root(self, needs: Needs) -> Fn:
        """Return the task's own function; it takes all of its arguments, the variadic ones too."""
        names = {name: passed_as(parameter) for name, parameter in needs.call_signature.parameters.items()}
        return self._part(needs, names)

    def _part(self, needs: Needs, names: dict[str, str]) -> Fn:
        defaults: dict[str, Any] = dict.fromkeys(names.values(), Parameter.empty)
        for name, filling in needs.filled.items():
            names[name], defaults[names[name]] = self._dependency(filling)
        part = _taking(needs, names, in_threads=self._in_threads)
        parameters = [Parameter(name, Parameter.KEYWORD_ONLY, default=default) for name, default in defaults.items()]
        part.__signature__ = Signature(parameters)  # what inspect.signature looks for
        part.__name__ = part.__qualname__ = needs.label
        made: Fn = part
        return made

    def _dependency(self, filling: Filling) -> tuple[str, Any]:
        """Return the name a dependency's value is passed by, and fast-depends' mark for it."""
        needs, is_shared = filling
        key = needs.fn if _has_hash(needs.fn) else id(needs.fn)
        if is_shared and key in self._shared:
            return self._shared[key]
        from fast_depends import Depends as depends  # noqa: N813, PLC0415  # loaded already

        self._count += 1
        name = f"dependency_{self._count}"
        part = self._part(needs, {name: passed_as(parameter) for name, parameter in needs.asked.items()})
        made = name, depends(part, use_cache=is_shared, cast=False)
        if is_shared:
            self._shared[key] = made
        return made


def _has_hash(fn: Fn) -> bool:
    try:
        hash(fn)
    except TypeError:
        return False
    return True


def _taking(needs: Needs, names: Mapping[str, str], *, in_threads: bool) -> Any:
    """Return a function of the kind of *needs* that takes its arguments by other *names*."""
    fn, signature = needs.fn, needs.signature
    in_order = [(name, names[name]) for name in signature.parameters if name in names]

    def arguments(given: Mapping[str, Any]) -> BoundArguments:
        return BoundArguments(signature, {name: given[other] for name, other in in_order if other in given})

    if needs.kind == "async generator":
        return _async_generator(fn, arguments)
    if needs.kind == "generator":
        return _threaded_generator(fn, arguments) if in_threads else _generator(fn, arguments)

    def part(**given: Any) -> Any:
        bound = arguments(given)
        return fn(*bound.args, **bound.kwargs)

    return awaiting(part) if needs.kind == "coroutine" else part


def awaiting(call: Fn) -> Fn:
    """Return *call*, which returns a coroutine, as what asyncio takes for a coroutine function."""

    async def awaited(*args: Any, **kwargs: Any) -> Any:
        return await call(*args, **kwargs)

    return awaited


# The exception of the body is thrown into a generator, as by a context manager, but
# one that forgets to raise it again does not make the job a success.


def _generator(fn: Fn, arguments: Arguments) -> Fn:
    def part(**given: Any) -> Iterator[Any]:
        bound = arguments(given)
        manager = contextmanager(fn)(*bound.args, **bound.kwargs)
        value = manager.__enter__()
        try:
            yield value
        except BaseException as error:
            manager.__exit__(type(error), error, error.__traceback__)
            raise
        manager.__exit__(None, None, None)

    return part


def _async_generator(fn: Fn, arguments: Arguments) -> Fn:
    async def part(**given: Any) -> AsyncIterator[Any]:
        bound = arguments(given)
        manager = asynccontextmanager(fn)(*bound.args, **bound.kwargs)
        value = await manager.__aenter__()
        try:
            yield value
        except BaseException as error:
            await manager.__aexit__(type(error), error, error.__traceback__)
            raise
        await manager.__aexit__(None, None, None)

    return part


def _threaded_generator(fn: Fn, arguments: Arguments) -> Fn:
    """Both halves of a plain generator run in threads, to their end, and the second one whatever ended the body."""

    async def part(**given: Any) -> AsyncIterator[Any]:
        bound = arguments(given)
        manager = contextmanager(fn)(*bound.args, **bound.kwargs)
        value, cancelled = await _to_its_end(manager.__enter__)
        try:
            if cancelled is not None:
                raise cancelled
            yield value
        except GeneratorExit as closed:  # the loop is gone: nothing can be awaited any more
            manager.__exit__(GeneratorExit, closed, closed.__traceback__)
            raise
        except BaseException as error:
            await _leave(manager, error)
            raise
        await _leave(manager, None)

    return part


async def _leave(manager: AbstractContextManager[Any], error: BaseException | None) -> None:
    """Leave *manager* in a thread, and only then pass on a cancellation meanwhile."""
    from anyio import CapacityLimiter  # noqa: PLC0415  # fast-depends has loaded it

    leave = partial(manager.__exit__, type(error) if error else None, error, error.__traceback__ if error else None)
    # A limit of its own: did it wait for threads that wait for what it gives back, nothing would end.
    _, cancelled = await _to_its_end(leave, CapacityLimiter(1))
    if cancelled is not None:
        raise cancelled


async def _to_its_end(work: Fn, limit: CapacityLimiter | None = None) -> tuple[Any, asyncio.CancelledError | None]:
    """Run *work* in a thread until it is done, whatever happens; return its result and the cancellation meanwhile."""
    from anyio import to_thread  # noqa: PLC0415  # fast-depends has loaded it

    thread = asyncio.ensure_future(to_thread.run_sync(work, limiter=limit))
    cancelled = None
    while not thread.done():
        try:
            await asyncio.wait({thread})
        except asyncio.CancelledError as error:
            cancelled = error
    return thread.result(), cancelled
