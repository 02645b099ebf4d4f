"""Does [CLS] need to guess the whole from a part?

The arm takes the local crops away and nothing else: student and teacher see large crops alone, at
the scale of the base. See no_multicrop for the run in which global crops take over the small
scales.
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="Without local crops, features are worse: nothing asks for the whole from a part.",
    source="Caron et al. 2021, section 3.1 (local-to-global correspondences)",
    arms={
        "no_local_crops": Arm(
            change={"augment.local_crops": 0},
            expect=Falls("knn/cls_top1", by=0.02),
            confounds=(
                "fewer forward passes: less compute and fewer student views a step",
                "pairs of crops overlap more: the task is easier",
            ),
        )
    },
)
