"""Reports in a real browser: nothing fails, nothing is cut, and a keyboard is enough."""

import io
import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser
from pypdf import PdfReader

from dashboards.measurement.report import REPORT, write_measurement
from dashboards.study.figures import every_figure
from dashboards.study.report import report_page
from dashboards.tables.derived import judged
from dashboards.tables.reading import StudyRun, read_study
from tests.dashboards.browser.conftest import Open, Opened
from tests.dashboards.conftest import ARMS, maker
from tests.dashboards.kept_maps import keep, kept_maps
from tests.dashboards.measurement.measured import FACTS, small_measurement
from tests.dashboards.published import published, published_store

pytestmark = pytest.mark.slow

NAMES = ("small", "37 arms", "measured")
WIDTHS = (390, 1280, 2560)
A4_MM = 210 - 2 * 14
"""width of what is printed on a page"""


class Made(NamedTuple):
    """A page, and what it was made of."""

    file: Path
    verdicts: dict[str, Any]


def study_page(folder: Path, study: StudyRun) -> Made:
    verdicts = judged(study)
    file = folder / "report.html"
    file.write_bytes(report_page(study, verdicts, every_figure(study, verdicts)))
    return Made(file, verdicts)


def with_maps(study: StudyRun, root: Path) -> StudyRun:
    """The study as if its first seed had kept maps, as large as they are of 224 pixels, often."""
    runs = dict(study.runs)
    for number, arm in enumerate(study.arms):
        place = (arm, study.seeds[0])
        runs[place] = replace(runs[place], key=f"{number:016x}", has_maps=True)
        folder = root / "trials" / runs[place].key
        folder.mkdir(parents=True)
        result = {"status": "finished", "step": 600, "steps": 600, "attempt": 1, "files": {}}
        (folder / "result.json").write_text(json.dumps(result))
        steps = range(0, 601, 100)
        kept = {n: kept_maps(number + n, is_last=n == 600, grid=14, side=96) for n in steps}
        keep(folder, kept)
    return replace(study, runs=runs)


