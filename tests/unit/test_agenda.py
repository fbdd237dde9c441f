"""The scheduler's agenda: which schedules are next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quarterjack import Every
from quarterjack.model import Payload, Schedule, Timing
from quarterjack.runtime.agenda import Agenda


def schedule(name: str, due_ns: int | None) -> Schedule:
    row = Schedule(name, Timing(trigger=Every(seconds=1)), Payload(task="work"))
    row.next_due_ns = due_ns
    return row


INSTANTS = st.none() | st.integers(1, 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abc"), INSTANTS),
        st.tuples(st.just("pause in place"), st.sampled_from("abc"), st.none()),
        st.tuples(st.just("forget"), st.sampled_from("abc"), st.none()),
        st.tuples(st.just("take"), st.integers(1, 3), st.integers(1, 4)),
    ),
    max_size=40,
)


@given(STEPS)
def test_it_agrees_with_a_sorted_table_whatever_is_done(steps: list[tuple[str, str | int, int | None]]) -> None:
    """A schedule left out here would be dropped in silence; one that comes twice would run twice."""
    agenda = Agenda()
    rows: dict[str, Schedule] = {}

    def due() -> list[tuple[int, str]]:
        return sorted((at, key) for key, row in rows.items() if (at := row.wake_ns) is not None)

    for what, key, number in steps:
        if what == "put" and isinstance(key, str):
            rows[key] = schedule(key, number)
            agenda.put(rows[key])
        elif what == "pause in place" and key in rows and isinstance(key, str):
            rows[key].next_due_ns = None
        elif what == "forget" and isinstance(key, str):
            rows.pop(key, None)
            agenda.forget(key)
        elif what == "take" and isinstance(key, int) and number is not None:
            expected = [at for at, _ in due() if at <= key]
            taken = agenda.take(key, number)
            assert len({row.id for row in taken}) == len(taken)
            assert [row.wake_ns for row in taken] == expected[:number]
            for row in taken:
                row.next_due_ns = None  # as a fire does: the next instant is put later
        assert agenda.next_ns == (due()[0][0] if due() else None)
        assert len(agenda) == len(rows)


def test_schedules_of_one_instant_come_in_the_order_they_were_put_over_several_takes() -> None:
    """Ten thousand schedules of one second start in chunks; nobody waits longer because of a later one."""
    agenda = Agenda()
    for name in "abcdefg":
        agenda.put(schedule(name, 5))
    taken: list[str] = []
    while rows := agenda.take(5, 3):
        taken += [row.id for row in rows]
        for row in rows:
            row.next_due_ns = 6
            agenda.put(row)
    assert "".join(taken) == "abcdefg"
    assert agenda.next_ns == 6


def test_it_knows_nothing_after_clear() -> None:
    """The scheduler reads everything anew after a store failed."""
    agenda = Agenda()
    agenda.put(schedule("a", 5))
    agenda.clear()
    assert agenda.next_ns is None
    assert agenda.take(10, 10) == []
    agenda.put(schedule("b", 5))
    assert [row.id for row in agenda.take(5, 10)] == ["b"]
