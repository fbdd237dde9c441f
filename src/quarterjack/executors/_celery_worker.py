"""Inside a Celery worker: the task ``quarterjack.run``, which runs the bodies of an app's tasks.

It asks the fence before a body begins; what the body says and hears meanwhile is `_celery_pulse`'s."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

from celery.exceptions import Ignore
from celery.utils.imports import cwd_in_path

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import InvalidOption

from ._celery_pulse import Bell, Fence, Pulse
from ._gate import DOORBELL
from ._loading import load_bodies
from ._remote import Answer, Bodies, Body, HasBodies, Request, run, take_or_answer
from .base import AppRef

__all__ = ["TASK", "serve"]

TASK: Final = "quarterjack.run"
_served: Final[WeakKeyDictionary[Any, HasBodies | str]] = WeakKeyDictionary()
"""Whose bodies the workers of each Celery app run."""


def serve(celery: Any, app: HasBodies | str) -> None:
    """Register the task that runs the bodies of *app*; see `quarterjack.executors.celery.serve_bodies`."""
    served = _served.setdefault(celery, app)
    if served != app:  # Celery keeps the first task of a name, in silence
        raise InvalidOption(
            f"workers of the Celery app {celery.main!r} run the bodies of {served!r}, and cannot run those of "
            f"{app!r} as well: make a Celery app for each, with a queue of its own"
        )
    place = _Place(app)

    # Acknowledged before it runs: one that is delivered again after a crash would only meet the fence.
    register: Callable[[Callable[..., str]], Any] = celery.task(
        name=TASK, bind=True, acks_late=False, ignore_result=False, max_retries=0, serializer="json"
    )

    @register
    def quarterjack_run(self: Any, text: str) -> str:
        request = Request.read(text.encode())
        fence = Fence(self.backend, request.ref)
        if not fence.may_begin():
            raise Ignore
        if request.deadline_ns is not None and SYSTEM_CLOCK.now_ns() > request.deadline_ns:
            return Answer.missed("its message came after its start deadline").decode()
        pulse = Pulse(self.backend, fence, self.request.id)
        body = take_or_answer(place.bodies, request, pulse, "Celery worker")
        return (body if isinstance(body, bytes) else place.answer(body, pulse)).decode()


class _Place:
    """The process that runs bodies: those that it knows, and how they are interrupted.

    With Celery's own pool of processes they run in the main thread, behind a gate. Other
    pools run them in other threads: there a body is only told (``current_job().cancel_requested``).

    Args:
        app: Where they stand; it is loaded with the first body, and not in the process that forks this one.
    """

    def __init__(self, app: HasBodies | str) -> None:
        self._app = app
        self._bodies: Bodies | None = None
        self._bell: Bell | None = None

    def bodies(self) -> Bodies:
        """Return the app's bodies."""
        if self._bodies is None:
            self._bodies = _bodies_of(self._app)
        return self._bodies

    def answer(self, body: Body, pulse: Pulse) -> bytes:
        """Run a body to its end; return the answer."""
        bell = self._bell_here()
        if bell is None:
            with pulse:
                return run(body)
        bell.begin(pulse)
        with pulse:
            return bell.stage.answer(body)

    def _bell_here(self) -> Bell | None:
        is_main = threading.current_thread() is threading.main_thread()
        if self._bell is None and is_main and DOORBELL is not None:
            self._bell = Bell()
        return self._bell if is_main else None


def _bodies_of(app: HasBodies | str) -> Bodies:
    if not isinstance(app, str):
        return Bodies(app)
    module, _, attribute = app.partition(":")
    with cwd_in_path():  # as for modules of Celery's own: its command does not have that on the path otherwise
        return load_bodies(AppRef(module, None, attribute or "app"))
