"""The report is one page that needs nothing else, and tells what is missing.

Over 400 lines: many small facts of one thing, which are looked for together.
"""

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from dashboards.definitions.text import DEFINITIONS
from dashboards.study.figures import every_figure
from dashboards.study.report import _breakable, _linked, write_figures, write_report
from dashboards.tables.derived import interval_shown, judged, write_verdicts
from dashboards.tables.reading import StudyRun, read_study
from tests.dashboards.conftest import CONFOUNDS, Made, MakeStudy, maker
from tests.registered import restated

FIGURES = (
    "verdict_intervals",
    "paired_seeds",
    "learning_curves",
    "globality_by_layer",
    "collapse_panel",
)
DRAWN = FIGURES[1:]
"""by Plotly, in the report; the forest is drawn without a script"""
SECTIONS = [
    "Verdicts",
    "Hypotheses",
    "Could these verdicts have failed?",
    "Seed by seed",
    "Gates",
    "Learning curves",
    "Globality by layer",
    "Collapse panel",
    "Arms",
    "Values by seed",
    "Data set",
    "What this cannot say",
    "What labels and words mean",
    "Registrations",
    "Provenance",
]
VOID = {"meta", "link", "br", "wbr", "img", "input", "hr"}


class Page(HTMLParser):
    """Text, addresses, scripts, styles, headings and plots of a page whose tags match."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.addresses: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.headings: list[str] = []
        self.names: list[str] = []
        self.drawn: set[str] = set()
        self.words: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.addresses += [
            values[name] or "" for name in ("src", "href", "srcset", "data") if name in values
        ]
        self.names += [values["id"] or ""] if "id" in values else []
        if tag == "script":
            self.scripts.append("")
        if tag == "svg" and "main-svg" in (values.get("class") or ""):
            self.drawn |= {str(outer["id"]) for _, outer in self.open if outer.get("id")}
        if tag in ("td", "th", "dt", "dd"):
            self.words.append(" ")
        if tag not in VOID:
            self.open.append((tag, values))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1][0] if self.open else ""
        if inside == "script":
            self.scripts[-1] += data
        elif inside == "style":
            self.styles.append(data)
        else:
            self.words.append(data)
        if inside == "h2":
            self.headings.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def judged_study(made: Made) -> tuple[StudyRun, dict[str, Any]]:
    study = read_study(*made)
    return study, judged(study)


def report_of(made: Made) -> Path:
    study, verdicts = judged_study(made)
    return made.root / write_report(study, verdicts, every_figure(study, verdicts))


def page(made: Made) -> Page:
    return Page(report_of(made).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A study whose runs have all finished; nobody changes it."""
    return maker(tmp_path_factory.mktemp("whole"))()


@pytest.fixture(scope="module")
def report(whole: Made) -> Page:
    """Its report."""
    return page(whole)


def test_how_runs_ended_is_no_link_to_what_a_verdict_means(make_study: MakeStudy) -> None:
    text = report_of(make_study({("loss_on_patches", 1): "failed"})).read_text(encoding="utf-8")
    answers = dict(re.findall(r"<dt>([^<]*)</dt><dd>(.*?)</dd>", text))
    assert "1 failed." in answers["What was not done"]
    assert '<a href="#meaning-failed">failed</a>' in answers["What came out"]
    assert "#meaning-" not in answers["What was not done"] + answers["What was asked"]


def test_report_has_its_sections_in_order(report: Page) -> None:
    assert report.headings == SECTIONS
    assert not report.open
    assert "18 of 18 runs finished." in report.text


def test_report_fetches_nothing(report: Page) -> None:
    assert [to for to in report.addresses if not to.startswith("#")] == ["data:,"]
    assert not any("url(" in style or "@import" in style for style in report.styles)


