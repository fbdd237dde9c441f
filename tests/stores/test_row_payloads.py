"""Users' data in rows: what no store can keep is refused or spelled out, what cannot be read is kept."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from quarterjack import (
    InvalidArguments,
    Progress,
    StoreError,
)
from quarterjack._payload import Unreadable
from quarterjack.model import (
    ErrorInfo,
    JobRecord,
    JobState,
)
from quarterjack.stores._rows import (
    JOB_COLUMNS,
    Encoding,
)
from tests.stores.rows_kit import (
    Xor,
    Zlib,
    fits,
    job,
    same,
    schedule,
)


def test_arguments_that_are_no_json_are_named() -> None:
    """The one to change among six arguments should not have to be guessed."""
    with pytest.raises(
        InvalidArguments, match=r"argument number 2 of plain, of type object, cannot be written as JSON"
    ):
        Encoding().job_row(job("plain", 1, object()))
    with pytest.raises(InvalidArguments, match=r"argument who of plain, of type Random,.*pass ids"):
        Encoding().job_row(job("plain", 1, who=Random()))


def test_arguments_that_are_too_large_are_named() -> None:
    """A store is no file server: a megabyte per job would slow everybody's claims."""
    with pytest.raises(InvalidArguments, match=r"takes up to 100; the largest is number 2, of type str, with 99 bytes"):
        Encoding(max_argument_bytes=100).job_row(job("plain", 1, "x" * 97))
    Encoding(max_argument_bytes=100).job_row(job("plain", "x" * 60))


def test_texts_that_no_database_keeps_are_spelled_out() -> None:
    """The end of a job is recorded whatever its reason and error hold: a NUL, half of a surrogate pair."""
    made = job()
    made.reason, made.error = "a\0b\ud800", ErrorInfo("OSError", "no \udcff", "\0")
    row = Encoding().job_row(made)
    fits(row, JOB_COLUMNS)
    found = Encoding().record(row)
    assert found.reason == "a\\x00b\\ud800"
    assert found.error == ErrorInfo("OSError", "no \\udcff", "\\x00")


def test_a_reason_is_told_from_a_coded_one() -> None:
    """Who cancels a job says what he likes, and reads it again; damaged ones are kept."""
    for reason in ("\x01abc", "two\nlines", "grün"):
        made = job()
        made.reason = reason
        assert Encoding().record(Encoding().job_row(made)).reason == reason.replace("\x01", "\\x01")
    place = [column.name for column in JOB_COLUMNS].index("reason")
    row = [*Encoding().job_row(job())]
    row[place] = "\x01!"
    found = Encoding(codec=Zlib()).record(row)
    assert found.reason == "its reason cannot be read"
    assert Encoding().job_row(found)[place] == "\x01!"


def test_a_result_that_is_no_json_becomes_an_error_of_the_result() -> None:
    """The body has run: the job stays done, and whoever awaits it learns why there is no result."""
    made = job()
    made.state, made.result = JobState.DONE, object()
    found = Encoding().record(Encoding().job_row(made))
    assert (found.state, found.result) == (JobState.DONE, None)
    assert found.error is not None
    assert found.error.type_name == "ResultNotSerializable"


def loaded() -> JobRecord:
    """Return a job with something in every payload."""
    made = job("plain", "secret", who="secret")
    made.result, made.checkpoint = "secret", {"secret": 1}
    made.error, made.progress = ErrorInfo("E", "secret", "secret"), Progress(1, 2, "secret")
    made.reason = "E: secret"
    return made


def test_every_payload_passes_the_codec() -> None:
    """What is encrypted is encrypted everywhere, in schedules too."""
    codec = Xor(7)
    assert b"secret" not in repr(Encoding(codec=codec).job_row(loaded())).encode()
    row = Encoding(codec=codec).schedule_row(schedule(None, "secret", kwargs={"who": "secret"}))
    assert "secret" not in repr(row)


def test_rows_from_before_the_codec_stay_readable() -> None:
    """Turning encryption on is no migration."""
    row = Encoding().job_row(loaded())
    same(Encoding(codec=Zlib()).record(row), loaded(), JobRecord)


@pytest.mark.parametrize("reader", [None, Xor(9), Zlib()], ids=["none", "wrong key", "other"])
def test_a_payload_that_cannot_be_read_says_why_and_is_kept(reader: Any) -> None:
    """With the wrong key nothing may be lost: the right one reads the rows again after they were moved."""
    row = Encoding(codec=Xor(7)).job_row(loaded())
    found = Encoding(codec=reader).record(row)
    for payload in (found.args, found.result, found.checkpoint):
        assert isinstance(payload, Unreadable)
        assert payload.reason
    assert found.kwargs == {}
    assert found.error is not None
    assert "cannot be read" in found.error.message
    assert "cannot be read" in str(found.reason)
    again = Encoding(codec=reader).job_row(found)
    assert again == row
    same(Encoding(codec=Xor(7)).record(again), loaded(), JobRecord)


@pytest.mark.parametrize("broken", [b"", b"[", b"{}", b"[1,2]", b"3", b"[[1],{},3]"])
def test_a_broken_payload_breaks_nothing_but_itself(broken: bytes) -> None:
    """One damaged row must not stop the claim of a hundred others."""
    row = [
        broken if column.kind == "bytes" else value
        for value, column in zip(Encoding().job_row(loaded()), JOB_COLUMNS, strict=True)
    ]
    found = Encoding().record(row)
    assert isinstance(found.args, Unreadable)
    assert Encoding().job_row(found)[6] == broken


def test_a_codec_that_cannot_write_refuses_the_job() -> None:
    """A job whose arguments were not encrypted as asked must not be stored at all."""

    class Failing(Xor):
        def encode(self, data: bytes) -> bytes:
            raise OSError("no key")

    with pytest.raises(StoreError, match=r"the codec Failing cannot write a payload: OSError: no key"):
        Encoding(codec=Failing(1)).job_row(loaded())
