"""Is [CLS] global because the loss is on it?

The arm takes the loss from [CLS] to the mean of the patch tokens; head and budget stay.
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="[CLS] that carries no loss attends less globally, compared with the patches.",
    source="article, claim 3",
    arms={
        "loss_on_patches": Arm(
            change={"loss.cls": 0.0, "loss.patches": 1.0},
            expect=(
                Falls("globality/contrast/gyration", by=0.05),
                Falls("influence/contrast/gyration", by=0.05),
                Falls("globality/patch/locality", by=0.05),
            ),
            confounds=(
                "the head sees a mean of many tokens, which is smoother than one",
                "patch queries of the last block get a gradient; under a [CLS] loss they get none",
            ),
        )
    },
)
