"""``ls``, ``next`` and ``explain``: what an app will do, without running it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import Result

from quarterjack.policies.missed import MissedMode
from quarterjack.policies.overlap import OverlapMode

QJ = Callable[..., Result]
DOCS = Path(__file__).parents[2] / "docs" / "command.md"


def documented(schema: str) -> dict[str, Any]:
    """Return the example of this schema in docs/command.md."""
    for block in re.findall(r"```json\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL):
        example: dict[str, Any] = json.loads(block)
        if example["schema"] == schema:
            return example
    raise AssertionError(f"docs/command.md has no {schema}")


def shape(value: Any) -> Any:
    """Return the keys of a document, without what is free: the fields of a rule, the states of jobs."""
    if isinstance(value, dict):
        return {
            key: None if key in {"rule", "jobs", "assumed_s", "parked"} else shape(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [shape(value[0])] if value and isinstance(value[0], dict) else []
    return None


@pytest.mark.parametrize(
    "words",
    [
        ("ls", "shop", "--json"),
        ("next", "shop", "--json"),
        ("explain", "shop", "noon", "--json"),
        ("explain", "30 2 * * *", "--tz", "Europe/Rome", "--json"),
        ("next", "30 2 * * *", "--tz", "Europe/Rome", "--around-dst", "--json"),
        ("why", "shop", "noon", "--json"),
        ("simulate", "crowd", "--start", "2027-03-27T12:00Z", "--json"),
    ],
)
def test_json_is_as_documented(qj: QJ, shop: Path, words: tuple[str, ...]) -> None:
    """Programs are written against docs/command.md, so its examples hold exactly the keys that come."""
    (shop.parent / "crowd.py").write_text(
        "from quarterjack import At, Quarterjack\napp = Quarterjack()\nasync def f(): ...\n"
        "for name in 'ab': app.task(At('12:00', tz='Europe/Rome'), name=name)(f)\n"
    )
    result = qj(*words)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert shape(found) == shape(documented(found["schema"]))


def test_ls_in_a_pipe_is_one_line_a_schedule(qj: QJ, shop: Path) -> None:
    """Pipes into cut and awk need tabs, ISO times and no heading."""
    lines = [line.split("\t") for line in qj("ls", "shop").stdout.splitlines()]
    assert [line[0] for line in lines] == ["noon", "pulse", "reports.nightly"]
    for _, at, in_s, words in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", at)
        assert float(in_s) > 0
        assert words


def test_ls_says_what_the_memory_store_cannot_tell(qj: QJ, shop: Path) -> None:
    """A column of dashes would look as if nothing had ever run."""
    result = qj("ls", "shop")
    assert "last runs and pauses are not known here" in result.stderr


def test_ls_shows_what_will_be_put_into_a_store_that_no_start_has_seen(qj: QJ, folder: Path) -> None:
    """A store that is empty is no app without schedules."""
    (folder / "fresh.py").write_text(
        "from quarterjack import Every, Quarterjack\n"
        "app = Quarterjack('sqlite:///jobs.db')\n"
        "@app.task(Every(hours=1))\nasync def sync() -> None: ...\n"
    )
    assert qj("ls", "fresh").stdout.startswith("sync\t")
    assert "its next run" in qj("why", "fresh", "sync").stdout
    assert not (folder / "jobs.db").exists(), "who looks, makes nothing"


def test_ls_shows_what_a_shared_store_knows(qj: QJ, folder: Path) -> None:
    """With a store that others see, rows are read and not planned: last runs and pauses are there."""
    (folder / "shared.py").write_text(
        "from quarterjack import Every, MemoryStore, Quarterjack\n"
        "class Shared(MemoryStore):\n"
        "    is_shared = True\n"
        "    async def schedules_list(self):\n"
        "        row = app.declared_schedules()[0].copy()\n"
        "        row.last_nominal_ns, row.paused_at_ns, row.pause_note = 1_700_000_000_000_000_000, 1, 'migration'\n"
        "        return [row]\n"
        "app = Quarterjack(Shared())\n"
        "@app.task(Every(hours=1))\nasync def sync() -> None: ...\n"
    )
    result = qj("ls", "shared")
    assert result.stdout == "sync\t\t\tevery hour; paused: migration\t2023-11-14T22:13:20+00:00\t\n"
    assert result.stderr == ""
    assert json.loads(qj("ls", "shared", "--json").stdout)["is_live"] is True


def test_ls_names_schedules_that_count_from_the_start(qj: QJ, folder: Path) -> None:
    """Their times are not true until the app starts, which must be said."""
    (folder / "begin.py").write_text(
        "from quarterjack import Every, Forever, Once, Quarterjack\napp = Quarterjack()\n"
        "@app.task(Every(minutes=5, anchor='start'))\nasync def a() -> None: ...\n"
        "@app.task(Forever())\nasync def b() -> None: ...\n"
        "@app.task(Once())\nasync def c() -> None: ...\n"
        "@app.task(Every(minutes=5))\nasync def d() -> None: ...\n"
    )
    result = qj("ls", "begin")
    assert "as if it started now: a, b, c\n" in result.stderr


def test_ls_shows_a_schedule_whose_trigger_raises(qj: QJ, folder: Path) -> None:
    """One broken rule must not hide the others: the app would park it, so does the list."""
    (folder / "sick.py").write_text(
        "from quarterjack import Every, Quarterjack, Trigger\napp = Quarterjack()\n"
        "class Sick(Trigger):\n    def next(self, after): raise OSError('no calendar')\n"
        "@app.task(Sick())\nasync def a() -> None: ...\n"
        "@app.task(Every(hours=1))\nasync def b() -> None: ...\n"
    )
    result = qj("ls", "sick", "--json")
    first, second = json.loads(result.stdout)["schedules"]
    assert first["next"] is None
    assert "OSError: no calendar" in first["parked_reason"]
    assert second["next"] is not None


def test_an_app_without_schedules_is_told_how_to_get_one(qj: QJ, folder: Path) -> None:
    """An empty answer looks like a mistake of the command."""
    (folder / "bare.py").write_text("from quarterjack import Quarterjack\napp = Quarterjack()\n")
    result = qj("ls", "bare")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "bare:app has no schedules" in result.stderr


def test_looking_starts_nothing(qj: QJ, folder: Path) -> None:
    """A look at a production app may run neither its hooks nor its jobs."""
    (folder / "loud.py").write_text(
        "from quarterjack import OnStartup, Once, Quarterjack\n"
        "def lifespan(app): raise AssertionError('entered')\n"
        "app = Quarterjack(lifespan=lifespan)\n"
        "@app.task(OnStartup())\ndef up() -> None: raise AssertionError('up')\n"
        "@app.task(Once())\ndef once() -> None: raise AssertionError('ran')\n"
    )
    for words in (("ls", "loud"), ("next", "loud"), ("explain", "loud", "once")):
        result = qj(*words)
        assert result.exit_code == 0, result.output


def test_next_lists_a_cron_line_in_its_zone(qj: QJ) -> None:
    """The question people have about cron: when, on the clock of that place."""
    result = qj("next", "*/20 9-10 * * mon-fri", "--tz", "Europe/Rome", "--after", "2026-11-20T10:30", "-n", "3")
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == [
        "2026-11-20T10:40:00+01:00",
        "2026-11-23T09:00:00+01:00",
        "2026-11-23T09:20:00+01:00",
    ]


def test_next_merges_the_schedules_of_an_app(qj: QJ, shop: Path) -> None:
    """Who asks about an app wants one list in order of time."""
    result = qj("next", "shop", "--after", "2026-11-21T23:00:00+00:00", "--tz", "UTC", "-n", "4")
    assert [line.split("\t")[::2] for line in result.stdout.splitlines()] == [
        ["2026-11-22T00:00:00+00:00", "pulse"],
        ["2026-11-22T01:30:00+00:00", "reports.nightly"],
        ["2026-11-22T02:00:00+00:00", "pulse"],
        ["2026-11-22T04:00:00+00:00", "pulse"],
    ]


def test_next_tells_jitter_apart_from_the_fire_time(qj: QJ, shop: Path) -> None:
    """The fire time is the schedule's, due is the job's: within the jitter, and the same at every call."""
    words = ("next", "shop", "noon", "--after", "2026-11-21T23:00:00+00:00", "-n", "5", "--json")
    fires = json.loads(qj(*words).stdout)["fires"]
    assert [one["at"][11:] for one in fires] == ["12:00:00+01:00"] * 5
    assert all(one["at"] <= one["due"] < one["at"].replace("12:00:00", "12:00:10") for one in fires)
    assert len({one["due"][11:] for one in fires}) == 5
    assert json.loads(qj(*words).stdout)["fires"][0]["due"] == fires[0]["due"]


def test_next_keeps_to_the_limits_of_a_schedule(qj: QJ, folder: Path) -> None:
    """end= and max_runs= belong to the schedule, and its future ends by them."""
    (folder / "few.py").write_text(
        "from datetime import UTC, datetime\nfrom quarterjack import Every, Quarterjack\napp = Quarterjack()\n"
        "@app.task(Every(hours=1), max_runs=2)\nasync def twice() -> None: ...\n"
        "@app.task(Every(hours=1), end=datetime(2030, 1, 1, 2, 30, tzinfo=UTC))\nasync def until() -> None: ...\n"
    )
    for name in ("twice", "until"):
        lines = qj("next", "few", name, "--after", "2030-01-01T00:30+00:00", "--tz", "UTC").stdout.splitlines()
        assert [line[:19] for line in lines] == ["2030-01-01T01:00:00", "2030-01-01T02:00:00"]


def test_next_says_why_a_chain_cannot_be_listed(qj: QJ, folder: Path) -> None:
    """Forever depends on how long its runs take; the first is known, the rest is not."""
    (folder / "chain.py").write_text(
        "from quarterjack import Forever, Quarterjack\napp = Quarterjack()\n"
        "@app.task(Forever())\nasync def chain() -> None: ...\n"
    )
    result = qj("next", "chain", "chain")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == "· chain: what comes after this run depends on how long it takes\n"


@pytest.mark.parametrize(
    ("line", "error", "hint"),
    [
        ("99 * * * *", "minute '99' at column 1: 99 is out of range (allowed: 0-59)", '"*/5'),
        ("* * * *", "has 4 fields; write 5", '"*/5'),
        ("@nope", "no such shorthand", '"*/5'),
        ("0 0 30 2 *", "never fires", '"*/5'),
        ("H H * * *", "follows from a schedule's id: name the schedule", "module:app SCHEDULE"),
    ],
)
@pytest.mark.parametrize("command", ["next", "explain"])
def test_a_wrong_cron_line_is_told_without_python(qj: QJ, command: str, line: str, error: str, hint: str) -> None:
    """Who typed a cron line has no Cron(…) to change and no method to call."""
    result = qj(command, line)
    assert result.exit_code == 2
    said, try_next = result.stderr.splitlines()
    assert said.startswith(f"Error: '{line}'")
    assert error in said
    assert "Cron" not in said
    assert ".bound_to" not in said
    assert try_next.startswith(f"Try:   qj {command} {hint}")


@pytest.mark.parametrize(
    "moment", ["0001-01-01", "0001-01-01T00:00+00:00", "9999-12-31T23:00", "9999-12-31T23:59:59-10:00", "10000-01-01"]
)
@pytest.mark.parametrize("command", ["next", "explain"])
def test_the_ends_of_the_calendar_are_refused(qj: QJ, command: str, moment: str) -> None:
    """Beyond them Python's own dates overflow, with a traceback that helps nobody."""
    result = qj(command, "* * * * *", "--after", moment)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: --after '{moment}'")


