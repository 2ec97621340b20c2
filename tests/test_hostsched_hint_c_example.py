"""The C header: it compiles without a warning as C99 and as C++, and what a program says with it is heard."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import npuops.hostsched
from hint_agent import hear
from npuops.hostsched.hint import Kind
from npuops.hostsched.hint_socket import HintSocket

HEADERS = Path(npuops.hostsched.__file__).parent
PROGRAM = """
#include "npuops_hint.h"
#include <stdio.h>

int main(void) {
    npuops_hints hints;
    npuops_hint hint;
    int byte;
    memset(&hint, 0, sizeof hint);
    npuops_hint_open(&hints, NULL);
    while ((byte = getchar()) != EOF) {
        if (byte == 'b') {
            hint.kind = NPUOPS_HINT_BATCH;
            hint.says = 0;
        } else {
            hint.kind = NPUOPS_HINT_LATENCY;
            hint.says = NPUOPS_HINT_SLO | NPUOPS_HINT_SLACK | NPUOPS_HINT_QUEUED;
            hint.slo_us = 2500;
            hint.slack_us = -40;
            hint.queued = 3;
            hint.served++;
            hint.missed++;
        }
        errno = 77;
        printf("%d %d\\n", npuops_hint_send(&hints, &hint), errno);
        fflush(stdout);
        hints.retry_us = 0;
    }
    npuops_hint_close(&hints);
    return 0;
}
"""
STRICT = ("-Wall", "-Wextra", "-Werror", "-Wpedantic", "-Wconversion", "-O2", f"-I{HEADERS}")
LANGUAGES = {
    "c99": ("cc", "c", "-std=c99"),
    "gnu11": ("cc", "c", "-std=gnu11"),
    "c++11": ("g++", "cpp", "-std=c++11"),
    "c++20": ("g++", "cpp", "-std=c++20"),
}


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def compiled(folder: Path, language: str) -> Path:
    compiler, suffix, standard = LANGUAGES[language]
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    source = folder / f"said.{suffix}"
    source.write_text(PROGRAM, encoding="utf-8")
    command = [compiler, standard, *STRICT, source, "-o", folder / "said"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "said"


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_a_program_says_is_heard_and_an_absent_agent_is_nothing_to_it(folder: Path, language: str) -> None:
    program, path = compiled(folder, language), folder / "npuops" / "hostsched.sock"
    environment = {"XDG_RUNTIME_DIR": str(folder), "PATH": os.environ["PATH"]}
    said = subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, bufsize=1
    )
    assert said.stdin is not None
    assert said.stdout is not None

    def say(letter: str) -> str:
        assert said.stdin is not None
        assert said.stdout is not None
        said.stdin.write(letter)
        said.stdin.flush()
        return said.stdout.readline()

    with said:
        if not Path("/run/npuops/hostsched.sock").exists():
            assert say("b") == "0 77\n"
        with HintSocket(str(path)) as listener:
            assert say("b") == "1 77\n"
            assert hear(listener, lambda found: said.pid in found)[said.pid].kind is Kind.BATCH
            assert say("l") == "1 77\n"
            hint = listener.heard()[said.pid]
            assert (hint.kind, hint.slo_us, hint.queued) == (Kind.LATENCY, 2500, 3)
            assert (hint.served, hint.missed) == (1, 1)
            assert hint.slack_us is not None
            assert hint.slack_us <= -40
            assert listener.counts.malformed == 0
        if not Path("/run/npuops/hostsched.sock").exists():
            assert say("b") == "0 77\n"
        with HintSocket(str(path)) as listener:
            assert say("l") == "1 77\n"
            assert said.pid in listener.heard()
            said.send_signal(signal.SIGTERM)
            hear(listener, lambda found: not found)
    assert said.returncode == -signal.SIGTERM


def test_it_says_what_it_needs_where_a_program_hides_posix(folder: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    source = folder / "late.c"
    source.write_text('#include <stdio.h>\n#include "npuops_hint.h"\nint main(void) { return 0; }\n', encoding="utf-8")
    flags = ["cc", "-std=c99", f"-I{HEADERS}", source, "-o", folder / "late"]
    done = subprocess.run(flags, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "include it first" in done.stderr
    subprocess.run([*flags, "-D_POSIX_C_SOURCE=200809L"], check=True)
