"""Views of a study in MLflow's UI: what they show, and the links that open them.

A view is a tag of the experiment, as the UI itself writes one when a person shares what is on the
screen: so a link opens charts of the end points, where MLflow alone opens on an empty page.
"""

import base64
import contextlib
import json
import types
import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES

from ablations.contrast import BASELINE
from dashboards.tables.chain import read_chain
from dashboards.tables.reading import StudyRun
from orchestrator.tracking.contents import (
    ARM_PARAMETER,
    allowed_name,
    arm_parameters,
    end_point_names,
    end_points,
)
from orchestrator.tracking.experiment import IDENTITY, ROOT, root_identity
from orchestrator.tracking.pictures import NAME
from orchestrator.tracking.runs import ARM, KEY, STUDY
from trainers.errors import InputError
from trainers.system.store import Store

VIEW = "mlflow.sharedViewState."
"""What the tag of a view begins with, in MLflow's words."""

LONGEST_VIEW = 5000
"""Characters that every MLflow server takes as the value of a tag of an experiment."""

SEEDS, ARMS, PICTURES, HYPOTHESIS = "seeds", "arms", "pictures", "hypothesis."
"""Names of the views; that of a hypothesis goes on with its own name."""

ARMS_COMPARED = "arms compared"
"""What the page of the view ARMS shows."""

PICTURES_SHOWN = "what [CLS] attends to"
"""What the view PICTURES shows."""

PICTURES_HEIGHT = 900
"""pixels of its card: two rows of pictures on a usual screen"""

MOST_HYPOTHESES = 10
"""Hypotheses that have a view, the first ones: each is a request, and a study's end awaits it."""

MOST_COMPARED = 100
"""Runs on one page of comparison: with more of them it is slow."""

_HAS_PICTURES = f"tags.`{MLFLOW_LOGGED_IMAGES}` = 'True'"

_OF_MLFLOW: Mapping[str, int] = types.MappingProxyType({})

Chart = dict[str, Any]


class Link(NamedTuple):
    """What a page of MLflow's UI shows, in words, and its address."""

    shows: str
    address: str


def views(study: StudyRun, runs: Mapping[str, str]) -> dict[str, str]:
    """The tags of the views of a study, by name; `runs` has the identifier of each arm's run.

    That of the study's own run has the name "".
    """
    points = list(end_points(study.hypotheses.values()))
    metrics = list(dict.fromkeys(one.end_point for one in study.hypotheses.values() if one.metric))
    parameters = {knob for arm in study.arms for knob in arm_parameters(study, arm)}
    part = "difference" if BASELINE in study.arms and len(study.arms) > 1 else "mean"
    order = f"metrics.`{points[0]}/{part}`" if points else f"params.`{ARM_PARAMETER}`"
    found = {
        SEEDS: _state(
            f"tags.`{KEY}` != ''",
            # By anything but the time of their making, runs come without those above them.
            f"metrics.`{metrics[0]}`" if metrics else "params.`seed`",
            {"curves": [_line(metric) for metric in metrics if "@" not in metric]},
            groupBy={
                "aggregateFunction": "average",
                "groupByKeys": [{"mode": "tag", "groupByData": ARM}],
            },
        ),
        ARMS: _state(
            f"tags.`{KEY}` = '' and tags.`{ARM}` != ''",
            order,
            {
                "differences from the baseline": [
                    _bar(f"{name}/difference", name) for name in points
                ],
                "means over seeds": [_bar(f"{name}/mean", name) for name in points],
            },
            selectedColumns=[
                *(f"params.`{knob}`" for knob in sorted(parameters - {ARM_PARAMETER})),
                *(f"metrics.`{name}/{one}`" for name in points for one in ("difference", "mean")),
            ],
        ),
        PICTURES: _state(
            f"tags.`{KEY}` != '' and {_HAS_PICTURES}",
            # MLflow shows pictures of the first ten runs: of as many arms as can be, at one seed.
            "params.`seed`",
            {PICTURES_SHOWN: [_images(study.entry.config.get("steps", 0))]},
            {"columns": 1, "cardHeight": PICTURES_HEIGHT},
            orderByAsc=True,
        ),
    }
    for name, one in islice(study.hypotheses.items(), MOST_HYPOTHESES):
        shown = ", ".join(f"'{runs[arm]}'" for arm in ("", *one.arms) if arm in runs)
        of_it = end_point_names(one)
        parts = [(point, part) for point in of_it for part in ("difference", "mean")]
        found[HYPOTHESIS + allowed_name(name)] = _state(
            f"attributes.run_id IN ({shown})",
            f"metrics.`{of_it[0]}/{part}`",
            {
                "arms": [_bar(f"{point}/{part}", f"{part}, {point}") for point, part in parts],
                f"verdict on {name}": [
                    _bar(f"verdict/{allowed_name(name)}/{one}", one)
                    for one in ("effect", "low", "high", "p")
                ],
            },
        )
    return {VIEW + name: text for name, text in found.items() if len(text) <= LONGEST_VIEW}


def write_views(client: MlflowClient, experiment: str, wanted: Mapping[str, str]) -> None:
    """Set those tags of an experiment that are not set so already."""
    there = client.get_experiment(experiment).tags
    for name, text in wanted.items():
        if there.get(name) != text:
            client.set_experiment_tag(experiment, name, text)


