"""Output that never waits, over real pipes, sockets and terminals that nobody reads."""

from __future__ import annotations

import fcntl
import os
import socket
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from npuops.cli.lossy_output import BACKLOG_BYTES, LossyOutput

LINE = "x" * 99 + "\n"


def told(count: int) -> bytes:
    return f"{count} dropped\n".encode()


def of_pipe() -> tuple[int, int]:
    return os.pipe()


def of_socket() -> tuple[int, int]:
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


def of_terminal() -> tuple[int, int]:
    reader, writer = os.openpty()
    tty.setraw(writer, termios.TCSANOW)
    return reader, writer


@pytest.fixture(params=[of_pipe, of_socket, of_terminal])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    make: Callable[[], tuple[int, int]] = request.param
    reader, writer = make()
    yield reader, writer
    for end in (reader, writer):
        with suppress(OSError):
            os.close(end)


def read_so_far(reader: int) -> bytes:
    os.set_blocking(reader, False)
    found = b""
    with suppress(BlockingIOError):
        while piece := os.read(reader, 1 << 16):
            found += piece
    return found


def fill(writer: int) -> None:
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"y" * 4096)
    os.set_blocking(writer, True)


def test_a_reader_that_stalls_never_holds_the_writer_and_learns_what_it_missed(ends: tuple[int, int]) -> None:
    reader, writer = ends
    wanted = 3 * BACKLOG_BYTES // len(LINE)
    with os.fdopen(writer, "w", encoding="utf-8", closefd=False) as stream, LossyOutput(stream, told) as output:
        for _ in range(wanted):
            output.write(LINE)  # with a plain stream this would be its end
        assert output.is_behind
        said = b""
        while output.is_behind:
            said += read_so_far(reader)
            output.go_on()
        output.write("after\n")
        said += read_so_far(reader)
    *lines, last, after = said.decode().splitlines(keepends=True)
    assert lines == [LINE] * len(lines)
    assert (last, after) == (f"{wanted - len(lines)} dropped\n", "after\n")
    assert len(lines) * len(LINE) >= BACKLOG_BYTES - len(LINE)


def test_who_shares_the_file_still_blocks_as_before(ends: tuple[int, int]) -> None:
    _, writer = ends
    before = fcntl.fcntl(writer, fcntl.F_GETFL)
    with os.fdopen(writer, "w", encoding="utf-8", closefd=False) as stream, LossyOutput(stream, told) as output:
        output.write(LINE)
        assert fcntl.fcntl(writer, fcntl.F_GETFL) == before


def test_at_the_end_a_late_reader_is_waited_for_and_loses_nothing_of_the_last_words(ends: tuple[int, int]) -> None:
    reader, writer = ends
    found = []

    def read() -> None:
        said = b""
        while not said.endswith(b"goodbye\n"):
            said += os.read(reader, 1 << 16)
        found.append(said)

    late = threading.Thread(target=read)
    with os.fdopen(writer, "w", encoding="utf-8", closefd=False) as stream, LossyOutput(stream, told) as output:
        for _ in range(3 * BACKLOG_BYTES // len(LINE)):
            output.write(LINE)
        output.last_words()
        output.write("goodbye\n")
        late.start()
    late.join(60)
    assert found[0].endswith(b" dropped\ngoodbye\n")


def test_without_a_reader_the_end_comes_all_the_same_and_is_told(
    capfd: pytest.CaptureFixture[str], ends: tuple[int, int]
) -> None:
    _, writer = ends
    with os.fdopen(writer, "w", encoding="utf-8", closefd=False) as stream, LossyOutput(stream, told, 0.05) as output:
        for _ in range(3 * BACKLOG_BYTES // len(LINE)):
            output.write(LINE)
    assert "lines were not written: nobody reads them" in capfd.readouterr().err


def test_a_pipe_that_nobody_reads_any_more_is_an_error_once_and_does_not_hide_another() -> None:
    reader, writer = of_pipe()
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        output, other = LossyOutput(stream, told), LossyOutput(stream, told)
        fill(writer)
        other.write(LINE)
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            output.write(LINE)
        output.close()
        with pytest.raises(ZeroDivisionError), other:
            raise ZeroDivisionError


def test_a_file_is_written_from_where_it_stands_and_a_full_disk_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "said"
    with path.open("w", encoding="utf-8") as stream:
        stream.write("before\n")
        with LossyOutput(stream, told) as output:
            for _ in range(2 * BACKLOG_BYTES // len(LINE)):
                output.write(LINE)
            assert not output.is_behind
        stream.write("after\n")
    first, *lines, last = path.read_text(encoding="utf-8").splitlines(keepends=True)
    assert (first, last) == ("before\n", "after\n")
    assert lines == [LINE] * (2 * BACKLOG_BYTES // len(LINE))
    with Path("/dev/full").open("w", encoding="utf-8") as stream:
        output = LossyOutput(stream, told)
        with pytest.raises(OSError, match="No space left"):
            output.write(LINE)
        output.close()


def test_a_name_that_the_stream_cannot_hold_is_written_as_its_stream_would() -> None:
    reader, writer = of_pipe()
    with (
        os.fdopen(reader, encoding="ascii") as said,
        os.fdopen(writer, "w", encoding="ascii", errors="backslashreplace") as stream,
    ):
        with LossyOutput(stream, told) as output:
            output.write("ü\n")
        assert said.readline() == "\\xfc\n"
