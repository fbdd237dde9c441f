"""How long a heat goes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quarterjack.lab.ways._heat import Heat
from tests.unit.lab.kit import S


class Runner:
    """As much of a way's process as a heat asks for."""

    is_running = True
    origin_ns = 0

    def go(self, origin_ns: int) -> None:
        self.origin_ns = origin_ns

    def meter(self) -> None: ...
    def used(self) -> None: ...


@pytest.mark.parametrize(("period_ns", "late_ns"), [(S // 2, S // 2), (60 * S, 2 * S)])
def test_starts_of_the_last_ticks_are_waited_for(period_ns: int, late_ns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is late by less than a period has not missed its last tick, where others would only have been late."""
    heat, runners, ends = Heat((), period_ns=period_ns, seconds=600), [Runner(), Runner()], list[int]()

    def sleep_until(until_ns: int, on_look: Callable[[float], None]) -> None:
        ends.append(until_ns)

    monkeypatch.setattr(heat, "_runners", runners)
    monkeypatch.setattr(heat, "_await_set_up", lambda on_look: None)
    monkeypatch.setattr(heat, "_sleep_until", sleep_until)
    heat.run()
    assert ends[-1] == runners[-1].origin_ns + 600 * S + late_ns
