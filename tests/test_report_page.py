"""The frame of the report: everything that is not made here gets escaped."""

from __future__ import annotations

from npuops.report.report_page import Markup, element, page, table, text


def test_a_text_is_escaped_and_markup_is_not() -> None:
    assert text("<b>&\"'") == "&lt;b&gt;&amp;&quot;&#x27;"
    assert element("p", "<i>", element("b", "x")) == "<p>&lt;i&gt;<b>x</b></p>"


def test_an_attribute_is_escaped_even_where_it_is_markup() -> None:
    assert element("p", data_title=Markup('"><script>')) == '<p data-title="&quot;&gt;&lt;script&gt;"></p>'


def test_control_and_bidi_characters_become_visible() -> None:
    assert text("a\x00\x1b\u202eb\ud800") == "a\ufffd\ufffd\ufffdb\ufffd"


def test_cells_carry_the_title_of_their_column_for_narrow_screens() -> None:
    found = table("caption", ("Name", "Size"), [("<a>", "3")], numbers=(1,))
    assert '<td class="num" data-title="Size">3</td>' in found
    assert '<th scope="row">&lt;a&gt;</th>' in found


def test_the_page_allows_nothing_from_elsewhere() -> None:
    found = page("<title>", "body")
    assert "default-src &#x27;none&#x27;" in found or "default-src 'none'" in found
    assert "<script" not in found
    assert "&lt;title&gt;" in found