def test_labels_and_words_lead_to_their_one_definition(whole: Made, report: Page) -> None:
    assert len(report.names) == len(set(report.names))
    assert {to[1:] for to in report.addresses if to.startswith("#")} <= set(report.names)
    for name, text in DEFINITIONS.items():
        assert f"meaning-{name}" in report.names
        assert report.text.count(text.replace("`", "")) == 1
    _, verdicts = judged_study(whole)
    for group in (verdicts["claims"], verdicts["hypotheses"]):
        for entry in group.values():
            shown = (entry["verdict"]["label"], entry["stated"]["word"])
            for name in (*shown, *entry["verdict"].get("tags", [])):
                assert f"#meaning-{name}" in report.addresses


def test_a_click_on_a_summary_only_unfolds(whole: Made) -> None:
    summaries = re.findall("<summary>.*?</summary>", report_of(whole).read_text(), re.DOTALL)
    assert len(summaries) == 3 + 3 + 5
    assert not any("<a" in summary for summary in summaries)


def test_a_name_cannot_turn_what_stands_after_it() -> None:
    assert _breakable("a\u202e<b>/c") == "<bdi>a\u202e&lt;b&gt;/<wbr>c</bdi>"


def test_what_a_link_leads_to_is_inside_what_it_unfolds(whole: Made) -> None:
    source = report_of(whole).read_text(encoding="utf-8")
    assert not re.search("<details[^>]* id=", source)


def test_what_scrolls_can_be_reached_by_keyboard(whole: Made) -> None:
    source = report_of(whole).read_text(encoding="utf-8")
    scrolling = re.findall('<div class="scroll[^>]*>|<figure[^>]*>', source)
    assert scrolling
    assert all('tabindex="0"' in one for one in scrolling)
    regions = [one for one in scrolling if one.startswith("<div")]
    named = re.findall('role="region" aria-label="([^"]+)"', "".join(regions))
    assert len(set(named)) == len(regions)


def test_only_whole_labels_and_words_become_links() -> None:
    linked = _linked("1 equivalent, negligible-but-nonzero: <unsupported> failed")
    named = re.findall('href="#meaning-([^"]+)"', linked)
    assert named == ["equivalent", "negligible-but-nonzero", "failed"]
    assert "&lt;unsupported&gt;" in linked


def unpacked(script: str) -> str:
    return zlib.decompress(base64.b64decode(script)).decode()


def test_report_holds_plotly_and_every_figure_packed_once(report: Page) -> None:
    plotly, figures, numbers, page = report.scripts
    assert unpacked(plotly) == get_plotlyjs()
    assert tuple(json.loads(unpacked(figures))) == DRAWN
    assert set(DRAWN) <= set(json.loads(unpacked(numbers)))
    assert set(DRAWN) <= set(report.names)
    assert page.count("Plotly.newPlot") == 1


def test_a_report_is_less_than_half_of_plotly(whole: Made, report: Page) -> None:
    assert (whole.folder / "report.html").stat().st_size < len(get_plotlyjs()) / 2


def test_the_first_screen_asks_and_answers(report: Page) -> None:
    asked = (
        "What was asked 3 hypotheses, each with the smallest effect that counts. "
        "Planned: 3 arms at 6 seeds, on digits."
    )
    assert report.text.index(asked) < 100
    first = report.text[: report.text.index("Hypotheses")]
    for name in ("cls_needs_no_position", "loss_on_cls_makes_it_useful"):
        assert first.count(name) == 2, "of the row, and of its picture"
    assert "When they were stated: 3 confirmatory." in first
    assert "loss_on_patches − baseline, knn/cls_top1: falls by 0.05" in first
    assert "globality/cls/gyration, minus step 0: " in first