def test_explain_does_not_deny_the_only_fire(qj: QJ, folder: Path) -> None:
    """Once fires at the start and at no time after: 'not once within a year' would be untrue."""
    (folder / "single.py").write_text(
        "from quarterjack import Once, Quarterjack\napp = Quarterjack()\n"
        "@app.task(Once())\nasync def single() -> None: ...\n"
    )
    result = qj("explain", "single", "single")
    assert result.stdout.splitlines()[1].endswith("at start")
    assert "not once" not in result.stdout
    assert "not once within a year" in qj("explain", "0 0 29 2 *", "--after", "2026-01-01").stdout


def test_one_word_is_a_schedule_of_the_configured_app(qj: QJ, shop: Path) -> None:
    """In a project, ``qj next reports.nightly`` is what one types."""
    (shop.parent / "pyproject.toml").write_text('[tool.quarterjack]\napp = "shop:app"\n')
    assert "\treports.nightly" in qj("next", "reports.nightly", "-n", "1").stdout
    assert qj("explain", "reports.nightly").exit_code == 0
    assert len(qj("next").stdout.splitlines()) == 10


def test_an_unknown_schedule_is_answered_with_those_there_are(qj: QJ, shop: Path) -> None:
    """Ids are easily mistyped."""
    result = qj("next", "shop", "nightly")
    assert result.exit_code == 2
    assert "it has noon, pulse, reports.nightly" in result.stderr
    assert result.stderr.rstrip().endswith("qj next shop:app reports.nightly")
    assert qj("explain", "shop", "puls").stderr.rstrip().endswith("qj explain shop:app pulse")
    assert qj("explain", "shop", "other").stderr.rstrip().endswith("qj ls shop:app")


