"""The frame of the HTML report: escaping, tables, the style sheet, the page.

The page is one file that loads nothing: no script, no font, no picture from elsewhere; its content security policy
forbids them. Colours follow the reader's light or dark setting, and no meaning hangs on colour alone.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Final

from npuops.report.printable import printable


class Markup(str):
    """HTML that was made here. Every other string is a text and gets escaped."""

    __slots__ = ()


def text(value: str) -> Markup:
    """Escape `value` unless it is Markup; control characters that HTML cannot hold become U+FFFD."""
    return value if isinstance(value, Markup) else Markup(_escaped(value))


def _escaped(value: str) -> str:
    return html.escape(printable(value))


def element(tag: str, *children: str, **attributes: str) -> Markup:
    """`<tag …>children</tag>`; `class_` stands for class, and other underscores for dashes."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_escaped(value)}"' for name, value in attributes.items() if value
    )
    return Markup(f"<{tag}{written}>{''.join(text(child) for child in children)}</{tag}>")


def join(parts: Iterable[str]) -> Markup:
    """Texts and markups in a row."""
    return Markup("".join(text(part) for part in parts))


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Sequence[int] = (),
    bars: Sequence[int] = (),
) -> Markup:
    """A table; the first column heads its row.

    On a narrow screen each row becomes a list of titled cells, or, where there are bars, the table scrolls by itself.

    Args:
        caption: what the table shows; it is the table's accessible name.
        head: column titles.
        rows: cells; Markup stays as it is.
        numbers: columns to align right.
        bars: columns that hold a bar, which get room.
    """
    kind = ["num" if index in numbers else "bars" if index in bars else "" for index in range(len(head))]
    titles = join(element("th", title, scope="col", class_=kind[index]) for index, title in enumerate(head))
    body = join(
        element(
            "tr",
            element("th", row[0], scope="row", class_=kind[0]),
            *(
                element("td", cell, class_=kind[index], data_title="" if bars else head[index])
                for index, cell in enumerate(row[1:], start=1)
            ),
        )
        for row in rows
    )
    inner = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", titles)),
        element("tbody", body),
        class_="" if bars else "stack",
    )
    return element("div", inner, class_="scroll", role="region", aria_label=caption, tabindex="0")


def pairs(items: Iterable[tuple[str, str]]) -> Markup:
    """Names with values."""
    return element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in items))


def section(title: str, *content: str) -> Markup:
    """A part of the page with its heading."""
    return element("section", element("h2", title), *content)


def page(title: str, *content: str) -> str:
    """The whole document."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
    )
    return head + element("body", element("main", *content)) + "\n</html>\n"


STYLE: Final = """
:root {
  --page: #f5f6f8; --card: #ffffff; --ink: #1b1f27; --soft: #545c6b; --line: #dfe3ea; --track: #e9ecf1;
  --npu: #1467c6; --cpu: #b4540a; --pass: #11703c; --fail: #b3261e; --unsure: #7a5200;
  --pass-bg: #dff3e6; --fail-bg: #fce4e2; --unsure-bg: #fdf0d0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12151a; --card: #1b1f26; --ink: #e8ebf0; --soft: #a3acba; --line: #323945; --track: #2a303a;
    --npu: #62a8f5; --cpu: #f0964a; --pass: #7fd6a0; --fail: #ff9d94; --unsure: #f0c469;
    --pass-bg: #17351f; --fail-bg: #43201d; --unsure-bg: #3a2f12;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 48px; }
header { margin-bottom: 20px; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 10px; }
h3 { font-size: .95rem; margin: 18px 0 6px; }
p { margin: 0 0 10px; max-width: 75ch; }
.lead { color: var(--soft); margin: 0; overflow-wrap: anywhere; }
.top { display: flex; gap: 16px; justify-content: space-between; align-items: flex-start; flex-wrap: wrap; }
.top > div { min-width: 0; }
.verdict { display: inline-block; padding: 0 10px; border-radius: 999px; font-weight: 600; white-space: nowrap; }
.verdict.big { font-size: 1.05rem; padding: 6px 18px; }
.pass { color: var(--pass); background: var(--pass-bg); }
.fail, .error { color: var(--fail); background: var(--fail-bg); }
.inconclusive { color: var(--unsure); background: var(--unsure-bg); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px; margin: 20px 0 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; margin: 0; }
.tile dt { color: var(--soft); font-size: .82rem; }
.tile dd { margin: 2px 0 0; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums;
  line-height: 1.25; }
.tile .under { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin-top: 16px; }
dl { margin: 0; }
section > dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 6px 28px; }
section > dl > div { display: grid; grid-template-columns: 9.5em minmax(0, 1fr); gap: 8px; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--npu); outline-offset: 2px; }
dl + .scroll, .scroll + .scroll, p + .scroll, ul + .scroll, figure + .scroll { margin-top: 14px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
caption { text-align: left; color: var(--soft); font-size: .85rem; padding: 0 0 4px; }
th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); font-weight: 400;
  vertical-align: baseline; }