def test_a_row_of_the_forest_has_a_ring_for_each_seed_and_its_control(whole: Made) -> None:
    source = report_of(whole).read_text(encoding="utf-8")
    rows = re.findall(r'<svg class="row".*?</svg>', source, re.DOTALL)
    _, verdicts = judged_study(whole)
    by_name = dict(zip(verdicts["hypotheses"], rows, strict=False))
    for name, entry in verdicts["hypotheses"].items():
        control = entry["hypothesis"]["control"]
        assert by_name[name].count("<circle") == 6 * (2 if control else 1)
        assert ("its control: mean -" in by_name[name]) == bool(control)
        for pair in entry["verdict"]["pairs"]:
            assert f"seed {pair['seed']}: {pair['difference']:.4g}<" in by_name[name]


def test_a_panel_has_what_its_control_shows_at_each_seed(report: Page) -> None:
    panels = report.text[report.text.index("Both sides at each seed") :]
    [found] = re.findall("Difference Of the control((?: [^ ]+)+?) loss_on", panels)
    rows = [found.split()[at : at + 5] for at in range(0, 30, 5)]
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    assert all(float(row[4]) < -0.05 for row in rows)


def test_a_picture_is_named_and_says_each_interval_with_its_level(whole: Made) -> None:
    source = report_of(whole).read_text(encoding="utf-8")
    for name in judged_study(whole)[1]["hypotheses"]:
        [label] = set(re.findall(f'aria-label="({name}, [^"]*)"', source))
        assert re.search(" 95 % interval .* to .*, 90 % interval .* to ", label)


def test_every_picture_of_a_hypothesis_stands_over_an_axis(whole: Made) -> None:
    source = report_of(whole).read_text(encoding="utf-8")
    assert source.count(">smallest effects</") == source.count('class="row"') - 2 * 3 == 1 + 3


@pytest.mark.slow
def test_each_claim_stands_above_its_hypotheses(make_study: MakeStudy) -> None:
    made = make_study()
    claim = {
        "text": "It is <useful>.",
        "hypotheses": ["loss_on_cls_makes_it_useful", "loss_on_cls_makes_it_local"],
        "rule": "any",
    }
    restated(made.registration, lambda said: said["resolved"].update(claims={"useful": claim}))
    found = page(made)
    assert "Does one claim hold? It rests on 3 hypotheses, each with the" in found.text
    text = found.text[: found.text.index("Could these")]
    assert text.index("It is <useful>.") < text.index("loss_on_cls_makes_it_useful")
    assert text.index("loss_on_cls_makes_it_local") < text.index("cls_needs_no_position")
    assert "any of its hypotheses is enough" in text


@pytest.mark.slow
def test_report_names_what_did_not_finish(make_study: MakeStudy) -> None:
    report = page(
        make_study(
            {
                ("baseline", 3): "missing",
                ("cls_position_none", 4): "failed",
                ("loss_on_patches", 1): "collapsed",
                ("loss_on_patches", 2): "diverged",
            }
        )
    )
    assert "14 of 18 runs finished; 1 missing, 1 failed, 1 collapsed, 1 diverged." in report.text
    for row in (
        "baseline 3 missing not started",
        "cls_position_none 4 failed worker lost: <out of memory>",
        "loss_on_patches 1 collapsed target entropy 0.01 is below 0.05",
        "loss_on_patches 2 diverged loss is not a number",
    ):
        assert row in report.text
    assert "missed: no value at seed 3" in report.text


@pytest.mark.slow
def test_report_names_what_is_in_no_mean(make_study: MakeStudy) -> None:
    made = make_study()
    assert "in no mean" not in report_of(made).read_text()
    for seed, share in ((1, 0.125), (3, 0.0625), (4, 0.0)):
        lines = made.records("loss_on_patches", seed).read_text().splitlines()
        last = json.loads(lines[-1])
        last["metrics"] |= {"globality/patch/undefined": share}
        text = "\n".join([*lines[:-1], json.dumps(last)]) + "\n"
        made.record_anew("loss_on_patches", seed, text)
    text = report_of(made).read_text()
    table = text[text.index("in no mean") :]
    table = table[: table.index("</table>")]
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", re.sub("</?(?:wbr|bdi)>", "", table))
    assert cells[-4:] == ["loss_on_patches", "1, 3", "globality/patch", "12.50%"]


