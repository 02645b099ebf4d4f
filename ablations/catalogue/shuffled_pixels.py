"""What does a model learn from colours alone?

The arm trains on crops whose pixels are in random order: only the histogram of an image is left,
and no patch differs from another but by chance. A floor for everything that needs shapes.
"""

from ablations.spec import Ablation, Arm, Falls, Rises

ABLATION = Ablation(
    claim="A model trained on shuffled pixels knows less, and its patches attend less locally.",
    source="docs/metrics.md, control",
    arms={
        "shuffled_pixels": Arm(
            change={"augment.shuffle": "pixels"},
            expect=(Falls("knn/cls_top1", by=0.05), Rises("globality/patch/gyration", by=0.05)),
            confounds=(
                "held-out images are not shuffled: they are unlike those of training",
                "the task changes: nothing but colours can be learned",
            ),
        )
    },
)
