"""A study of 300 runs in MLflow's own pages, entered by the links that `dinolab ui` prints."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from tests.browser import chromium
from tests.orchestrator.conftest import dinolab
from tests.orchestrator.tracking.conftest import server
from tests.orchestrator.tracking.synthetic import (
    ARM_RUNS,
    DRAWN,
    LONG_RUNS,
    METRIC,
    RUNS,
    mirrored_study,
)
from trainers.system.store import LocalStore

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium"),
]

CURVES = """(steps) => [...document.querySelectorAll(".js-plotly-plot")].some(plot =>
  plot.data.filter(one => one.mode === "lines+markers" && one.x.length === steps).length > 1)"""
"""Whether a chart has a curve of so many steps of more than one arm."""

PICTURED = """([step, atLeast]) => [...document.images].filter(
  one => decodeURIComponent(one.src).includes(`cls_attention+step+${step}+`)
  && one.naturalWidth > 0 && one.getBoundingClientRect().width > 50).length >= atLeast"""
"""Whether so many pictures of attention at a step are on the page, loaded and to be seen."""

PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Addresses by what they show."""
    folder = tmp_path_factory.mktemp("pages")
    store = LocalStore(folder / "runs", make=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/server.db")
        mirrored_study(store, arms=20, seeds=15)
    with server(folder) as uri:
        code, output = dinolab("ui", "mini", "--root", store.root, MLFLOW_TRACKING_URI=uri)
        assert code == 0, output
        lines = (line.strip() for line in output.splitlines() if "/#/" in line)
        yield {shows: f"http{rest}" for shows, rest in (line.split(": http") for line in lines)}


@pytest.fixture
def page() -> Iterator[Page]:
    assert CHROMIUM is not None
    with chromium(CHROMIUM) as browser:
        opened = browser.new_page(viewport={"width": 1500, "height": 1000})
        opened.set_default_timeout(PATIENCE_MS)
        said: list[str] = []
        opened.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        yield opened
        assert said == []
        assert opened.evaluate("typeof ran") == "undefined"


def test_differences_of_twenty_arms_are_charted(links: dict[str, str], page: Page) -> None:
    page.goto(links["arms compared"])
    page.get_by_text("differences from the baseline").first.wait_for()
    page.wait_for_function(DRAWN, arg="arm-19")
    shown = page.evaluate(
        """() => [...document.querySelectorAll(".js-plotly-plot")].flatMap(
          plot => plot.data.flatMap(one => [...one.x, ...one.y]))"""
    )
    numbers = [one for one in shown if isinstance(one, float)]
    for arm in range(1, 20):
        assert any(one == pytest.approx(arm / 100) for one in numbers), arm


def test_curves_of_300_runs_are_charted_by_arm(links: dict[str, str], page: Page) -> None:
    page.goto(links["runs by arm, curves"])
    page.get_by_text("Group: ").first.wait_for()
    page.get_by_text(METRIC).first.wait_for()
    page.wait_for_function(CURVES, arg=6)


def test_what_arms_change_is_shown(links: dict[str, str], page: Page) -> None:
    page.goto(links["what arms change"])
    page.get_by_text("Comparing 20 Runs").first.wait_for()
    page.get_by_text("model.depth").first.wait_for()


def test_no_word_of_a_study_becomes_more_than_text(links: dict[str, str], page: Page) -> None:
    page.goto(links["claims, verdicts, report"])
    page.get_by_text(RUNS).first.wait_for()
    assert page.locator("[onerror], [href^='javascript:']").count() == 0
    assert page.locator("script", has_text="ran = 1").count() == 0
    page.goto(links[f"hypothesis {RUNS}"])
    page.get_by_text(f"verdict on {RUNS}").first.wait_for()
    assert page.locator("[onerror], [href^='javascript:']").count() == 0


def test_pictures_of_ten_arms_are_shown_at_the_last_step(links: dict[str, str], page: Page) -> None:
    page.goto(links["what [CLS] attends to"])
    page.wait_for_function(PICTURED, arg=[5, 10])


def test_no_word_of_an_arm_becomes_more_than_text(links: dict[str, str], page: Page) -> None:
    page.goto(links["arms compared"])
    page.get_by_role("link", name=ARM_RUNS).first.click()
    page.get_by_text("Parameters (").first.wait_for()
    for text in (ARM_RUNS, LONG_RUNS, RUNS):
        page.get_by_text(text).first.wait_for()
    assert page.locator("[onerror], [href^='javascript:']").count() == 0
    assert page.locator("script", has_text="ran = 1").count() == 0
