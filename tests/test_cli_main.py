from __future__ import annotations

import os
import subprocess
import sys

import pytest

from npuops.cli.main import VERBS


def npuops(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "npuops.cli.main", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_help_names_every_verb_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['npuops', '--help']\n"
        "from npuops.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'rich', 'msgspec', 'cryptography'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert verb in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_has_json(verb: str) -> None:
    done = npuops(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert "--json" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("nonsense",), ("targets", "--nonsense"), ("build",)])
def test_wrong_use_ends_with_two_and_says_what_is_wrong(arguments: tuple[str, ...]) -> None:
    done = npuops(*arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr


def test_no_verb_shows_the_help() -> None:
    assert "Commands:" in npuops().stdout + npuops().stderr


def test_version_is_printed() -> None:
    done = npuops("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "npuops")


def test_completion_completes_verbs() -> None:
    environment = {**os.environ, "_NPUOPS_COMPLETE": "complete_bash", "COMP_WORDS": "npuops pro", "COMP_CWORD": "1"}
    code = "from npuops.cli.main import app; app(prog_name='npuops')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "profile" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "wanted"), [("build m.onnx --target qnn-htp:sm86", "qnn-htp:sm8650"), ("check m.onnx -t ort", "ort-cpu")]
)
def test_completion_completes_targets(words: str, wanted: str) -> None:
    count = str(len(words.split()))
    environment = {
        **os.environ,
        "_NPUOPS_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": f"npuops {words}",
        "COMP_WORDS": f"npuops {words}",
        "COMP_CWORD": count,
    }
    code = "from npuops.cli.main import app; app(prog_name='npuops')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert wanted in done.stdout.replace("\\", ""), done.stderr  # zsh wants the colon escaped


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_that_arrives_where_nothing_can_be_raised_is_not_lost(number: str, code: int) -> None:
    verb = (
        "import signal, sys, time, types\n"
        "from npuops.cli import main\n"
        "class Deaf:\n"
        f"    def __del__(self): signal.raise_signal(signal.{number}); time.sleep(0.1)\n"
        "def command():\n"
        "    deaf = Deaf(); del deaf\n"
        "    time.sleep(30)\n"
        "sys.modules['npuops.cli.zoo_verb'] = types.SimpleNamespace(command=command, app=None)\n"
        "main.VERBS['zoo-verb'] = 'waits'\n"
        "sys.argv = ['npuops', 'zoo-verb']\n"
        "main.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", verb], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
