"""What every globality metric is, by its name `group/token/measure`."""

from trainers.globality.by_image import CONTRASTS

GROUPS = {
    "globality": "attention of the teacher",
    "student": "attention of the student, on the probe images",
    "norm_weighted": "attention of the teacher times the norm of what is written (Kobayashi 2020)",
    "rollout": "attention rollout of the teacher",
    "reach": "gradient of the teacher's output by patch of the input, of up to 8 patches",
    "influence": "change of the teacher's output when a patch is replaced",
    "shuffled": "attention of the teacher on images whose patches are shuffled (control)",
    "mirrored": "attention of the teacher on images and their mirror images (control)",
}
BY_LAYER = ("globality", "student", "norm_weighted", "shuffled", "mirrored")
"""Groups that have layers and heads; the others are of the network as a whole."""

TOKENS = {
    "cls": "[CLS] queries",
    "patch": "patch queries",
    "register": "register queries",
    "fixed_patch": "the patch at loss.fixed_patch_place",
}

_OF_MAPS = {
    "gyration": "spread of the map over that of a uniform map; 0 one patch, 1 uniform",
    "entropy": "entropy of the map over that of a uniform map; 0 to 1",
    "coverage": "share of patches that hold 60 % of the map, over uniform's; 1/N to 1",
    "coverage_90": "the same for 90 % of the map",
    "nearest_distance": "least mean distance of the map from any patch, over uniform's",
}
_OF_PATCHES = {
    "distance": "mean distance of the map from the query, over uniform's",
    "distance_patches": "mean distance of the map from the query; patches",
}
_MASSES = {
    "self_mass": "attention to oneself against uniform; 0 uniform, 1 all",
    "patch_mass": "attention to the (other) patches, share of all; 0 to 1",
    "cls_mass": "attention to [CLS] against uniform; 0 uniform, 1 all",
    "register_mass": "attention to the registers against uniform; 0 uniform, 1 all",
}
_OF_MEAN_MAPS = {
    "positional_bias": "how selective the mean map over images is; 0 uniform, 1 one patch",
    "content_dependence": "how much maps differ between images; 0 all alike, 1 most",
}
_OF_SETS = {
    "locality": "how much nearer the maps are to their queries than shared maps would be; "
    "0 no dependence on place, 1 all on themselves",
    "mutual_information": "normalised mutual information of queries and keys (Park 2023); "
    "0 one map for all, 1 identity",
}
_OF_SINKS = {
    "concentration": "ln of attention received by the most attended token over the median",
    "value_norm": "norm of that token's value over the median; small: says nothing",
    "outlier_share": "share of patch tokens whose norm is an outlier after a block",
}

_WITHOUT_HEADS = ("patch_cosine", "outlier_share")


def _measures(group: str, token: str) -> dict[str, str]:
    """Measures of a token in a group."""
    is_patch = token in ("patch", "fixed_patch")
    if group == "mirrored":
        return _OF_MEAN_MAPS
    found = _OF_MAPS | (_OF_PATCHES if is_patch else {})
    if group in ("reach", "influence"):
        return found | {"reliance": "sum of the map before it is normalised"}
    if group == "rollout":
        return found | {"patch_mass": _MASSES["patch_mass"]}
    found |= _MASSES | _OF_MEAN_MAPS | (_OF_SETS if token == "patch" else {})
    if token in ("cls", "register"):
        found = {name: text for name, text in found.items() if name != f"{token}_mass"}
    if token == "cls" and group != "norm_weighted":
        found["patch_cosine"] = "cosine of [CLS] and the mean patch behind the layer norm"
    return found


def _described() -> dict[str, str]:
    found = {}
    for group, what in GROUPS.items():
        suffixes = {"": ""}
        if group in BY_LAYER:
            suffixes = {"": ", primary layer set", "/final_block": ", final block"}
        tokens = {token: _measures(group, token) for token in TOKENS}
        for suffix, where in suffixes.items():
            for token, measures in tokens.items():
                for name, text in measures.items():
                    full = f"{group}/{token}/{name}{suffix}"
                    found[full] = f"{text}; {what}, {TOKENS[token]}{where}"
            for token, contrast in CONTRASTS.items():
                for name in tokens[token].keys() & tokens["patch"].keys():
                    full = f"{group}/{contrast}/{name}{suffix}"
                    text = tokens[token][name]
                    found[full] = f"{text}; {what}, {TOKENS[token]} minus patch queries{where}"
            if group in BY_LAYER and group not in ("norm_weighted", "mirrored"):
                for name, text in _OF_SINKS.items():
                    found[f"{group}/sink/{name}{suffix}"] = f"{text}; {what}{where}"
    for name in [one for one in found if one.startswith("globality/") and one.count("/") == 2]:
        _, token, measure = name.split("/")
        if token not in CONTRASTS.values() and measure not in _WITHOUT_HEADS:
            found[f"{name}/head_max"] = f"{found[name]}: the largest head of each layer"
            found[f"{name}/head_deviation"] = f"{found[name]}: deviation over the heads of a layer"
    why = "a query had no attention on patches, or an output nothing to depend on"
    for group in [name for name in GROUPS if name != "mirrored"]:
        places = dict(TOKENS)
        if group in BY_LAYER and group != "norm_weighted":
            places["sink"] = "sinks"
        for token, what in places.items():
            found[f"{group}/{token}/undefined"] = (
                f"share of values left out because {why}; {GROUPS[group]}, {what}"
            )
    found["globality/undefined"] = f"values left out because {why}; count, of all groups"
    return dict(sorted(found.items()))


DESCRIPTIONS = _described()

AT_THE_ENDS = {
    name: text
    for name, text in DESCRIPTIONS.items()
    if name.split("/")[0] in GROUPS.keys() - {"globality", "student"}
}
"""What is measured at step 0 and at the last step only."""
