"""Does it matter how collapse is avoided?

Targets are balanced over prototypes by Sinkhorn-Knopp (SwAV) instead of centred. In the paper that
costs 0.6 points of k-NN.
"""

from ablations.spec import Ablation, Arm, Holds

ABLATION = Ablation(
    claim="With Sinkhorn-Knopp targets features are as good as with centering.",
    source="Caron et al. 2021, table 7 (k-NN 72.2 against 72.8 %); Caron et al. 2020 (SwAV)",
    base={"targets.kind": "centering"},
    arms={
        "sinkhorn": Arm(
            change={"targets.kind": "sinkhorn"},
            expect=Holds("knn/cls_top1", by=0.02),
            confounds=("targets depend on the batch alone, not on a moving average over batches",),
        )
    },
)