def test_of_many_schedules_a_few_are_named(qj: QJ, folder: Path) -> None:
    """Sixty ids in a line are read by nobody; the list has a command of its own."""
    (folder / "many.py").write_text(
        "from quarterjack import Every, Quarterjack\napp = Quarterjack()\n"
        "async def work(): ...\n"
        "for number in range(60):\n"
        "    app.task(Every(hours=1), name=f'task_{number:02}')(type('Work', (), {'__call__': lambda self: None})())\n"
    )
    error, _ = qj("explain", "many", "other").stderr.splitlines()
    assert error.count("task_") == 8
    assert error.endswith("task_07 and 52 more")


@pytest.mark.parametrize("command", ["next", "explain"])
def test_a_schedule_without_its_app_is_told_what_is_missing(qj: QJ, shop: Path, command: str) -> None:
    """One word may be a schedule or an app; where it is neither, both readings are answered."""
    result = qj(command, "reports.daily")
    assert result.exit_code == 2
    assert result.stderr.rstrip().endswith(f"qj {command} module:app reports.daily, if it is a schedule")
    (shop.parent / "pyproject.toml").write_text('[tool.quarterjack]\napp = "shop:app"\n')
    result = qj(command, "nightly")
    assert "shop:app has no schedule 'nightly'" in result.stderr
    assert result.stderr.rstrip().endswith(f"qj {command} reports.nightly")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("0", "9", "*", "*", "1-5"), "0 9 * * 1-5"),
        (("*/5", "README.md", "shop.py", "*", "*"), "*/5 9-17 * * mon-fri"),
    ],
)
def test_a_cron_line_without_quotes_is_told_to_have_them(qj: QJ, words: tuple[str, ...], line: str) -> None:
    """The shell tears it apart and makes file names of its asterisks."""
    result = qj("explain", *words)
    assert result.exit_code == 2
    assert "put it in quotes" in result.stderr
    assert result.stderr.rstrip().endswith(f'qj explain "{line}"')