thead th { font-weight: 600; font-size: .8rem; color: var(--soft); white-space: nowrap; vertical-align: bottom; }
tbody tr:last-child > * { border-bottom: 0; }
th[scope=row], td { overflow-wrap: anywhere; min-width: 4.5em; }
th[scope=row] { min-width: 7em; }
.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
code, pre, .mono { font-family: ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", monospace;
  font-size: .86em; }
.mono { overflow-wrap: anywhere; }
pre { margin: 0; padding: 12px 14px; border-radius: 8px; background: var(--track); white-space: pre-wrap;
  overflow-wrap: anywhere; }
.lead.why { color: var(--ink); margin-top: 6px; }
.note { color: var(--soft); font-size: .9em; }
.reasons { margin: 8px 0 0; padding-left: 1.2em; }
.reasons li { overflow-wrap: anywhere; }
figure { margin: 0 0 14px; }
figcaption { color: var(--soft); font-size: .85rem; margin-bottom: 4px; }
.lanes { display: grid; grid-template-columns: minmax(3em, max-content) minmax(0, 1fr);
  column-gap: 8px; font-size: .8rem; color: var(--soft); }
.lanes svg { grid-column: 2; grid-row: 1 / span 2; width: 100%; height: 52px; display: block; }
.lanes span { height: 26px; line-height: 26px; }
.lane { fill: var(--track); }
.npu { fill: var(--npu); }
.cpu { fill: var(--cpu); }
.edge { stroke: var(--card); stroke-width: 1; vector-effect: non-scaling-stroke; }
.key { display: inline-flex; align-items: center; gap: 6px; white-space: nowrap; }
.key svg { width: 12px; height: 12px; }
.bars { width: 40%; min-width: 90px; }
td.bars { vertical-align: middle; }
.bar { display: block; width: 100%; height: 12px; }
.bar .lane { fill: var(--track); }
footer { color: var(--soft); font-size: .82rem; margin-top: 20px; }
@media (max-width: 560px) {
  main { padding: 16px 12px 32px; }
  section { padding: 14px; }
  h1 { font-size: 1.4rem; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px; }
  .tile dd { font-size: 1.1rem; overflow-wrap: anywhere; }
}
@media screen and (max-width: 860px) {
  .stack thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .stack tr { display: block; padding: 6px 0; border-bottom: 1px solid var(--line); }
  .stack tbody tr:last-child { border-bottom: 0; }
  .stack caption, .stack tbody { display: block; }
  .stack th, .stack td { display: grid; grid-template-columns: 7em minmax(0, 1fr); gap: 8px; border: 0;
    padding: 1px 0; text-align: left; white-space: normal; overflow-wrap: anywhere; }
  .stack th { display: block; font-weight: 600; }
  .stack td::before { content: attr(data-title); color: var(--soft); }
  .stack .verdict { justify-self: start; }
  .stack th[scope=row], .stack td { min-width: 0; }
}
@media screen and (max-width: 560px) {
  th, td { padding-right: 6px; font-size: .8rem; }
  thead th, .key { font-size: .75rem; }
  .key { gap: 3px; }
  th[scope=row], td { min-width: 0; }
  thead th, thead .num { white-space: normal; }
  .bars { min-width: 50px; width: 30%; }
}
@media print {
  :root { --page: #fff; --card: #fff; --ink: #000; --soft: #333; --line: #999; --track: #eee; --npu: #1467c6;
    --cpu: #b4540a; --pass: #11703c; --fail: #b3261e; --unsure: #7a5200; --pass-bg: #fff; --fail-bg: #fff;
    --unsure-bg: #fff; }
  main { max-width: none; padding: 0; }
  section, .tile { break-inside: avoid; border-radius: 0; }
  .scroll { overflow: visible; }
  .verdict { border: 1px solid currentColor; }
  svg { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
