"""Do patches attend locally because they know where they are?

The arm takes every position away. Then a ViT treats patches as a set: it can attend to near patches
only as far as near patches look alike. What is left of locality is content.
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="Without any position, patches attend less locally.",
    source="article, claims 1 and 4",
    arms={
        "no_position": Arm(
            change={"model.patch_position": "none", "model.cls_position": "none"},
            expect=(
                Falls("position_probe/r2", by=0.1),
                Falls("globality/patch/locality", by=0.05),
            ),
            confounds=(
                "another class of functions: an image and its shuffled patches are the same",
            ),
        )
    },
)
