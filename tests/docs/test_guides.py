"""The guides' programs print what stands under them.

They run in real time and some of them in threads, so a busy machine may disturb
one once; a page that is wrong is wrong each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.docs.examples import Example, examples
from tests.repo.checkout import ROOT
from tests.repo.test_doc_examples import with_source, write

TRIES: Final = 3
TIME_LIMIT_S: Final = 60
EXAMPLES: Final = [
    example
    for page in sorted((ROOT / "docs/guides").glob("*.md"))
    for example in examples(page)
    if example.output is not None
]


def printed(example: Example, folder: Path) -> str:
    """Run an example as a user would, and return what it prints."""
    (path,) = write([example.program], folder)
    script = subprocess.run(
        [sys.executable, path],
        env=with_source(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert script.returncode == 0, script.stderr
    return script.stdout


def case(example: Example) -> Any:
    """Return the case of an example."""
    return pytest.param(example, id=example.program.place)


@pytest.mark.slow
@pytest.mark.parametrize("example", [case(example) for example in EXAMPLES])
def test_guide_prints_what_it_says(example: Example, tmp_path: Path) -> None:
    """A reader compares, and doubts himself first."""
    said = printed(example, tmp_path)
    for _ in range(1, TRIES):
        if said == example.printed:
            break
        said = printed(example, tmp_path)
    assert said == example.printed, example.program.place


def test_guides_have_examples() -> None:
    """A test of nothing passes."""
    assert len(EXAMPLES) > 15
