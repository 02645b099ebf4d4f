"""What would be seen without any training?

All losses are 0, so the network stays as it was drawn. Attention of an untrained ViT is nearly
uniform, which is as global as can be: training can only make it less so (docs/metrics.md). Every
claim of globality is to be read against this arm, or against the run's own step 0.
"""

from ablations.spec import Ablation, Arm, Falls, Rises

ABLATION = Ablation(
    claim="An untrained [CLS] attends more widely than a trained one, and knows less.",
    source="article, claim 2; docs/metrics.md",
    base={
        "loss.patches": 0.0,
        "loss.dense": 0.0,
        "loss.register_token": 0.0,
        "loss.fixed_patch": 0.0,
        "loss.masked": 0.0,
        "loss.labels": 0.0,
        "loss.koleo": 0.0,
    },
    arms={
        "untrained": Arm(
            change={"loss.cls": 0.0},
            expect=(
                Rises("globality/cls/gyration", by=0.05),
                Falls("globality/cls/content_dependence", by=0.05),
                Falls("knn/cls_top1", by=0.05),
            ),
            confounds=("nothing is trained: no update, whatever the schedules say",),
        )
    },
)
