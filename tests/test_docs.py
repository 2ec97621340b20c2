"""The docs are run: every block tagged `run` works, and every command line that is shown exists.

In a page, blocks that begin with ```` ```sh run ```` are executed line by line, in order, in one scratch folder for
the page; a line that ends with `# exits 1` must end so, all others with 0. Blocks that begin with
```` ```python run ```` are executed too. Other blocks are checked for verbs and options that exist.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from npuops.cli.main import VERBS, _load
from npuops.targets.registry import open_target
from virtual_devices import home_at

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "targets").glob("*.md")])
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
EXITS = re.compile(r"\s+# exits (\d)$")
SHORT = {"inspect", "targets", "toy"}
"""Pages whose commands take a moment; those of all others are for `./run docs` and CI."""


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(match["info"].strip(), match["body"]) for match in FENCE.finditer(page.read_text(encoding="utf-8"))]


def run_lines(page: Path) -> list[str]:
    joined = "\n".join(body for info, body in blocks(page) if info == "sh run")
    return [line for line in joined.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]


def needs(line: str) -> str:
    """Why a line cannot run here, or ""."""
    for target in re.findall(r"(?:-t|--target) (\S+)", line):
        probe = open_target(target).probe()
        if not probe.available:
            return f"{target}: {probe.why_not}"
    return ""


def test_every_page_about_a_verb_or_a_target_has_commands_that_run() -> None:
    about_no_command = {"README", "design", "layout", "measured", "metrics", "protocol", "qat"}
    about_no_command |= {"hostsched-benchmarks", "serving-benchmarks"}
    assert [page.stem for page in PAGES if not run_lines(page) and page.stem not in about_no_command] == []


PYTHON = [(page, body) for page in PAGES for info, body in blocks(page) if info == "python run"]


@pytest.mark.parametrize(("page", "body"), PYTHON, ids=[page.stem for page, _ in PYTHON])
def test_the_python_of_a_page_runs(page: Path, body: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", body], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{page.name}: {done.stderr}"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[] if page.stem in SHORT else [pytest.mark.slow])
        for page in PAGES
        if run_lines(page)
    ],
)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NPUOPS_CACHE": str(tmp_path / "cache"),
        "NPUOPS_LEASES": str(tmp_path),
        "NPUOPS_HINT_SOCKET": str(tmp_path / "hints.sock"),
    }
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with home_at(tmp_path / "devices") as home:
        run_all(page, scratch, {**environment, "NPUOPS_DEVICES": str(home)})


def run_all(page: Path, scratch: Path, environment: dict[str, str]) -> None:
    for line in run_lines(page):
        why_not = needs(line)
        if why_not:
            pytest.skip(f"{page.name}: {line.strip()}: {why_not}")
        wanted = EXITS.search(line)
        done = subprocess.run(
            ["bash", "-c", EXITS.sub("", line)],
            cwd=scratch,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == int(wanted[1] if wanted else 0), f"{line}\n{done.stdout}\n{done.stderr}"


def shown() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for info, body in blocks(page):
            if info.startswith(("python", "toml", "json", "yaml", "xml")):
                continue
            for line in body.replace("\\\n", " ").splitlines():
                words = line.removeprefix("$ ").strip()
                if words.startswith("npuops "):
                    found.append((page.name, words))
    return found


@pytest.mark.parametrize(("page", "line"), shown())
def test_a_command_line_that_is_shown_exists(page: str, line: str) -> None:
    words = shlex.split(re.sub(r"\s{2,}\S.*$|\s#.*$", "", line).replace("[", " ").replace("]", " "), posix=False)
    verb = words[1]
    if verb.startswith("-"):
        return
    assert verb in VERBS, page
    command: Any = _load(verb)
    while hasattr(command, "commands") and words[2:] and not words[2].startswith("-"):
        name = words.pop(2)
        assert name in command.commands, page
        command = command.commands[name]
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
    own = words[: words.index("--")] if "--" in words else words  # behind it is another command
    used = {word.partition("=")[0] for word in own[2:] if word.startswith("-") and len(word) > 1}
    assert used <= known, page
