"""Does DINO need a teacher that moves slowly?

The teacher is the student of the step before. In the paper this run does not learn: k-NN 0.1 %
against 72.8 %.
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="With the student as its own teacher nothing is learned.",
    source="Caron et al. 2021, section 5.2 and table 7",
    base={"teacher.kind": "ema"},
    arms={
        "no_teacher_momentum": Arm(
            change={"teacher.kind": "student"},
            expect=(Falls("knn/cls_top1", by=0.05), Falls("collapse/information", by=0.05)),
            confounds=("what is measured is no average over steps: its weights are noisier",),
        )
    },
)
