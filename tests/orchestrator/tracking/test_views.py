"""Views in MLflow's UI: what they show is there, and the links to them open on it."""

import base64
import hashlib
import json
import shutil
import subprocess
import zlib

import pytest

from ablations.registration import written
from dashboards.tables.derived import judged
from orchestrator.tracking.contents import allowed_name
from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.views import (
    HYPOTHESIS,
    LONGEST_VIEW,
    MOST_HYPOTHESES,
    VIEW,
    Link,
    links,
    views,
)
from tests.orchestrator.conftest import dinolab
from tests.orchestrator.tracking.conftest import Trial, ended, server, study_of

pytestmark = pytest.mark.filterwarnings("ignore")

ARMS = {"a": 0.3, "b": 0.1, "baseline": 0.0}
RISES = {"metric": "knn/cls_top1", "direction": "rises", "smallest_effect": 0.1}
HYPOTHESES = {
    "a <b>rises</b>": {**RISES, "contrast": ["a", "baseline"]},
    "b rises": {**RISES, "contrast": ["b", "baseline"]},
}


def mirrored(store):
    """A study of three arms in MLflow, registered, with two trials of each."""
    runs = {
        (arm, seed): ended(0.5 + more + seed / 100) for arm, more in ARMS.items() for seed in (0, 1)
    }
    study = study_of(runs, store, HYPOTHESES, changes={"a": {"model.depth": 2}})
    entry = written(study.entry.model_dump(mode="json", exclude={"sha256"}))
    store.put("studies/mini/registrations/0001.json", entry)
    mirror = Mirror("mini", store, print)
    for place in study.entry.trials:
        value = runs[place.arm, place.seed].end["knn/cls_top1"]
        records = {0: {"knn/cls_top1": 0.1}, 5: {"knn/cls_top1": value}}
        Trial(store, place.key, place.seed).finish(1, records)
        mirror.sync(place.key, [place.arm], place.seed)
    mirror.finish(study, judged(study))
    return study


def states(client):
    """What each view of the study shows, by its name."""
    tags = client.get_experiment_by_name("mini").tags
    return {
        name.removeprefix(VIEW): json.loads(zlib.decompress(base64.b64decode(text[8:])))
        for name, text in tags.items()
        if name.startswith(VIEW)
    }


def found_by(client, state):
    """The runs that MLflow finds by a view, in its order."""
    order = [f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"]
    experiment = client.get_experiment_by_name("mini").experiment_id
    return client.search_runs([experiment], state["searchFilter"], order_by=order)


def test_each_view_finds_its_runs_and_every_number_that_it_charts(store, client):
    mirrored(store)
    shown = states(client)
    one = HYPOTHESIS + allowed_name("a <b>rises</b>")
    titles = {
        name: [run.info.run_name for run in found_by(client, state)]
        for name, state in shown.items()
    }
    assert titles["arms"] == ["a", "b", "baseline"]
    assert titles["seeds"] == [f"{arm} · seed {seed}" for arm in ARMS for seed in (1, 0)]
    assert titles[one][0] == "a"
    assert set(titles[one]) == {"a", "baseline", "mini"}
    for state in shown.values():
        held = {name for run in found_by(client, state) for name in run.data.metrics}
        places = {section["uuid"] for section in state["compareRunSections"]}
        for chart in state["compareRunCharts"]:
            assert chart["type"] == "IMAGE" or chart["metricKey"] in held
            assert chart["metricSectionId"] in places


def test_views_are_written_once(store, client, monkeypatch):
    study = mirrored(store)
    before = client.get_experiment_by_name("mini").tags
    mirror = Mirror("mini", store, print)
    monkeypatch.setattr(mirror.client, "set_experiment_tag", None)
    mirror.finish(study, judged(study))
    assert client.get_experiment_by_name("mini").tags == before


def test_a_view_that_no_server_would_take_and_those_of_the_last_hypotheses_are_left_out(store):
    metrics = [hashlib.sha256(bytes([i])).hexdigest() for i in range(200)]
    many = {f"of {one}": {**RISES, "metric": one, "contrast": ["a", "baseline"]} for one in metrics}
    study = study_of({(arm, 0): ended(0.5) for arm in ARMS}, store, many)
    made = views(study, {})
    assert VIEW + "arms" not in made
    assert made.keys() - {VIEW + "pictures"} == {
        VIEW + HYPOTHESIS + f"of {one}" for one in metrics[:MOST_HYPOTHESES]
    }
    assert all(len(text) <= LONGEST_VIEW for text in made.values())


def test_links_are_of_the_studies_of_this_root(store, client, new_root):
    mirrored(store)
    found = links(client, "http://here:1/", store, "")
    assert [link.shows for link in found["mini"]] == [
        "claims, verdicts, report", "runs by arm, curves", "arms compared", "what arms change",
        "hypothesis a <b>rises</b>", "hypothesis b rises",
    ]  # fmt: skip
    for link in found["mini"]:
        assert link.address.startswith("http://here:1/#/")
        assert link.address.endswith("workflowType=machine_learning")
        assert not set(link.address) & set(' <>"\n')
    assert links(client, "", store, "another") == {}
    run = found_by(client, states(client)["seeds"])[0]
    client.set_tag(run.info.run_id, "mlflow.loggedImages", "True")
    (of_pictures,) = {*links(client, "", store, "")["mini"]} - {
        Link(shows, address.removeprefix("http://here:1")) for shows, address in found["mini"]
    }
    assert of_pictures.shows == "what [CLS] attends to"
    assert [one.info.run_id for one in found_by(client, states(client)["pictures"])] == [
        run.info.run_id
    ]
    assert links(client, "", new_root("other"), "") == {}
    store.put("studies/mini/registrations/0001.json", b"damaged")
    assert len(links(client, "", store, "mini")["mini"]) == 5


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs the browser chromium")
def test_the_printed_links_open_on_charts_and_parameters_in_a_browser(store, tmp_path, monkeypatch):
    with server(tmp_path) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mirrored(store)
        code, output = dinolab("ui", "mini", "--root", store.root, MLFLOW_TRACKING_URI=uri)
        assert code == 0, output
        printed = dict(
            line.strip().split(": http") for line in output.splitlines() if "/#/" in line
        )
        expected = {
            "claims, verdicts, report": ["verdict/b rises/effect", "registration 1"],
            "runs by arm, curves": ["Group: ", "a · seed 1", "js-plotly-plot"],
            "arms compared": ["differences from the baseline", "js-plotly-plot"],
            "what arms change": ["model.depth", "Comparing 3 Runs"],
            "hypothesis a <b>rises</b>": [
                "verdict on a &lt;b&gt;rises&lt;/b&gt;",
                "js-plotly-plot",
            ],
        }
        for shows, words in expected.items():
            page = opened(f"http{printed[shows]}", tmp_path / "profile")
            for word in words:
                assert word in page, (shows, word)
            assert "Error while" not in page


def opened(address, profile):
    """The page as a browser shows it."""
    return subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={profile}", "--window-size=1500,1000", "--virtual-time-budget=90000",
         address],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
