"""A browser for tests of pages."""

import contextlib
from collections.abc import Iterator

from playwright.sync_api import Browser, sync_playwright


@contextlib.contextmanager
def chromium(executable: str) -> Iterator[Browser]:
    """Debian's Chromium, without a display."""
    with sync_playwright() as playwright:
        # Root has no sandbox.
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()
