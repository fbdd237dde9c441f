"""How a job lives: the table, the errors it raises, and the picture drawn from it."""

from __future__ import annotations

import pickle
from itertools import product
from pathlib import Path

import pytest

from quarterjack.errors import IllegalMove
from quarterjack.lifecycle import MOVES, Move, diagram, move
from quarterjack.model import FINISHED, JobState

DESIGN = Path(__file__).resolve().parents[2] / "docs" / "design.md"


@pytest.mark.parametrize(("state", "event"), list(product(JobState, Move)), ids=str)
def test_a_move_is_in_the_table_or_one_error(state: JobState, event: Move) -> None:
    """There is one place that knows what may happen to a job."""
    if (state, event) in MOVES:
        assert move(state, event) is MOVES[state, event]
    else:
        with pytest.raises(IllegalMove) as caught:
            move(state, event)
        assert (caught.value.state, caught.value.event) == (state.value, event.value)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_final_state_is_left_only_by_asking_for_another_run() -> None:
    """Nothing that happens by itself brings a finished job back."""
    assert {event for state, event in MOVES if state in FINISHED} == {Move.REPEATED}


def test_every_state_can_be_reached_and_every_waiting_one_can_end() -> None:
    """No state is a trap, and none is decoration."""
    reached = {JobState.NEW}
    while more := {after for (before, _), after in MOVES.items() if before in reached} - reached:
        reached |= more
    assert reached == set(JobState)
    for state in set(JobState) - FINISHED:
        assert any(before is state for before, _ in MOVES)


def test_the_diagram_in_the_documentation_is_the_table() -> None:
    """A picture that is not generated is soon wrong."""
    assert diagram().strip() in DESIGN.read_text(encoding="utf-8")
