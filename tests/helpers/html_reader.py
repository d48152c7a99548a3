"""A reader of HTML, and text that tries to break out of it."""

from __future__ import annotations

from html.parser import HTMLParser

NASTY = "<img src=x onerror=alert(1)> \"' ${value} {{value}} `x` </p><script>alert(2)</script>"


class Reader(HTMLParser):
    """Collects the tags and the text of an HTML fragment."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data
