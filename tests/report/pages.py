"""A parser for HTML pages, and the checks that every page must pass."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from unittest import mock

from PIL import Image

VOID = {"meta", "link", "img", "br", "wbr", "hr", "input"}


class Page(HTMLParser):
    """A parsed page: its tags with their attributes, and its text without CSS. All tags must be closed."""

    def __init__(self, source):
        super().__init__()
        self.source, self.open, self.tags, self.texts = source, [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.texts))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def check_self_contained(page):
    """The page loads nothing and runs nothing."""
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "base", "form"}
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href", "srcset", "action", "poster"):
            assert re.match("data:|#", attributes.get(name) or "#"), (tag, attributes[name][:80])
    assert not re.search(r"https?://|url\(|@import", page.source)
    (policy,) = (m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def check_accessible(page):
    """Pictures have a text, table headers have a scope, and links have a target."""
    assert all(image["alt"].strip() for image in page.all("img"))
    assert {cell.get("scope") for cell in page.all("th")} == {"row", "col"}
    assert page.all("html") == [{"lang": "en"}]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in page.all("a")} <= set(ids)


def check_pictures(page):
    """All pictures can be decoded and load nothing. Returns the number of PNGs."""
    kinds = []
    for image in page.all("img"):
        kind, content = re.fullmatch(r"data:image/(png|svg\+xml);base64,(.*)", image["src"]).groups()
        content = base64.b64decode(content, validate=True)
        kinds.append(kind)
        if kind == "png":
            Image.open(io.BytesIO(content)).load()
            continue
        svg = ElementTree.fromstring(content)
        # matplotlib writes its version and the names of vocabularies, but loads nothing from outside.
        links = [value for node in svg.iter() for name, value in node.attrib.items() if "href" in name]
        assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
        assert not any(re.search(r"\bnan\b|\binf\b", node.get("d") or "") for node in svg.iter())
    return kinds.count("png")


EVIL = "<img src=x onerror=alert(1)>'\"&{{ 7*7 }}$x_1$"


def everywhere(value):
    """The same structure with EVIL after every text."""
    if isinstance(value, dict):
        return {k: everywhere(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [everywhere(v) for v in value]
    return value + EVIL if isinstance(value, str) else value


def check_escaped(page, pictures, mentions):
    """EVIL appears in the page as text, more than `mentions` times, and adds no picture."""
    assert "<img src=x" not in page.source
    assert not any("onerror" in image for image in page.all("img"))
    assert len(page.all("img")) == pictures
    assert page.text.count(EVIL) > mentions


def without_plots(plots):
    """A context in which a module of plots draws nothing."""
    return mock.patch.object(plots, "svg", return_value="data:image/svg+xml;base64,")
