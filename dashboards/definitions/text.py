"""What each label, tag and word means, in two sentences: docs/statistics.md and reports show it.

`s` is the smallest effect of interest. What stands in backticks is code.
"""

from collections.abc import Mapping
from types import MappingProxyType

READING = (
    "In the pictures each open dot is the difference at one seed. Below the dots stands the mean, "
    "with its 95 % interval (thin) and its 90 % interval (thick). Dashed lines are ±s, and the "
    "shaded side is what was predicted. The data are made up; the labels are what the rule says of "
    "them."
)
"""How the pictures are read."""

LABELS: Mapping[str, str] = MappingProxyType(
    {
        "failed": (
            "The data that the hypothesis rests on are not all there: a planned run of one of its "
            "arms is not finished, its metric has no finite value, or one of its arms misses a "
            "gate. Its numbers are those of the pairs that have values; they are shown, and decide "
            "nothing."
        ),
        "insensitive": (
            "Nothing in the study moves the end point by s, so it could not have shown the effect, "
            "whatever the interval says: no arm does, positive controls included, or, where the "
            "effect is shown to be small, the declared control does not. Declare a smaller s, or "
            "an end point that a control is known to move; more seeds do not help."
        ),
        "supported": (
            "The change goes as predicted, is at least s on average, and would hardly come about "
            "by chance; for `holds`, a change of s or more is excluded, on an end point that shows "
            "one where it is expected. A true effect of exactly s is called supported half the "
            "time, since the mean must reach s."
        ),
        "equivalent": (
            "An effect of s or more in either direction is excluded, although one was predicted, "
            "and the declared control shows that the end point tells such an effect. It says "
            "nothing of effects smaller than s."
        ),
        "refuted": (
            "The predicted effect of s or more is excluded, or for `holds` a change of s or more "
            "is shown. The true change may be none at all, small, or the opposite of the "
            "prediction, which the reason says."
        ),
        "inconclusive": (
            "The data exclude neither the effect nor its absence, or they show a small effect and "
            "nothing shows that a larger one would have been seen. It never means “no effect”."
        ),
    }
)

IN_SHORT: Mapping[str, str] = MappingProxyType(
    {
        "failed": "what it rests on is not all there",
        "insensitive": (
            "nothing here, or not its control, moves what is measured by as much as the smallest "
            "effect, so this study could not have seen it"
        ),
        "supported": "it is as predicted",
        "equivalent": "the predicted effect is excluded, and so is its opposite",
        "refuted": "what was predicted is excluded",
        "inconclusive": "the data do not decide, or a control is wanting",
    }
)
"""What a label means, for who reads no further."""

TAGS: Mapping[str, str] = MappingProxyType(
    {
        "strong": (
            "Of supported: the whole 95 % interval is at least s. So a smaller effect is excluded, "
            "while supported alone asks this of the mean only."
        ),
        "negligible-but-nonzero": (
            "The effect is shown to be small, and yet the adjusted p is at most alpha. For `holds` "
            "too: what is called unchanged may have changed by a little."
        ),
        "opposite": (
            "The adjusted p is at most alpha for a mean against the prediction. The effect is too "
            "small to be called refuted."
        ),
    }
)

WORDS: Mapping[str, str] = MappingProxyType(
    {
        "confirmatory": (
            "No result of its arms existed when it was stated, and nothing that bears on it has "
            "changed since. Its p-value means what it says."
        ),
        "amended": (
            "It was changed before any result of its arms existed; or nothing declared was "
            "changed, but a version was. The reason says when, and how many results were known."
        ),
        "exploratory": (
            "A result of its arms existed when its present form was stated: of its own trials, "
            "whichever study of the root made them, or of trials that an earlier registration gave "
            "arms of that name or change. Whoever stated it may have seen the result, so its "
            "p-value is no evidence."
        ),
    }
)

DEFINITIONS: Mapping[str, str] = MappingProxyType({**LABELS, **TAGS, **WORDS})
