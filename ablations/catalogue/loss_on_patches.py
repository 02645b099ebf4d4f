"""Is [CLS] global because the loss is on it?

The arm takes the loss from [CLS] to the mean of the patch tokens; head and budget stay.
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="[CLS] that carries no loss attends less globally, compared with the patches.",
    source="article, claim 3; METRICS, claim table",
    arms={
        "loss_on_patches": Arm(
            change={"loss.cls": 0.0, "loss.patches": 1.0},
            expect=Falls("globality/contrast/gyration", by=0.05),
        )
    },
)
