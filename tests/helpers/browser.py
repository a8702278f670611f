"""Chromium for tests that click through pages."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = "KERAS_VIT_CHROMIUM"
"""The environment variable that names another program than `chromium` on the path."""


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window, by playwright; skips the test, with the reason, where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    named = ("chromium", "chromium-browser", "google-chrome")
    program = os.environ.get(CHROMIUM) or next(filter(None, map(shutil.which, named)), None)
    if program is None:
        pytest.skip(f"there is no chromium: install Debian's package, or name one with {CHROMIUM}")
    with api.sync_playwright() as playwright:
        # Tests run as root in containers, which have no sandbox; the pages are our own. The camera shows a
        # test picture.
        browser = playwright.chromium.launch(
            executable_path=program,
            args=[
                *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
            ],
        )
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page in a browser of its own data, whose errors fail the test.

    Args:
        browser: of `chromium`.
        width, height: of the window.
        context: of another tab, whose data it shares.
        offline: whether nothing is loaded but files; `False` for a page of a server on loopback.
    """

    def __init__(
        self,
        browser: Any,
        width: int = 1100,
        height: int = 900,
        context: Any = None,
        offline: bool = True,
    ):
        self.context = context or browser.new_context(
            viewport={"width": width, "height": height}, accept_downloads=True, offline=offline
        )
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda told: self.errors.append(told.text) if told.type == "error" else None)

    def downloaded(self, selector: str) -> tuple[str, str]:
        """The name and the text of the file that a click downloads."""
        with self.page.expect_download() as download:
            self.page.click(selector)
        with open(download.value.path(), encoding="utf-8", newline="") as file:
            return download.value.suggested_filename, file.read()