def links(client: MlflowClient, address: str, store: Store, study: str) -> dict[str, list[Link]]:
    """Of each study of a run root that MLflow has, by name, pages of the UI at `address`.

    Where `study` is not empty, of that one. Hypotheses have pages where there is one study.
    """
    if store.get(IDENTITY) is None:
        return {}
    root = root_identity(store)
    known: dict[str, tuple[_Pages, dict[str, str]]] = {}
    for one in client.search_experiments(filter_string=f"tags.`{ROOT}` = '{root}'"):
        found = client.search_runs([one.experiment_id], f"tags.`{KEY}` = ''")
        runs = {run.data.tags.get(ARM, ""): run for run in found}
        if "" in runs:
            ids = {arm: runs[arm].info.run_id for arm in sorted(runs)}
            pictured = client.search_runs([one.experiment_id], _HAS_PICTURES, max_results=1)
            pages = _Pages(address.rstrip("/"), one.experiment_id, one.tags, bool(pictured))
            known[str(runs[""].data.tags.get(STUDY))] = pages, ids
    known = {name: known[name] for name in sorted(known) if study in ("", name)}
    return {
        name: pages.all(ids, _hypotheses(store, name) if len(known) == 1 else ())
        for name, (pages, ids) in known.items()
    }


def _hypotheses(store: Store, study: str) -> list[str]:
    """The names of those stated last; none where a registration is damaged, which others say."""
    with contextlib.suppress(InputError):
        return list(read_chain(store, study)[-1].resolved.hypotheses)
    return []


class _Pages(NamedTuple):
    """Addresses of the pages of one experiment."""

    address: str
    experiment: str
    tags: Mapping[str, str]
    has_pictures: bool

    def all(self, runs: Mapping[str, str], hypotheses: Iterable[str]) -> list[Link]:
        """The pages of a study whose arms have these runs."""
        found = [
            Link("claims, verdicts, report", self.run(runs[""])),
            *self.view(SEEDS, "runs by arm, curves"),
            *self.view(ARMS, ARMS_COMPARED),
        ]
        if len(arms := [run_id for arm, run_id in runs.items() if arm]) > 1:
            found.append(Link("what arms change", self.compared(arms)))
        if self.has_pictures:
            found += self.view(PICTURES, PICTURES_SHOWN)
        for name in hypotheses:
            found += self.view(HYPOTHESIS + allowed_name(name), f"hypothesis {name}")
        return found

    def run(self, run_id: str) -> str:
        return self._at(f"experiments/{self.experiment}/runs/{run_id}")

    def view(self, name: str, shows: str) -> list[Link]:
        """The page of a view; none where a mirror of before did not make it."""
        if VIEW + name not in self.tags:
            return []
        where = self._at(
            f"experiments/{self.experiment}/runs", viewStateShareKey=name, compareRunsMode="CHART"
        )
        return [Link(shows, where)]

    def compared(self, runs: Sequence[str]) -> str:
        these = json.dumps(runs[:MOST_COMPARED], separators=(",", ":"))
        return self._at("compare-runs", runs=these, experiments=json.dumps([self.experiment]))

    def _at(self, place: str, **query: str) -> str:
        # Without it MLflow opens on what it has of language models, which is nothing. Last: of the
        # page of comparison the runs must come first.
        query |= {"workflowType": "machine_learning"}
        return f"{self.address}/#/{place}?{urlencode(query, quote_via=quote)}"


def _state(
    condition: str,
    order: str,
    sections: Mapping[str, Sequence[Chart]],
    layout: Mapping[str, int] = _OF_MLFLOW,
    **more: object,
) -> str:
    """What the UI shows, packed as it packs that itself; `layout` is that of each section."""
    places = {name: str(number) for number, name in enumerate(sections)}
    state = {
        "searchFilter": condition,
        "orderByKey": order,
        "orderByAsc": False,
        "compareRunSections": [
            {"uuid": place, "name": name, "display": True, "isReordered": True,
             "deleted": False, "isGenerated": False, **layout}
            for name, place in places.items()
        ],
        "compareRunCharts": [
            {"uuid": f"{places[name]}.{number}", "metricSectionId": places[name], **chart}
            for name, charts in sections.items()
            for number, chart in enumerate(charts)
        ],
        "isAccordionReordered": True,
        "runsHiddenMode": "SHOW_ALL",
        **more,
    }  # fmt: skip
    packed = zlib.compress(json.dumps(state, separators=(",", ":")).encode(), 9)
    return f"deflate;{base64.b64encode(packed).decode()}"


def _bar(metric: str, title: str = "") -> Chart:
    return {
        "type": "BAR", "metricKey": metric, "displayName": title or metric, "deleted": False,
        "isGenerated": False, "runsCountToCompare": MOST_COMPARED,
    }  # fmt: skip


def _line(metric: str) -> Chart:
    return {
        **_bar(metric), "type": "LINE", "selectedMetricKeys": [metric], "lineSmoothness": 0,
        "xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "linear", "range": {},
        "selectedXAxisMetricKey": "", "yAxisKey": "metric", "yAxisExpressions": [],
        "ignoreOutliers": False, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True,
    }  # fmt: skip


def _images(step: int) -> Chart:
    """Pictures of what [CLS] attends to; it opens on those of that step."""
    return {
        "type": "IMAGE", "imageKeys": [NAME], "step": step, "showRunParams": False,
        "deleted": False, "isGenerated": False,
    }  # fmt: skip
