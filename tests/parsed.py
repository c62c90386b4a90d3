"""HTML read back for the tests of pages: what a browser would see as elements and as text."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

from PIL import Image

VOID = {"meta", "link", "input", "br", "img", "hr"}


class Parsed(HTMLParser):
    """``elements``: (tag, attributes) in order; ``words``: text outside of style and script; ``raw``: text inside of them.

    Raises ``AssertionError`` for an end tag that closes nothing or another element.
    """

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict]] = []
        self.words = ""
        self.raw = {"style": [], "script": []}
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute of <{tag}> stands twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open and self._open[-1] == tag, f"</{tag}> after {self._open[-3:]}"
        self._open.pop()

    def handle_data(self, data):
        if self._open and self._open[-1] in self.raw:
            self.raw[self._open[-1]].append(data)
        else:
            self.words += data

    def all(self, tag: str, kind: str = "") -> list[dict]:
        """Attributes of every ``tag`` whose classes include ``kind``."""
        return [found for name, found in self.elements if name == tag and (not kind or kind in found.get("class", "").split())]

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    @property
    def urls(self) -> list[str]:
        return [value for _, found in self.elements for key, value in found.items() if key in ("href", "src", "action", "srcset")]


def image_of(uri: str) -> Image.Image:
    """The picture inside a data URI."""
    start = "data:image/png;base64,"
    assert uri.startswith(start)
    image = Image.open(io.BytesIO(base64.b64decode(uri[len(start) :], validate=True)))
    image.load()
    assert image.format == "PNG"
    return image
