"""Pages as a browser shows them, from disk and without a network."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

from tests.browser import chromium

Open = Callable[..., "Opened"]

DRAWN = """() => [...document.querySelectorAll("[data-figure]")].every(
  place => place.querySelector(".main-svg") || place.textContent)"""

SETTLED = """() => new Promise(done => {
  let last = "", frames = 0;
  const look = () => {
    const now = JSON.stringify([...document.querySelectorAll("[data-figure], .main-svg")].map(
      one => [one.offsetWidth, one.getBoundingClientRect().width]));
    frames = now === last ? frames + 1 : 0;
    last = now;
    frames > 20 ? done() : requestAnimationFrame(look);
  };
  look();
})"""
"""Waits until figures have kept their widths for as long as Plotly puts drawing anew off."""


class Opened:
    """A page in a context of its own, and all that a reader would rather not see of it."""

    def __init__(self, browser: Browser, file: Path, **context: Any) -> None:
        self.problems: list[str] = []
        self._context = browser.new_context(offline=True, **context)
        self._context.route("**/*", self._answer)
        self.page: Page = self._context.new_page()
        self.page.on("console", lambda said: self._note(f"console: {said.type} {said.text}"))
        self.page.on("pageerror", lambda error: self._note(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self._note("dialog"), dialog.dismiss()))
        self.page.goto(file.as_uri())
        self.page.wait_for_function(DRAWN, timeout=120_000)

    def _note(self, problem: str) -> None:
        self.problems.append(problem)

    def _answer(self, route: Route) -> None:
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            self._note(f"asked for {route.request.url[:200]}")
            route.abort()

    def unfold(self) -> None:
        """Unfolds all, and waits for the numbers of figures."""
        self.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        self.page.wait_for_function(
            "[...document.querySelectorAll('.numbers')].every(one => one.querySelector('tbody'))"
        )

    def widen(self, width: int) -> None:
        """As on a screen of `width` pixels, everything drawn anew."""
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.evaluate(SETTLED)

    def close(self) -> None:
        self._context.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a display; it ends with the tests of a file."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("there is no chromium on the PATH: apt-get install chromium")
    with chromium(executable) as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """A function that opens a file; its keywords are those of a context."""
    opened: list[Opened] = []

    def open_one(file: Path, **context: Any) -> Opened:
        opened.append(Opened(browser, file, **context))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()
