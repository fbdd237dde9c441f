"""The part of the store contract's suite that is about what users' words and data may hold."""

# ruff: noqa: S101  # assert is how a suite of tests speaks
from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from quarterjack.model import ErrorInfo, FinishKind, JobRecord, JobState, Progress, Unique
from quarterjack.stores.base import CancelAnswer, Renewal

from ._bench import Bench

__all__ = ["TextContract"]

ODD: Final = "a\0b \ud800 \x01 grün 時 '\"\\%_ \n"
"""What a database may stumble over: a NUL, half of a surrogate pair, control characters, quotes, patterns."""


class TextContract:
    """Whatever a body says, its outcome is recorded; what a caller gave comes back."""

    async def test_outcome_is_recorded_whatever_words_it_holds(self, b: Bench) -> None:
        """A message that a database refuses would keep its job running for ever."""
        jobs = [await b.put(), await b.put(unique=Unique("k"))]  # a plain one, and one that the book decides
        error = ErrorInfo(ODD, ODD, ODD)
        for row in await b.claim():
            assert await b.finish(row.fence, FinishKind.FAILED, error=error, reason=ODD)
        for job in jobs:
            found = await b.get(job.id)
            assert found.state is JobState.FAILED
            assert "grün 時 '\"\\%_" in (found.reason or "")
            assert found.error is not None
            assert "grün 時 '\"\\%_" in found.error.message

    async def test_job_given_back_with_any_words_waits_again(self, b: Bench) -> None:
        """Likewise for a retry, a release, and a cancel."""
        job = await b.put()
        (row,) = await b.claim()
        await b.store.jobs_release([row.fence], reason=ODD)
        assert (await b.get(job.id)).state is JobState.SUBMITTED
        (row,) = await b.claim()
        assert await b.finish(row.fence, FinishKind.RETRY, error=ErrorInfo(ODD, ODD, ODD), reason=ODD)
        found = await b.get(job.id)
        assert (found.state, found.failures) == (JobState.SUBMITTED, 1)
        assert "grün" in (found.reason or "")
        assert await b.store.jobs_request_cancel([job.id], ODD) == [CancelAnswer.CANCELLED]
        assert "grün" in ((await b.get(job.id)).reason or "")

    async def test_progress_and_checkpoint_hold_any_words(self, b: Bench) -> None:
        """A renewal that a database refuses would lose the lease."""
        job = await b.put()
        (row,) = await b.claim()
        answer = await b.store.jobs_renew("w1", [Renewal(row.id, row.attempt, Progress(1, 2, ODD), {"at": "grün"})], 30)
        assert answer.lost == []
        found = await b.get(job.id)
        assert found.checkpoint == {"at": "grün"}
        assert found.progress is not None
        assert "grün" in found.progress.text

    async def test_data_comes_back_as_it_was(self, b: Bench) -> None:
        """Arguments and results pass JSON and nothing else: no number is rounded, no text is trimmed."""
        data: dict[str, Any] = {"n": 2**70, "x": 0.1 + 0.2, "t": "a\0b grün ", "l": [None, True, -0.0, 1e300], "": {}}
        given = JobRecord(b.ids(), "a", (data, [], ""), {"kw": data}, b.job(unique=Unique("k", timedelta(1))).options)
        await b.store.jobs_put([given])
        (row,) = await b.claim()
        assert (list(row.args), dict(row.kwargs)) == ([data, [], ""], {"kw": data})
        assert row.options.unique == Unique("k", timedelta(1))
        assert await b.finish(row.fence, result=data)
        assert (await b.get(given.id)).result == data