@pytest.mark.slow
def test_an_arm_that_collapsed_everywhere_is_reported(make_study: MakeStudy) -> None:
    report = page(make_study({("loss_on_patches", seed): "collapsed" for seed in range(6)}))
    assert "12 of 18 runs finished; 6 collapsed." in report.text
    assert "loss_on_patches 0, 1, 2, 3, 4, 5 collapsed" in report.text
    assert "loss_on_patches 6 collapsed" in report.text


@pytest.mark.slow
def test_report_without_any_finished_run(make_study: MakeStudy) -> None:
    report = page(make_study(otherwise="missing"))
    assert "0 of 18 runs finished; 18 missing." in report.text
    assert "3 hypotheses: 3 failed." in report.text
    assert report.text.count(" no finished pair ") == 2 * 3, "in each picture"
    after = SECTIONS.index("Gates") + 1
    assert report.headings == [*SECTIONS[:after], "What is not there", *SECTIONS[after:]]


@pytest.mark.slow
def test_report_with_half_written_runs(make_study: MakeStudy) -> None:
    report = page(make_study(otherwise="running"))
    assert "not finished, last record at step 240" in report.text


def test_report_without_hypotheses(make_study: MakeStudy) -> None:
    assert "No hypotheses were declared." in page(make_study(hypotheses={})).text


@pytest.mark.slow
def test_text_from_a_study_cannot_become_markup(make_study: MakeStudy) -> None:
    attack = "</script><script>alert(1)</script>"
    hypothesis = {
        "claim": attack,
        "rationale": attack,
        "metric": "knn/cls_top1",
        "contrast": ["loss_on_patches", "baseline"],
        "direction": "falls",
        "smallest_effect": 0.05,
    }
    made = make_study(hypotheses={f"h{attack}": hypothesis})
    report = page(made)
    assert not any(script.strip() == "alert(1)" for script in report.scripts)
    assert report.text.count(attack) == 8
    assert len(report.scripts) == 4
    assert "broken & <odd>.png" in report.text


def test_report_shows_what_differs_between_arms(report: Page) -> None:
    text = report.text
    assert 'model.cls_position: "learned" → "none"' in text
    assert "90,952 (-0.05%)" in text
    assert "loss.cls: 1.0 → 0.0" in text


def test_report_shows_the_confounds_that_an_ablation_declares(report: Page) -> None:
    arms = report.text[report.text.index("What else differs") :]
    for confound in CONFOUNDS["loss_on_patches"]:
        assert arms.count(confound) == 1


@pytest.mark.slow
def test_a_study_in_epochs_has_a_report(make_study: MakeStudy) -> None:
    made = make_study()
    restated(made.registration, lambda stated: stated["config"].update(steps="10 epochs"))
    assert "parameters and 10 epochs. Nothing" in page(made).text


def test_report_has_verdicts_and_provenance(report: Page) -> None:
    text = report.text
    rows = text[text.index("cls_needs_no_position") : text.index("loss_on_cls_makes_it_useful")]
    assert rows.endswith(" supported confirmatory ")
    assert "is inside ±0.02; its control differs by -0.1" in text
    assert "the largest effect of loss_on_patches is 0.12" in text
    for part in ("ab" * 32, "cd" * 32, "0123456789abcdef", "torch 2.11.0", "2025-11-23"):
        assert part in text


def test_report_says_every_reason_once_and_shows_the_interval_that_decides(
    whole: Made, report: Page
) -> None:
    entries = judged(read_study(*whole))["hypotheses"]
    for entry in entries.values():
        assert report.text.count(entry["verdict"]["reason"]) == 1
    ways = {entry["stated"]["why"] for entry in entries.values()}
    assert [report.text.lower().count(why.lower()) for why in ways] == [1] * len(ways)
    panels = report.text[report.text.index("Hypotheses") :]
    for name, level in (("cls_needs_no_position", 90), ("loss_on_cls_makes_it_useful", 95)):
        found = panels[panels.index(name) :]
        assert re.search(r"\] at (\d+) %", found)[1] == str(level)  # type: ignore[index]


