"""The crew: real processes that run the app, to be killed, stopped and replaced."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tests.chaos.app import Settings
from tests.chaos.ledger import Ledger
from tests.cli.kit import environment

__all__ = ["Crew", "Member"]

ROOT: Final = Path(__file__).parents[2]
APP: Final = "tests.chaos.app:app"


class Member:
    """One process. What is done to it is noted in the ledger."""

    def __init__(self, settings: Settings, ledger: Ledger, folder: Path) -> None:
        self.who = settings.who
        self.settings = settings
        self.log = folder / f"{self.who}.log"
        self._ledger = ledger
        source = environment(**settings.environment())
        source["PYTHONPATH"] += f":{ROOT}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "quarterjack", "run", APP],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=source, cwd=folder,
            )  # fmt: skip
        ledger.note("start", self.who)

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()
        self._ledger.note("dead", self.who)

    def stop(self) -> None:
        """Let it stand still."""
        self._ledger.note("stopped", self.who)
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on after `stop`."""
        self.process.send_signal(signal.SIGCONT)
        self._ledger.note("going on", self.who)

    def says(self, *words: str) -> bool:
        """Say whether one of *words* stands in its log."""
        log = self.log.read_text(errors="replace")
        return any(word in log for word in words)

    def tell(self) -> None:
        """Ask it to drain."""
        self.process.send_signal(signal.SIGTERM)

    def left(self, within_s: float = 30.0) -> int:
        """Wait for its end; return the exit code."""
        code = self.process.wait(within_s)
        self._ledger.note("dead", self.who)
        return code


class Crew:
    """All processes of one test."""

    def __init__(self, settings: Settings, ledger: Ledger, folder: Path) -> None:
        self._settings = settings
        self._ledger = ledger
        self._folder = folder
        self.members: list[Member] = []
        self._started = 0

    def start(self, **changes: Any) -> Member:
        """Start one more process, whose settings differ from the crew's by *changes*."""
        self._started += 1
        settings = self._settings.but(**{**changes, "who": f"w{self._started}"})
        self.members.append(Member(settings, self._ledger, self._folder))
        return self.members[-1]

    def replace(self, member: Member) -> Member:
        """Kill one and start another in its place."""
        member.kill()
        self.members.remove(member)
        return self.start(**asdict(member.settings))

    def revive(self) -> None:
        """Start those anew that ended by themselves, as a supervisor does: nobody starts while there is no server."""
        for member in [member for member in self.members if not member.is_alive]:
            self._ledger.note("ended", member.who)
            self.replace(member)

    def drain(self) -> dict[str, int]:
        """Ask all to end; return those that did so with an error."""
        for member in self.members:
            member.tell()
        codes = {member.who: member.left() for member in self.members}
        self.members.clear()
        return {who: code for who, code in codes.items() if code}

    def complaints(self) -> list[str]:
        """Return lines of the logs that no process should have to write, whatever is done to it."""
        words = ("Traceback", "CRITICAL", "the runtime broke", "never awaited", "never retrieved")
        return [
            f"{log.name}: {line}"
            for log in sorted(self._folder.glob("w*.log"))
            for line in log.read_text(errors="replace").splitlines()
            if any(word in line for word in words)
        ]


@contextmanager
def crew(settings: Settings, ledger: Ledger, folder: Path) -> Iterator[Crew]:
    """Yield a crew; none of it outlives the block."""
    made = Crew(settings, ledger, folder)
    try:
        yield made
    finally:
        for member in made.members:
            member.kill()