def test_explain_wants_a_rule_not_an_app(qj: QJ, shop: Path) -> None:
    """An app has many rules; which one is meant must be said."""
    result = qj("explain", "shop")
    assert result.exit_code == 2
    assert result.stderr.rstrip().endswith("qj ls shop:app")


def explained(qj: QJ, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(qj("explain", *words, "--json", "--after", "2027-01-15T00:00+00:00").stdout)
    return found


def test_explain_says_what_happens_when_the_clock_goes_forward(qj: QJ) -> None:
    """02:30 does not exist on that day, which is what one looks a rule up for."""
    notes = explained(qj, "30 2 * * *", "--tz", "Europe/Rome")["notes"]
    said = "on 28 March 2027 the clocks go forward at 02:00: 02:30 does not exist, it runs at 03:00 CEST"
    assert notes[:2] == ["once a day", said]


def test_explain_says_which_of_two_equal_times_it_takes_when_the_clock_goes_back(qj: QJ) -> None:
    """02:30 comes twice on that day: whether it fires once or twice is what one has to know."""
    back = "on 31 October 2027 the clocks go back at 03:00: {} comes twice, it runs the first time"
    assert explained(qj, "30 2 * * *", "--tz", "Europe/Rome")["notes"][2:] == [back.format("02:30")]
    assert explained(qj, "0 2,12 * * *", "--tz", "Europe/Rome")["notes"][2:] == [back.format("02:00")]


def test_explain_says_in_one_line_that_no_run_is_affected(qj: QJ) -> None:
    """Silence would leave open whether anybody looked; two lines that say nothing would be one too many."""
    said = "on 28 March 2027 the clocks go forward at 02:00: no run is affected"
    assert explained(qj, "0 9,17 * * mon-fri", "--tz", "Europe/Rome")["notes"] == ["10 times a week", said]


def test_explain_tells_of_no_change_after_the_end_of_a_schedule(qj: QJ, folder: Path) -> None:
    """A schedule that ends before the clocks change has nothing to do with them."""
    (folder / "ends.py").write_text(
        "from datetime import UTC, datetime\nfrom quarterjack import At, Quarterjack\napp = Quarterjack()\n"
        "@app.task(At('02:30', tz='Europe/Rome'), end=datetime(2027, 6, 1, tzinfo=UTC))\nasync def f(): ...\n"
    )
    assert [note[3:16] for note in explained(qj, "ends", "f")["notes"] if "clocks" in note] == ["28 March 2027"]


@pytest.mark.parametrize(
    ("line", "rate"),
    [
        ("*/7 * * * *", "216 times a day"),
        ("* * * * mon", "about 206 times a day"),
        ("0 9-15 * * mon", "7 times a week"),
        ("0 9 * * mon", "52 times within a year"),
        ("0 0 1 1 *", "1 time within a year"),
    ],
)
def test_explain_counts_exactly_where_days_are_alike(qj: QJ, line: str, rate: str) -> None:
    """'About' for a number that is exact raises doubts; 'once a day' for seven on Mondays is wrong."""
    assert explained(qj, line)["notes"] == [rate]


def test_explain_promises_no_catching_up_on_the_memory_store(qj: QJ, shop: Path) -> None:
    """Every app without a durable store reads this, and nothing is caught up there after a restart."""
    told = qj("explain", "shop", "noon").stdout
    assert "while the app is down" not in told
    assert "after a restart nothing is caught up: its store lives in the process" in " ".join(told.split())


def test_explain_of_a_schedule_that_is_over_names_its_end_and_no_rate(qj: QJ, folder: Path) -> None:
    """Nothing fires 86,400 times a day that has no fire times to come."""
    (folder / "over.py").write_text(
        "from datetime import UTC, datetime\nfrom quarterjack import Every, Quarterjack\napp = Quarterjack()\n"
        "@app.task(Every(seconds=1), end=datetime(2021, 1, 1, tzinfo=UTC))\nasync def tick(): ...\n"
    )
    told = qj("explain", "over", "tick").stdout
    assert "no fire times to come" in told
    assert "no fire time after end=2021-01-01T00:00:00" in told
    assert "a day" not in told
    assert "never fires again" in qj("ls", "over").stdout


def test_explain_counts_where_there_are_many_fires(qj: QJ) -> None:
    """A day of 23 or 25 hours has fewer or more of them."""
    notes = explained(qj, "*/30 * * * *", "--tz", "Europe/Rome")["notes"]
    assert notes == [
        "48 times a day",
        "on 28 March 2027 the clocks go forward at 02:00: 46 runs that day, not 48",
        "on 31 October 2027 the clocks go back at 03:00: 50 runs that day, not 48",
    ]


def test_explain_speaks_of_no_clock_where_none_is_set(qj: QJ) -> None:
    """In UTC a note about clocks would hide those that say something."""
    assert explained(qj, "30 2 * * *")["notes"] == ["once a day"]
    assert explained(qj, "0 0 1 1 *")["notes"] == ["1 time within a year"]


def test_explain_keeps_its_columns_beside_each_other(qj: QJ) -> None:
    """CET and CEST are not equally long, and the waits behind them must stay in one column."""
    lines = qj("explain", "30 2 * * *", "--tz", "Europe/Rome", "--after", "2100-03-26").stdout.splitlines()[1:6]
    assert [" CET " in line for line in lines] == [True, True, False, False, False]
    assert len({line.index(" in ") for line in lines}) == 1


AROUND = ("next", "30 2 * * *", "--tz", "Europe/Rome", "--after", "2027-01-15", "--around-dst")


def test_next_around_dst_shows_the_days_before_on_and_after(qj: QJ) -> None:
    """The night in question stands between two ordinary ones, and what is unusual about it is said."""
    lines = [line.split("\t") for line in qj(*AROUND).stdout.splitlines()]
    assert [(line[0], line[3]) for line in lines] == [
        ("2027-03-27T02:30:00+01:00", ""),
        ("2027-03-28T03:00:00+02:00", "for 02:30, which does not exist"),
        ("2027-03-29T02:30:00+02:00", ""),
        ("2027-10-30T02:30:00+02:00", ""),
        ("2027-10-31T02:30:00+02:00", "the first 02:30"),
        ("2027-11-01T02:30:00+01:00", ""),
    ]


def test_next_around_dst_shows_those_nearest_to_the_change(qj: QJ) -> None:
    """Of a rule that fires often only the fire times beside the change are of interest; --count says how many."""
    words = ("next", "*/30 * * * *", "--tz", "Europe/Rome", "--after", "2027-01-15", "--around-dst", "--count", "6")
    lines = [line.split("\t") for line in qj(*words).stdout.splitlines()]
    assert [line[0][11:22] for line in lines[:6]] == [
        f"{at}:00{o}"
        for at, o in zip(
            ("00:30", "01:00", "01:30", "03:00", "03:30", "04:00"), ("+01",) * 3 + ("+02",) * 3, strict=True
        )
    ]
    assert [line[3] for line in lines[6:]] == [
        "",
        "the first 02:00",
        "the first 02:30",
        "the second 02:00",
        "the second 02:30",
        "",
    ]


def test_next_around_dst_of_an_app_goes_by_zone(qj: QJ, shop: Path) -> None:
    """Each zone has nights of its own, and who reads no clock is named."""
    (shop.parent / "two.py").write_text(
        "from quarterjack import At, Every, Quarterjack\napp = Quarterjack()\n"
        "@app.task(At('02:30', tz='Europe/Rome'))\nasync def rome(): ...\n"
        "@app.task(At('02:30', tz='America/New_York'))\nasync def york(): ...\n"
        "@app.task(Every(hours=1))\nasync def pulse(): ...\n"
    )
    result = qj("next", "two", "--around-dst", "--after", "2027-01-15", "--json")
    changes = json.loads(result.stdout)["changes"]
    assert [(one["at"][:10], one["zone"], one["shift_s"]) for one in changes] == [
        ("2027-03-14", "America/New_York", 3600.0),
        ("2027-03-28", "Europe/Rome", 3600.0),
        ("2027-10-31", "Europe/Rome", -3600.0),
        ("2027-11-07", "America/New_York", -3600.0),
    ]
    assert [one["schedule"] for one in changes[0]["schedules"]] == ["york"]
    assert result.stderr == "· the clocks do not matter to pulse\n"


def test_next_around_dst_says_that_utc_has_no_such_night(qj: QJ) -> None:
    """An empty answer looks like a mistake; the zone was forgotten."""
    result = qj("next", "30 2 * * *", "--around-dst")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "--tz Europe/Rome" in result.stderr


def test_next_around_dst_keeps_to_the_end_of_a_schedule(qj: QJ, folder: Path) -> None:
    """Fire times after end= are none of the schedule's."""
    (folder / "ends.py").write_text(
        "from datetime import UTC, datetime\nfrom quarterjack import At, Quarterjack\napp = Quarterjack()\n"
        "@app.task(At('02:30', tz='Europe/Rome'), end=datetime(2027, 3, 28, 12, tzinfo=UTC))\nasync def f(): ...\n"
    )
    lines = qj("next", "ends", "f", "--around-dst", "--after", "2027-01-15").stdout.splitlines()
    assert [line[:10] for line in lines] == ["2027-03-27", "2027-03-28"]


def test_explain_tells_the_policies_of_a_schedule(qj: QJ, shop: Path) -> None:
    """What a schedule adds to its rule decides what happens when it is late."""
    notes = " ".join(explained(qj, "shop", "noon")["notes"])
    for part in ("is left out (overlap='skip')", "the newest runs once (missed='latest')", "spread over 10 s"):
        assert part in notes


@pytest.mark.parametrize("mode", get_args(OverlapMode))
def test_explain_has_words_for_every_overlap(qj: QJ, folder: Path, mode: str) -> None:
    """A policy without words would be a traceback."""
    file = folder / f"overlap_{mode}.py"
    file.write_text(
        "from quarterjack import Every, Quarterjack\napp = Quarterjack()\n"
        f"@app.task(Every(hours=1), overlap={mode!r})\nasync def f(): ...\n"
    )
    assert explained(qj, file.stem, "f")["notes"][0].endswith(f"(overlap={mode!r})")


@pytest.mark.parametrize("mode", get_args(MissedMode))
def test_explain_has_words_for_every_way_to_miss(qj: QJ, folder: Path, mode: str) -> None:
    """Likewise; and 'all' says how many that are at most."""
    file = folder / f"missed_{mode}.py"
    file.write_text(
        "from quarterjack import Every, Quarterjack\napp = Quarterjack()\n"
        f"@app.task(Every(hours=1), missed={mode!r}, max_catchup=7, overlap='allow')\nasync def f(): ...\n"
    )
    note = explained(qj, file.stem, "f")["notes"][1]
    assert note.endswith(f"(missed={mode!r})")
    assert ("the newest 7 at most" in note) is (mode == "all")


def test_explain_writes_its_notes_where_the_answer_is(qj: QJ, shop: Path) -> None:
    """They are what was asked for: a file or a pager has to get them."""
    result = qj("explain", "shop", "noon")
    assert "· while a run goes on the next one is left out" in result.stdout
    assert result.stderr == ""


BROKEN = {
    "two_names": (
        "a, b = Group(), Group()\n@a.task\nasync def f(): ...\n@b.task(name='f')\nasync def g(): ...\n"
        "app.include_group(a)\napp.include_group(b)\n"
    ),
    "wrong_option": "g = Group('g', timeout=-1)\n@g.task(Every(seconds=1))\nasync def f(): ...\napp.include_group(g)\n",
    "raises": (
        "class Boom(Trigger):\n    def next(self, after): raise ValueError('no calendar')\n"
        "@app.task(Boom())\nasync def f(): ...\n"
    ),
    "raises_later": (
        "class Boom(Trigger):\n    def next(self, after):\n"
        "        if after.year > 2030: raise ValueError('no calendar')\n        return after + timedelta(days=400)\n"
        "@app.task(Boom())\nasync def f(): ...\n"
    ),
    "no_json": (
        "class Odd(Trigger):\n    fn: object = None\n    def next(self, after): return after + timedelta(days=1)\n"
        "@app.task(Odd(fn=object()))\nasync def f(): ...\n"
    ),
    "parked": "@app.task(Cron('H H 30 2 *'))\nasync def f(): ...\n",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_what_is_wrong_with_an_app_is_told_in_a_sentence(
    qj: QJ, folder: Path, name: str, more: tuple[str, ...]
) -> None:
    """A look must be possible at an app that cannot start, least of all may it answer with a traceback of ours."""
    head = "from datetime import timedelta\nfrom quarterjack import Cron, Every, Group, Quarterjack, Trigger\n"
    (folder / f"{name}.py").write_text(f"{head}app = Quarterjack()\n{BROKEN[name]}")
    for words in (("ls", name), ("next", name), ("explain", name, "f")):
        result = qj(*words, *more)
        assert isinstance(result.exception, SystemExit | None), result.exception
        assert result.exit_code in {0, 1, 2}
        if result.exit_code:
            error, hint = result.stderr.splitlines()[-2:]
            assert error.startswith("Error: ")
            assert hint.startswith("Try:   qj ")
    if name == "two_names":
        assert qj("ls", name).stderr.splitlines() == [
            "Error: two tasks are named 'f'; rename one, pass name=, or put one into a named Group",
            "Try:   qj ls two_names, once that is mended",
        ]


def test_a_trigger_that_raises_is_explained_as_far_as_it_goes(qj: QJ, folder: Path) -> None:
    """The words and the reason are all there is, and both help."""
    head = "from datetime import timedelta\nfrom quarterjack import Quarterjack, Trigger\napp = Quarterjack()\n"
    (folder / "sicker.py").write_text(head + BROKEN["raises"])
    (folder / "later.py").write_text(head + BROKEN["raises_later"])
    (folder / "dull.py").write_text(head + BROKEN["no_json"])
    assert explained(qj, "sicker", "f")["notes"] == ["its trigger raised ValueError: no calendar"]
    later = json.loads(qj("explain", "later", "f", "--after", "2030-11-01", "--json").stdout)
    assert later["notes"].count("ValueError: no calendar") == 1
    assert explained(qj, "dull", "f")["rule"] is None


STREAMS = """
import asyncio
from quarterjack import Every, Quarterjack, Stream

app = Quarterjack()

async def orders():
    for order in range(3):
        await asyncio.sleep(0.1)
        yield order

@app.task(Stream(orders, max_waiting=5, key=str))
async def handle(order: int) -> None: ...
"""


def test_streams_are_listed_and_explained_and_have_no_fire_times(qj: QJ, folder: Path) -> None:
    """Whoever looks for what an app does finds its streams beside its schedules."""
    (folder / "taking.py").write_text(STREAMS, encoding="utf-8")
    words = "one job for each item of orders, at most 5 unfinished"
    assert qj("ls", "taking").stdout == f"handle\t\t\t{words}\n"
    assert "no schedules" not in qj("ls", "taking").stderr
    (listed,) = json.loads(qj("ls", "taking", "--json").stdout)["streams"]
    assert listed == {"id": "handle", "task": "handle", "words": words}
    for line in (("next", "taking"), ("next", "taking", "handle")):
        result = qj(*line)
        assert (result.exit_code, result.stdout) == (0, "")
        assert f"handle: a stream has no fire times; {words}" in result.stderr
    explained = qj("explain", "taking", "handle").stdout
    assert explained.startswith(words)
    assert "an item whose key (str) another job holds makes no second one" in explained
    assert "no fire times" not in explained
    assert "handle is a stream, no schedule" in qj("why", "taking", "handle").stderr
    assert "it has handle" in qj("explain", "taking", "hendl").stderr


def test_a_run_until_idle_ends_with_its_streams(qj: QJ, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A source that ends is work that ends; its start, its end and its jobs stand in the log."""
    (folder / "taking.py").write_text(STREAMS, encoding="utf-8")
    caplog.set_level("INFO")
    result = qj("run", "taking", "--until-idle")
    assert result.exit_code == 0, result.output
    assert "stream handle started" in caplog.text
    assert "stream handle ended" in caplog.text
    assert "stopped: 3 done" in caplog.text