@pytest.mark.parametrize(
    ("direction", "label", "shown"),
    [
        ("holds", "supported", ([2, 3], 0.9)),
        ("holds", "refuted", ([1, 4], 0.95)),
        ("rises", "refuted", ([1, 4], 0.95)),
    ],
)
def test_a_refuted_holds_rests_on_the_wider_interval(direction, label, shown):
    verdict = {"label": label, "interval": [1, 4], "interval_equivalence": [2, 3]}
    hypothesis = {"direction": direction, "alpha": 0.05}
    assert interval_shown({"hypothesis": hypothesis, "verdict": verdict}) == shown


@pytest.mark.slow
def test_report_flags_verdicts_of_other_runs(make_study: MakeStudy) -> None:
    made = make_study()
    path = made.root / write_verdicts(*judged_study(made))
    assert "was written from other runs" not in page(made).text
    written = json.loads(path.read_text())
    written["hypotheses"]["cls_needs_no_position"]["verdict"]["label"] = "refuted"
    path.write_text(json.dumps(written))
    assert "was written from other runs" in page(made).text


@pytest.mark.slow
def test_report_is_the_same_each_time(make_study: MakeStudy) -> None:
    made = make_study()
    assert report_of(made).read_bytes() == report_of(made).read_bytes()
    assert not list(made.folder.glob(".*"))


@pytest.mark.slow
def test_pages_of_figures_share_plotly_and_need_nothing_else(make_study: MakeStudy) -> None:
    made = make_study()
    study, verdicts = judged_study(made)
    shared, *paths = (
        made.root / key for key in write_figures(study, every_figure(study, verdicts))
    )
    assert shared == made.folder / "figures" / "plotly.min.js"
    assert shared.stat().st_size > 1_000_000
    assert [path.stem for path in paths] == list(FIGURES)
    for path in paths:
        assert path.parent == shared.parent
        figure = Page(path.read_text(encoding="utf-8"))
        assert figure.addresses == ["plotly.min.js"]
        assert path.stat().st_size < 100_000


@pytest.mark.slow
def test_pairs_on_different_machines_are_said_in_verdicts_and_report(make_study):
    machine = {
        "device": "cpu", "device_name": "x86_64", "torch": "2.11.0", "cuda": None, "cudnn": None,
    }  # fmt: skip
    gpu = {**machine, "device": "cuda", "device_name": "H100", "cuda": "12.8", "cudnn": 91002}
    made = make_study()
    plain = judged(read_study(*made))["hypotheses"]
    for arm in ("baseline", "cls_position_none", "loss_on_patches"):
        for seed in range(6):
            path = made.root / made.trial(arm, seed).result_key
            ran = {**machine, "earlier_machines": []}
            if (arm, seed) == ("loss_on_patches", 2):
                ran = {**gpu, "earlier_machines": [machine]}
            path.write_text(json.dumps({**json.loads(path.read_text()), **ran}))
    said = (
        "pairs differ in device, versions or workers, seed 2: loss_on_patches on cuda (H100, "
        "PyTorch 2.11.0, CUDA 12.8, cuDNN 91002) after cpu (x86_64, PyTorch 2.11.0), baseline on "
        "cpu (x86_64, PyTorch 2.11.0)"
    )
    for name, entry in judged(read_study(*made))["hypotheses"].items():
        before = plain[name]["verdict"]
        if name.startswith("loss_on_cls"):
            before = {**before, "reason": f"{before['reason']}; {said}"}
        assert entry["verdict"] == before
    assert said in report_of(made).read_text()
