"""The main numbers of one measured ViT, what each means, and what to keep in mind."""

from collections.abc import Mapping
from dataclasses import dataclass

from dashboards.figures.blocks import STYLES, Series
from trainers.globality import flows, replaced, sinks
from trainers.globality.descriptions import TOKENS
from trainers.globality.measurable import Measurable
from trainers.globality.measurement import ENOUGH, Plan, bias_of_positional_bias

KINDS = {
    "globality": "attention",
    "norm_weighted": "attention × norm of what is written",
    "shuffled": "attention, patches of the image shuffled (control)",
    "mirrored": "attention, with mirror images (control)",
    "rollout": "rollout",
    "influence": "influence of patches on the output",
    "reach": "gradient reach",
}
"""Groups of metrics that the table shows."""

MEASURES = {
    "gyration": "spread of the map; 0 one patch, 1 as wide as uniform attention",
    "entropy": "evenness of the map; 0 one patch, 1 uniform",
    "coverage": "share of patches that hold 60 % of the map, 1 uniform",
    "distance": "distance from the query, 1 uniform; [CLS] stands nowhere",
    "distance_patches": "the same, not over uniform's; patches",
    "nearest_distance": "distance from the place where it is least; at most 1 uniform",
    "locality": "nearer to the query than maps that queries share; 0 not, 1 on itself",
    "positional_bias": "what is alike in all images; 0 nothing, 1 always the same patch",
    "content_dependence": "what differs between images; 0 nothing",
    "self_mass": "attention to the token itself; 0 uniform, 1 all",
}
"""Measures that the table shows, each with what it says."""

TOKEN_MEASURES = {
    "globality/sink/concentration": (
        "concentration",
        "ln of what the most attended token gets over the median",
    ),
    "globality/sink/value_norm": ("value norm", "norm of that token's value over the median"),
    "sinks/head/share": (
        "heads with a sink",
        f"a token that gets {sinks.SINK:.0%} of all attention, share of heads and images",
    ),
    "sinks/head/on_cls": ("– on [CLS]", "share of heads and images"),
    "sinks/head/on_register": ("– on a register", "share of heads and images"),
    "sinks/head/on_patch": ("– on a patch", "share of heads and images"),
    "sinks/head/no_op": (
        "– no-op",
        f"writes at most {sinks.NO_OP} of the median norm (Fesser et al. 2026)",
    ),
    "sinks/head/broadcast": (
        "– broadcast",
        f"writes {sinks.WRITES} or more, and the head's output has a stable rank of "
        f"{sinks.LOW_RANK} or less",
    ),
    "sinks/head/projected_norm": (
        "projected norm",
        "what a head writes for its most attended token over the median",
    ),
    "sinks/head/stable_rank": ("stable rank", "of what a head writes; 1: the same for all tokens"),
    "globality/sink/outlier_share": (
        "outlier share",
        "patch tokens whose norm is an outlier, share",
    ),
    "geometry/patch/effective_rank": (
        "effective rank",
        "of the patch tokens of an image; 1 all alike, at most patches or width",
    ),
    "geometry/cls/patch_cosine": (
        "cosine before norm",
        "of [CLS] and the mean patch, before the layer norm",
    ),
    "globality/cls/patch_cosine": ("cosine behind norm", "the same behind the layer norm"),
    "alignment/cls_patch": (
        "CKA",
        "linear CKA of [CLS] and the mean patch over images, last block",
    ),
}
"""Measures of a block as a whole, each with its title and what it says."""


def of_blocks(
    metrics: Mapping[str, float],
) -> list[tuple[str, float | None, float | None, str]]:
    """Of TOKEN_MEASURES that there are title, primary layers, final block, and what it says."""
    return [
        (title, metrics.get(name), metrics.get(f"{name}/final_block"), text)
        for name, (title, text) in TOKEN_MEASURES.items()
        if name in metrics or f"{name}/final_block" in metrics
    ]


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Shares of the attention of one kind of token that go to each kind that there is."""

    title: str
    primary: dict[str, float]
    final: dict[str, float]


def flow_table(metrics: Mapping[str, float]) -> list[Flow]:
    """Where attention goes, by kind of token that attends, over primary layers and at the end."""
    rows = []
    for one, title in flows.TITLES.items():
        primary, final = (
            {
                to: metrics[name]
                for other, to in flows.TITLES.items()
                if (name := f"{flows.GROUP}/{one}/to_{other}{suffix}") in metrics
            }
            for suffix in ("", "/final_block")
        )
        if primary:
            rows.append(Flow(title=title, primary=primary, final=final))
    return rows


REPLACED = (
    "What outputs keep of their image when tokens are replaced after every block but the last: 1 "
    "all, 0 as much as outputs of other images. Found: nearest to their own, share of images"
)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is left of outputs with some tokens replaced: by token of the output, [CLS] first."""

    title: str
    kept: dict[str, float | None]
    found: dict[str, float | None]


