"""Does DINO collapse without centering?

Targets are the teacher's sharpened softmax as it is. Nothing keeps one prototype from winning every
image, so the mean output should become one-hot.
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="Without centering the outputs fall onto few prototypes and tell images apart no more.",
    source="Caron et al. 2021, section 5.3 and fig. 7",
    base={"targets.kind": "centering", "targets.sharpening": True},
    arms={
        "no_centering": Arm(
            change={"targets.kind": "none"},
            expect=(Falls("collapse/mean_entropy", by=0.1), Falls("collapse/information", by=0.05)),
        )
    },
)
