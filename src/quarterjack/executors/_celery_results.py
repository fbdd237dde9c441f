"""Celery's results in Redis or Valkey, as they come: subscribed to, and looked at again after each reconnect."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from celery import Celery
from celery.backends.redis import RedisBackend, SentinelBackend

from quarterjack.errors import InvalidOption, MissingExtra

from ._celery_fence import (
    CLOSE,
    KEEP,
    KEPT_S,
    TAKE_UP,
    WANT,
    WITHDRAW,
    alive_key,
    begun_key,
    orders_key,
    wanted_key,
)
from ._outage import Outage

try:
    import redis as sync
    import redis.asyncio as redis
    from redis.exceptions import RedisError
except ImportError as error:
    raise MissingExtra("results of Celery in Redis", "celery") from error

__all__ = ["ENDS", "Results", "check_results"]

log = logging.getLogger("quarterjack.celery")

_DOWN: Final = (RedisError, OSError, TimeoutError)
"""What a backend that is away raises."""
LOOK_S: Final = 5.0
"""How often everything is looked at that a message may have been lost of."""
PAUSE_S: Final = (0.1, 5.0)
"""Before a reconnect: the first and the longest pause."""
TIMEOUT_S: Final = 5.0
AGAIN_S: Final = 0.1
"""redis-py may swallow a cancel in the middle of a connect: then another one is needed."""
CHANNEL: Final = "quarterjack:hello"
"""A subscription that is always there."""
HEARD_S: Final = 3600
"""A result that was heard goes by itself after that, if nobody removes it."""
CLOSING_S: Final = (0.1, 0.5, 2.0, 10.0, 30.0)
"""Pauses before an attempt is closed again, where the server did not answer."""
ENDS: Final = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
"""States of tasks that are over."""
_KINDS: Final[Mapping[Any, Any]] = {
    sync.SSLConnection: redis.SSLConnection,
    sync.UnixDomainSocketConnection: redis.UnixDomainSocketConnection,
}
_OURS: Final = frozenset({"connection_class", "max_connections", "decode_responses"})
"""What Celery says of its connection that is another matter here."""


def check_results(celery: Any) -> None:
    """Look whether the results of a Celery app can be listened for.

    Raises:
        InvalidOption: If they cannot, or it is none.
    """
    kind: Any = Celery  # its settings are of no type that a checker knows
    if not isinstance(celery, kind):
        raise InvalidOption(f"a Celery app is wanted, such as Celery('shop', broker=…, backend=…), got {celery!r}")
    backend, name = celery.backend, celery.main
    if not isinstance(backend, RedisBackend) or isinstance(backend, SentinelBackend):
        kept = celery.conf.result_backend or "nowhere"
        raise InvalidOption(
            f"results of the Celery app {name!r} are kept {kept!r}; here they must be in one Redis or Valkey, "
            'as in Celery(…, backend="redis://127.0.0.1:6379/1")'
        )
    if celery.conf.result_serializer != "json":
        raise InvalidOption(
            f"results of the Celery app {name!r} are written as {celery.conf.result_serializer!r}; "
            'here they must be JSON: result_serializer="json"'
        )


class Results:
    """Watches the results of attempts, and holds the fence's keys.

    Args:
        celery: The user's app; its backend is a Redis.
        on_state: Called with an attempt and what its result key holds now.
        on_pulse: Called with an attempt, whether its process has said lately that it is there, whether the
            fence still knows that it is wanted, and whether it has begun.
    """

    def __init__(
        self,
        celery: Any,
        on_state: Callable[[str, Mapping[str, Any]], None],
        on_pulse: Callable[[str, bool, bool, bool], None],
    ) -> None:
        backend = celery.backend
        self._client = _client_like(backend.connparams)
        self._key_of: Callable[[str], bytes] = backend.get_key_for_task
        self._decode: Callable[[bytes], Any] = backend.decode
        self.outage = Outage("Celery's results", PAUSE_S[1], log)
        self._on_state, self._on_pulse = on_state, on_pulse
        self._refs: dict[bytes, str] = {}
        self._pubsub: Any = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False

    def start(self) -> None:
        """Begin to listen."""
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._keep_looking())]

    async def close(self) -> None:
        """Listen no more."""
        self._is_over = True
        left = set(self._tasks)
        while left:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=AGAIN_S)
        await self._client.aclose(close_connection_pool=True)

    # -- what is watched ---------------------------------------------------------------

    async def watch(self, ref: str) -> None:
        """Tell of *ref* from now on."""
        key = self._key_of(ref)
        self._refs[key] = ref
        if self._pubsub is not None:
            await self._pubsub.subscribe(key)

    async def forget(self, ref: str) -> None:
        """Tell no more of *ref*."""
        key = self._key_of(ref)
        if self._refs.pop(key, None) is not None and self._pubsub is not None:
            with suppress(*_DOWN):  # a new connection does not subscribe to it
                await self._pubsub.unsubscribe(key)

    async def close_attempt(self, ref: str, *, is_fenced: bool, is_sent: bool = True) -> None:
        """Remove what is stored of *ref*: its outcome is known, and nobody is to take it up."""
        keys = begun_key(ref), self._key_of(ref), alive_key(ref), orders_key(ref)
        for pause_s in CLOSING_S:
            try:
                if is_fenced:
                    await self._client.eval(CLOSE, len(keys), *keys, KEPT_S)
                else:
                    await self._client.delete(keys[1])
            except _DOWN:
                await asyncio.sleep(pause_s)
            else:
                return
        level = logging.WARNING if is_sent else logging.DEBUG  # then hardly anything is there
        log.log(level, "what Celery keeps of %s could not be removed", ref)

    async def keep(self, ref: str) -> None:
        """Leave the result of *ref* to who takes it up, should this process end before the app's store has it."""
        with suppress(*_DOWN):  # it goes in a day, then
            await self._client.eval(KEEP, 2, begun_key(ref), self._key_of(ref), HEARD_S)

    # -- the fence ---------------------------------------------------------------------

    async def want(self, ref: str) -> bool:
        """Let the body of *ref* begin, and none of another attempt at its job; return whether it has not begun yet."""
        return bool(await self._client.eval(WANT, 2, wanted_key(ref), begun_key(ref), ref, KEPT_S))

    async def take_up(self, before: str, ref: str) -> str | None:
        """Return which attempt of *before*'s job goes on somewhere, or has ended; None if none, and *ref* is wanted."""
        while found := await self._client.eval(TAKE_UP, 1, wanted_key(before), ref, KEPT_S):
            running: str = found[0].decode()
            if found[1] or await self._has_ended(running):
                return running
            await self.close_attempt(running, is_fenced=True)  # its process is gone, and has left no word
        return None

    async def _has_ended(self, ref: str) -> bool:
        value = await self._client.get(self._key_of(ref))
        return value is not None and self._decode(value)["status"] in ENDS

    async def withdraw(self, ref: str, order: str = "") -> bool:
        """Return whether the body of *ref* will never begin; one that has begun is given the order."""
        keys = wanted_key(ref), begun_key(ref), orders_key(ref)
        return bool(await self._client.eval(WITHDRAW, 3, *keys, ref, KEPT_S, order))

    # -- listening ---------------------------------------------------------------------

    async def _listen(self) -> None:
        pause_s = PAUSE_S[0]
        while not self._is_over:
            try:
                async with self._client.pubsub() as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    self._pubsub = pubsub  # who watches something from here on subscribes to it at once
                    await pubsub.subscribe(CHANNEL, *self._refs)
                    await self.look()
                    self.outage.worked()
                    pause_s = PAUSE_S[0]
                    while not self._is_over:
                        message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=LOOK_S)
                        if message is not None:
                            self._tell(message["channel"], message["data"])
            except Exception as error:  # redis-py also has errors of its own of a connection that is torn down
                if self._is_over:
                    return
                self.outage.failed("they could not be listened to", error)
            finally:
                self._pubsub = None
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  # spreads reconnects, keeps no secret
            pause_s = min(2 * pause_s, PAUSE_S[1])

    async def _keep_looking(self) -> None:
        while not self._is_over:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except Exception:  # likewise; the listener tells of it
                log.debug("Celery's results could not be looked at", exc_info=True)

    async def look(self) -> None:
        """Read the results of all that is watched, and whether their processes are there."""
        refs = dict(self._refs)
        if not refs:
            return
        count = len(refs)
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.mget([*refs, *map(alive_key, refs.values()), *map(begun_key, refs.values())])
            for ref in refs.values():
                pipe.expire(wanted_key(ref), KEPT_S)
            values, *wanted = await pipe.execute()
        fences = zip(refs.values(), values[count : 2 * count], wanted, values[2 * count :], strict=True)
        for ref, alive, is_wanted, begun in fences:
            self._on_pulse(ref, alive is not None, bool(is_wanted), begun is not None)
        for key, value in zip(refs, values[:count], strict=True):
            if value is not None:
                self._tell(key, value)

    def _tell(self, key: bytes, value: bytes) -> None:
        ref = self._refs.get(key)
        if ref is None:
            return
        try:
            self._on_state(ref, self._decode(value))
        except Exception:  # whatever a task of theirs has put there, the others go on
            log.exception("what Celery keeps of %s cannot be read", ref)


def _client_like(given: Mapping[str, Any]) -> Any:
    """Return a client that connects as Celery's own does: through TLS, a socket's file, with its credentials."""
    kind: Any = _KINDS.get(given.get("connection_class"), redis.Connection)
    limits = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    own = {name: value for name, value in given.items() if value is not None and name not in _OURS}
    make: Any = redis.ConnectionPool
    return redis.Redis(connection_pool=make(connection_class=kind, **{**own, **limits}))
