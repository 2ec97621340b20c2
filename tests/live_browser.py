"""A headless Chromium that looks at the live page."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest


def find_browser() -> str:
    """Its path; without one the test is skipped."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium here: install Debian's `chromium` to have the live page drawn by a real browser")
    return found


def visit(browser: str, folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    """The page's elements after some seconds of its own time, and what the browser said."""
    quiet = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
        *("--virtual-time-budget=12000", f"--user-data-dir={folder / 'profile'}", "--window-size=1300,1000"),
    )
    return subprocess.run([browser, *quiet, "--dump-dom", url], capture_output=True, text=True, timeout=120, check=True)


def console(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def part(page: str, name: str) -> str:
    """The text of the element with this id, tags removed."""
    match = re.search(rf'<(\w+)[^>]* id="{name}"[^>]*>(.*?)</\1>', page, re.DOTALL)
    assert match, f"no element {name}"
    return html.unescape(re.sub(r"<[^>]+>", " ", match.group(2))).strip()


def is_hidden(page: str, name: str) -> bool:
    match = re.search(rf'<\w+[^>]* id="{name}"[^>]*>', page)
    assert match
    return " hidden" in match.group()
