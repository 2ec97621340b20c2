"""Names from files, made safe to show: in a terminal, in a page."""

from __future__ import annotations


def printable(text: str) -> str:
    """Control characters, changes of direction and broken encodings become U+FFFD; lines and tabs stay."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
