"""What others have written stands in a model card as it is: no markup, HTML, link or line of its own."""

import html
import re

import pytest

from keras_vit.serving.model_card import code, plain
from keras_vit.text import shown

pytestmark = pytest.mark.same_on_every_backend

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<!-- hidden",
    "&lt;b&gt; &amp;",
    "[click](javascript:alert(1))",
    "![x](https://example.org/x.png)",
    "[a]: https://example.org",
    "**bold** _it_ __it__ a_b_c *x*",
    "`code` ``more``",
    "a | b || c",
    "~~gone~~ $x_1$ \\(y\\)",
    "# heading\n\n- item\n> quote",
    "line\nbreak\r\n| new | row |",
    "\x1b[31mred\u202egnp.exe\u200b",
    "back\\slash\\*",
    "plain ünïcode 日本",
]


def render(markdown):
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return parser.render(markdown)


def text_of(page):
    return html.unescape(re.sub(r"<[^>]+>", "", page)).strip()


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_shown_as_it_is(text):
    paragraph = render(f"Classes: {plain(text)}.")
    assert re.findall(r"<(\w+)", paragraph) == ["p"]
    assert text_of(paragraph) == f"Classes: {shown(text)}."
    table = render(f"| class | images |\n|---|---|\n| {plain(text)} | 3 |\n")
    assert set(re.findall(r"<(\w+)", table)) == {"table", "thead", "tbody", "tr", "th", "td"}
    cells = re.findall(r"<td>(.*?)</td>", table, re.DOTALL)
    assert [html.unescape(cell) for cell in cells] == [shown(text).strip(), "3"]


@pytest.mark.parametrize("text", [*HOSTILE, "```", "a ```` b\n```\n<b>"])
def test_a_command_stays_in_its_block(text):
    page = render(f"before\n\n{code(text)}\n\nafter")
    assert re.findall(r"<(\w+)", page) == ["p", "pre", "code", "p"]
    (block,) = re.findall(r"<code>(.*?)</code>", page, re.DOTALL)
    assert html.unescape(block) == shown(text) + "\n"


def test_numbers_and_marked_text_stay():
    assert [plain(value) for value in (3, 0.5, None)] == [3, 0.5, None]
    assert plain(code("a*b")) == code("a*b")