def replaced_table(metrics: Mapping[str, float]) -> list[Kept]:
    """What is left of outputs when tokens are replaced, by token and by what stands in for it."""
    rows = []
    for kind, title in replaced.KINDS.items():
        for stand_in, words in replaced.STAND_INS.items():
            kept, found = (
                {
                    output: metrics.get(f"{replaced.GROUP}/{kind}/{token}_{what}_{stand_in}")
                    for token, output in replaced.OUTPUTS.items()
                }
                for what in ("kept", "found")
            )
            if any(value is not None for value in kept.values()):
                rows.append(Kept(title=f"{title} by {words}", kept=kept, found=found))
    return rows


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: a measure of one kind of map by token, None where there is none."""

    kind: str
    measure: str
    primary: dict[str, float | None]
    final: dict[str, float | None]


def columns(model: Measurable) -> dict[str, str]:
    """Tokens of the table and their titles; `difference` is [CLS] minus patches."""
    found = {"cls": "[CLS]"} if model.has_cls else {}
    if model.registers:
        found["register"] = "register"
    found["patch"] = "patch"
    if model.has_cls:
        found["difference"] = "[CLS] − patch"
    return found


def headline(metrics: Mapping[str, float]) -> list[Row]:
    """The main measures of every kind of map, over the primary layers and of the final block."""
    tokens = {
        "cls": "cls",
        "register": "register",
        "patch": "patch",
        "difference": "contrast",
    }
    rows = []
    for group, kind in KINDS.items():
        for measure in MEASURES:
            primary, final = (
                {
                    title: metrics.get(f"{group}/{token}/{measure}{suffix}")
                    for title, token in tokens.items()
                }
                for suffix in ("", "/final_block")
            )
            if any(value is not None for value in (*primary.values(), *final.values())):
                rows.append(Row(kind=kind, measure=measure, primary=primary, final=final))
    return rows


DRAWN = {
    "gyration": "spread",
    "entropy": "entropy",
    "locality": "locality",
    "content_dependence": "content dependence",
    "distance": "distance",
    "nearest_distance": "least distance",
}
"""Measures that figures show of each head, and their titles."""


def by_head(series: Series) -> list[tuple[str, int, int, list[float | None]]]:
    """Of each token, block and head, from 1: what figures show, in the order of DRAWN."""
    rows = []
    for token, style in STYLES.items():
        cells = {measure: series("globality", token, measure) for measure in DRAWN}
        for block, values in cells["gyration"].items():
            for head in range(len(values)):
                shown = [dict(enumerate(one.get(block, ()))).get(head) for one in cells.values()]
                rows.append((style.name, block, head + 1, shown))
    return rows


def honest_notes(model: Measurable, plan: Plan, metrics: Mapping[str, float]) -> list[str]:
    """What a reader of these numbers must know, a sentence or two each."""
    notes = []
    if model.is_random:
        notes.append(
            f"RANDOM WEIGHTS ({model.weights}): this network has not been trained. Attention of an "
            "untrained network is nearly uniform and therefore counts as global; the numbers are a "
            "baseline, not a finding."
        )
    else:
        notes.append(
            "Nearly uniform attention counts as global: gyration and entropy near 1 are also what "
            "an untrained network has. What is learned shows in content dependence and in the "
            "difference to the same network with random weights."
        )
    images, patches = len(plan.places), plan.grid[0] * plan.grid[1]
    if images < ENOUGH:
        bias = min(1.0, bias_of_positional_bias(patches, images))
        notes.append(
            f"Positional bias and content dependence are biased on few images: of {images}, "
            f"the first is too large and the second too small by up to about {bias:.3f} (maps on "
            f"single patches; smoother ones less). Take {ENOUGH:,} or more, and compare at "
            "equal numbers."
        )
    left_out = [
        f"{KINDS[group]}, {TOKENS[token]}: {metrics[name]:.1%}"
        for group in KINDS
        for token in TOKENS
        if metrics.get(name := f"{group}/{token}/undefined")
    ]
    if left_out:
        notes.append(
            "Values are left out where a query had no attention on patches or an output depended "
            f"on nothing: {'; '.join(left_out)}."
        )
    if plan.settings.causal_images < 2:
        notes.append("Influence and gradient reach were not measured (fewer than 2 images).")
    if plan.size != model.image_size:
        notes.append(
            f"Images are {plan.size} pixels a side, the model's own are {model.image_size}: "
            "learned positions are interpolated, rotary ones made for the new grid."
        )
    return [*notes, *model.notes]


def number(value: float | None) -> str:
    """A value of the table, or a dash where there is none."""
    if value is None:
        return "–"
    shown = f"{value:.3f}"
    return "0.000" if shown == "-0.000" else shown.replace("-", "−")