@pytest.fixture(scope="module")
def pages(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """The report of a small study, of the largest published one, and of a measured model.

    They are made where a browser shows them.
    """
    folders = {name: tmp_path_factory.mktemp("page") for name in NAMES}
    small = maker(folders["small"])({("loss_on_patches", 0): "collapsed"})
    for number, arm in enumerate(ARMS):
        steps = {0: kept_maps(9, is_last=False), 600: kept_maps(number)}
        keep(small.root / small.trial(arm, 0).folder, steps)
    large = published(published_store(folders["37 arms"]), "why_cls_is_global-photographs")
    large = with_maps(large, folders["37 arms"])
    measured = folders["measured"] / "measured"
    write_measurement(measured, *small_measurement(both=True), facts=FACTS)
    return {
        "small": study_page(folders["small"], read_study(*small)),
        "37 arms": study_page(folders["37 arms"], large),
        "measured": Made(measured / REPORT, {}),
    }


@pytest.fixture(params=NAMES)
def made(request: pytest.FixtureRequest, pages: dict[str, Made]) -> Made:
    return pages[request.param]


def too_wide(opened: Opened) -> list[str]:
    """What reaches over the right edge, but where it can be scrolled."""
    return opened.page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter(one =>
          !one.closest("svg, [data-figure]")
          && one.getBoundingClientRect().right > document.documentElement.clientWidth + 1
        ).map(one => `${one.tagName} ${one.className} ${one.textContent.slice(0, 40)}`)"""
    )


def barriers(opened: Opened) -> list[str]:
    """What axe finds that is serious or critical."""
    found = Axe().run(opened.page, options={"resultTypes": ["violations"]})
    return [
        f"{one['id']}: {one['nodes'][0]['html']}"
        for one in found.response["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def letters(text: str) -> str:
    """Text without spaces and ligatures, which a printer sets as it likes."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def test_a_page_opens_from_disk_and_scrolls_only_down(made: Made, open_page: Open) -> None:
    opened = open_page(made.file)
    for folded in (True, False):
        if not folded:
            opened.unfold()
        for width in WIDTHS:
            opened.widen(width)
            assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    assert opened.problems == []
    assert made.file.stat().st_size < 3e6


def test_everybody_can_read_a_page_in_light_and_in_dark(made: Made, open_page: Open) -> None:
    # Narrow, since there most has to be scrolled.
    opened = open_page(made.file, color_scheme="light", viewport={"width": 390, "height": 900})
    opened.unfold()
    # It takes a minute for what is there over and over, and an image is one thing to it.
    opened.page.evaluate(
        """() => document.querySelectorAll(
          ".js-plotly-plot > *, tbody tr:nth-child(n + 4), .hypothesis:nth-of-type(n + 6)"
        ).forEach(one => one.remove())"""
    )
    assert barriers(opened) == []
    opened.page.emulate_media(color_scheme="dark")
    assert barriers(opened) == []


def test_on_paper_nothing_is_cut_and_every_verdict_is_there(made: Made, open_page: Open) -> None:
    opened = open_page(made.file)
    printed = PdfReader(io.BytesIO(opened.page.pdf(format="A4", prefer_css_page_size=True)))
    text = letters("".join(page.extract_text() for page in printed.pages))
    assert text
    for name, entry in made.verdicts.get("hypotheses", {}).items():
        assert letters(name) in text
        assert letters(entry["verdict"]["reason"]) in text
    opened.page.emulate_media(media="print")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    width = round(A4_MM / 25.4 * 96)
    # A browser does not draw anew for paper: figures are there as on its screen.
    opened.page.evaluate(f"document.body.style.width = '{width}px'")
    ends = "[...document.querySelectorAll('.main-svg')].map(one => one.getBoundingClientRect())"
    assert all(end["right"] - end["left"] <= width for end in opened.page.evaluate(ends))
    opened.widen(width)
    assert too_wide(opened) == []
    heights = opened.page.evaluate(
        "[...document.querySelectorAll('[data-figure], figure img')].map(one => one.offsetHeight)"
    )
    assert all(height < (297 - 2 * 14) / 25.4 * 96 for height in heights)


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_keyboard_unfolds_and_filters(pages: dict[str, Made], open_page: Open, name: str) -> None:
    made = pages[name]
    page = open_page(made.file).page
    panels = page.locator(".hypothesis")
    assert panels.count() == len(made.verdicts["hypotheses"])
    panels.first.locator("summary").press("Enter")
    reason = next(iter(made.verdicts["hypotheses"].values()))["verdict"]["reason"]
    assert page.get_by_text(reason).is_visible()
    numbers = page.locator("details.numbers", has_text="Seed by seed")
    numbers.locator("summary").press("Enter")
    pairs = sum(len(one["verdict"]["pairs"]) for one in made.verdicts["hypotheses"].values())
    numbers.locator("tbody tr").last.wait_for()
    assert numbers.locator("tbody tr").count() == pairs
    arm = page.get_by_label("Arm", exact=True)
    arm.focus()
    page.keyboard.type("loss_on_patches")
    assert arm.locator("option:checked").text_content() == "loss_on_patches"
    kept = [
        one
        for one, entry in made.verdicts["hypotheses"].items()
        if "loss_on_patches" in entry["hypothesis"]["contrast"]
    ]
    assert page.locator(".hypothesis:visible").count() == len(kept)
    columns = page.locator("[aria-describedby=attention_by_arm-caption] .column:visible")
    shown = columns.locator("[title]").all_text_contents()
    assert [one.split()[0] for one in shown] == ["loss_on_patches"]
    assert columns.count() == 2
    training = page.locator("[aria-describedby=attention_over_training-caption]")
    page.locator("details", has=training).locator("> summary").press("Enter")
    for one in (training.locator("h3"), training.locator(".sheet"), training.get_by_text("image")):
        assert one.locator("visible=true").count() == 1
    drawn = "learning_curves.data.filter(one => one.meta && one.visible).map(one => one.meta)"
    assert len(set(page.evaluate(drawn))) == 1
    named = "learning_curves.layout.annotations.filter(one => one.name && one.visible)"
    assert {one["text"].split()[-1] for one in page.evaluate(named)} == {"loss_on_patches"}


def test_maps_lie_over_their_images(pages: dict[str, Made], open_page: Open) -> None:
    page = open_page(pages["small"].file).page
    tiles = page.locator("[aria-describedby=attention_by_arm-caption] .tile:has(img)")
    assert tiles.count() == 3 * 4
    sizes = """tiles => tiles.map(tile => {
      const [whole, map] = [tile, tile.firstElementChild].map(one => one.getBoundingClientRect());
      return [whole.width, whole.height, map.width, map.height, tile.firstChild.naturalWidth];
    })"""
    for width, height, *of_map, patches in tiles.evaluate_all(sizes):
        assert width == pytest.approx(height, abs=0.1)
        assert of_map == pytest.approx([width, height], abs=0.1)
        assert patches == 8
    assert 'url("data:image/webp' in tiles.first.evaluate(
        "one => getComputedStyle(one).backgroundImage"
    )


def test_a_point_under_the_pointer_says_what_it_is(pages: dict[str, Made], open_page: Open) -> None:
    page = open_page(pages["small"].file).page
    page.locator("#paired_seeds").scroll_into_view_if_needed()
    page.locator("#paired_seeds .points path").first.hover(force=True)
    page.locator("#paired_seeds .hovertext").wait_for()
    said = page.locator("#paired_seeds .hovertext").text_content() or ""
    assert said.startswith("baseline, seed 0, finished: ")


def test_styles_of_the_page_are_not_those_of_its_figures(
    pages: dict[str, Made], open_page: Open
) -> None:
    page = open_page(pages["small"].file).page
    displays = """() => [...document.querySelectorAll(".js-plotly-plot tspan")].map(
      one => getComputedStyle(one).display)"""
    assert set(page.evaluate(displays)) == {"inline"}


def test_a_link_unfolds_what_it_leads_to(pages: dict[str, Made], open_page: Open) -> None:
    page = open_page(pages["small"].file).page
    meaning = page.locator("#meaning-failed")
    assert not meaning.is_visible()
    page.locator('a[href="#meaning-failed"]').first.press("Enter")
    assert meaning.is_visible()


PLANTED = {
    "markup": "</script><script class=planted>alert(1)</script>"
    "<img class=planted src=x onerror=alert(1)><a class=planted href='javascript:alert(1)'>"
    "' onmouseover='alert(1)' class='planted\" onfocus=\"alert(1)\" class=\"planted {{ 7 * 7 }}",
    "places": "../../etc/passwd\nfile:///etc/passwd\r\nhttps://example.org",
    "long": "long" * 75,
}
"""Names and words of somebody who wants a page to run or to fetch something."""


def planted(study: StudyRun, one: str) -> StudyRun:
    """The study with `one` in all its words, and in the names of an arm, a hypothesis, a claim."""
    renamed = {"loss_on_patches": f"arm {one}", "loss_on_cls_makes_it_useful": f"hypothesis {one}"}

    def anew(value: Any) -> Any:
        if isinstance(value, dict):
            return {renamed.get(name, name): anew(inner) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [anew(inner) for inner in value]
        return renamed.get(value, value) if isinstance(value, str) else value

    entry = study.entry
    stated = anew(entry.resolved.model_dump(mode="json"))
    stated["claims"] = {
        f"claim {one}": {
            "text": one,
            "source": one,
            "hypotheses": [f"hypothesis {one}", "cls_needs_no_position"],
        }
    }
    for hypothesis in stated["hypotheses"].values():
        hypothesis |= {"claim": one, "rationale": one}
    changed = {
        "resolved": type(entry.resolved).model_validate_json(json.dumps(stated)),
        "arms": {
            renamed.get(arm, arm): facts.model_copy(update={"confounds": (one,)})
            for arm, facts in entry.arms.items()
        },
        "dataset": {**entry.dataset, "source": one, "skipped": [{"path": one, "reason": one}]},
        "packages": {one: one},
        "git": {"commit": one},
        "reason": one,
    }
    runs = {
        (renamed.get(arm, arm), seed): replace(run, reason=run.reason and one)
        for (arm, seed), run in study.runs.items()
    }
    named = [renamed.get(arm, arm) for arm in study.table["arm"].to_pylist()]
    place = study.table.column_names.index("arm")
    return replace(
        study,
        chain=(entry.model_copy(update=changed),),
        runs=runs,
        table=study.table.set_column(place, "arm", [named]),
    )


@pytest.mark.parametrize("kind", PLANTED)
def test_no_name_and_no_word_becomes_more_than_text(
    tmp_path: Path, open_page: Open, kind: str
) -> None:
    one = PLANTED[kind]
    endings = {("loss_on_patches", 1): "failed", ("baseline", 2): "collapsed"}
    study = planted(read_study(*maker(tmp_path)(endings)), one)
    if kind == "markup":
        # The name of a study is that of a folder: others are refused before they are one.
        chain = tuple(entry.model_copy(update={"study": one}) for entry in study.chain)
        study = replace(study, chain=chain)
    opened = open_page(study_page(tmp_path, study).file, viewport={"width": 390, "height": 900})
    opened.unfold()
    page = opened.page
    assert (page.locator("h1").text_content() or "").split() == study.name.split()
    page.get_by_label("Arm", exact=True).select_option(index=3)
    assert page.locator(".hypothesis:visible").count() == 2
    assert page.locator(".planted, [onerror], [onmouseover], [onfocus]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert opened.problems == []
