"""How the command line ends: one JSON document in every case, honest exit codes, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from npuops.cli.ending import ending_errors

COMMAND = (sys.executable, "-m", "npuops.cli.main")


def start(*words: str, **streams: object) -> subprocess.Popen[bytes]:
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen([*COMMAND, *words], **given)  # type: ignore[call-overload,no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "nonsense"),
        (["targets", "--nonsense"], "--nonsense"),
        (["build"], "model"),
        (["inspect", "zoo:digits-cnn", "--top", "-1"], "--top"),
        (["build", "m.onnx", "-t", "toy", "-o", "art", "--precision", "a3w3"], "a3w3"),
        (["inspect", "zoo:digits-nn"], "digits-nn"),
        (["inspect", "no\udcff.onnx"], "no\ufffd.onnx"),
    ],
)
def test_wrong_use_with_json_is_one_json_document(words: list[str], said: str) -> None:
    ended = start(*words, "--json")
    out, err = ended.communicate(timeout=60)
    answer = json.loads(out)
    assert (ended.returncode, err, set(answer)) == (2, b"", {"error", "message", "advice"})
    assert said in answer["message"]


def test_an_interrupt_with_json_is_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, ending_errors(["run", "--json"]):
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert json.loads(capsys.readouterr().out)["error"] == "Interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("words", [["targets"], ["targets", "--json"], ["inspect", "nowhere", "--json"]])
def test_a_reader_that_went_away_is_neither_a_pass_nor_a_no(words: list[str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    ended = start(*words, stdout=write_end)
    os.close(write_end)
    assert (ended.communicate(timeout=60)[1], ended.returncode) == (b"", 141)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["targets"], ["targets", "--json"], ["inspect", "nowhere", "--json"]])
def test_an_answer_that_cannot_be_written_is_an_error(words: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = start(*words, stdout=full)
        _, err = ended.communicate(timeout=60)
    assert (ended.returncode, err) == (2, b"error: cannot write the answer: No space left on device\n")


def test_a_file_that_nobody_expected_to_fail_is_still_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, ending_errors(["run"]):
        Path("/no/such/file").read_bytes()
    assert ended.value.code == 2
    assert "/no/such/file" in capsys.readouterr().err


@pytest.mark.slow
def test_closed_streams_and_a_narrow_locale_do_not_matter(tmp_path: Path) -> None:
    closed = subprocess.run(
        ["bash", "-c", f"{' '.join(COMMAND)} inspect zoo:digits-cnn --json <&- >&- 2>&-"], check=False
    )
    assert closed.returncode == 0
    (tmp_path / "größe.onnx").write_bytes(b"")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = start("inspect", str(tmp_path / "größe.onnx"), "--json", env=environment)
    assert "größe.onnx" in json.loads(ended.communicate(timeout=60)[0])["message"]
    ended = start("inspect", "zoo:digits-cnn", env=environment)
    assert b"layers \\xb7 MACs" in ended.communicate(timeout=60)[0]
