"""Cases of the store contract: slots and tokens that processes share."""

# ruff: noqa: S101  # assert is how a suite of tests speaks
from __future__ import annotations

from collections.abc import Sequence

from quarterjack.errors import MissingExtra
from quarterjack.stores.base import WAITER_S, Acquired, Hint

from ._bench import Bench

try:
    import pytest
except ImportError as error:
    raise MissingExtra("the store contract suite", "testing") from error

__all__ = ["LimitContract"]


class LimitContract:
    """What ``limit_*`` promises."""

    async def test_slots_are_taken_as_many_as_are_free_and_run_out(self, b: Bench) -> None:
        """A holder that died frees its slots by itself, and how long that takes at most is told."""
        take = b.store.limit_acquire
        assert await take("l", ["a1", "a2"], maximum=3, ttl_s=30) == Acquired(("a1", "a2"))
        assert await take("other", ["a1", "a2", "a3"], maximum=3, ttl_s=30) == Acquired(("a1", "a2", "a3"))
        await b.advance(20)
        found = await take("l", ["b1", "b2"], maximum=3, ttl_s=60)
        assert (found.taken, found.waiting) == (("b1",), 0)
        assert found.wait_s == pytest.approx(10, abs=0.5)
        assert await b.store.limit_renew("l", ["a1", "gone", "b1"], 30) == ["gone"]
        await b.advance(10)
        assert (await take("l", ["b2"], maximum=3, ttl_s=60)).taken == ("b2",)
        assert await b.store.limit_renew("l", ["a2", "b2", "a1"], 30) == ["a2"]
        assert (await take("l", ["c1"], maximum=3, ttl_s=30)).taken == ()
        for _ in range(2):
            await b.store.limit_release("l", ["b2", "nobody"])
        assert (await take("l", ["c1", "c2"], maximum=3, ttl_s=30)).taken == ("c1",)

    async def test_a_slot_asked_for_twice_is_one_slot(self, b: Bench) -> None:
        """A call whose answer was lost may be made again; who asks for none learns and takes nothing."""
        for _ in range(2):
            assert await b.store.limit_acquire("l", ["a1", "a2"], maximum=2, ttl_s=30) == Acquired(("a1", "a2"))
        assert await b.store.limit_acquire("l", [], maximum=2, ttl_s=30, waiter="w") == Acquired(())
        assert (await b.store.limit_acquire("l", ["b1"], maximum=3, ttl_s=30)).taken == ("b1",)

    async def test_who_waits_for_a_slot_is_known_and_told(self, b: Bench) -> None:
        """Holders see that others wait, so that they can share; who waits need not poll for what is given back."""
        told: list[tuple[Hint, Sequence[str]]] = []
        b.store.listen(lambda hint, ids: told.append((hint, ids)))
        take = b.store.limit_acquire
        assert (await take("l", ["a1"], maximum=1, ttl_s=60, waiter="a")).waiting == 0
        for _ in range(2):
            assert (await take("l", ["b1"], maximum=1, ttl_s=60, waiter="b")).waiting == 0
        assert (await take("l", ["a2"], maximum=1, ttl_s=60, waiter="a")).waiting == 1
        assert not [hint for hint, _ in told if hint is Hint.LIMITS]
        await b.store.limit_release("l", ["a1"])
        assert (Hint.LIMITS, ["l"]) in [(hint, list(ids)) for hint, ids in told]
        assert (await take("l", ["b1"], maximum=1, ttl_s=60, waiter="b")).waiting == 1
        assert (await take("l", ["c1"], maximum=1, ttl_s=60)).waiting == 1
        await b.advance(WAITER_S)
        assert (await take("l", ["c1"], maximum=1, ttl_s=60)).waiting == 0

    async def test_tokens_refill_at_their_rate_up_to_the_burst(self, b: Bench) -> None:
        """The answer is when to come back; nothing is taken until then."""
        take = b.store.limit_take
        assert [await take("t", 1, rate=2, burst=3) for _ in range(3)] == [0, 0, 0]
        for _ in range(2):
            assert await take("t", 1, rate=2, burst=3) == pytest.approx(0.5)
        await b.advance(0.5)
        assert await take("t", 1, rate=2, burst=3) == 0
        await b.advance(3600)
        assert [await take("t", 1, rate=2, burst=3) > 0 for _ in range(4)] == [False, False, False, True]
