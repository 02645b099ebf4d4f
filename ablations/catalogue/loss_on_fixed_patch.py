"""Can a patch become what [CLS] is, if it carries the loss?

The arm takes the loss from [CLS] to the patch in the centre of each crop, always the same place: a
token with content and position of its own has to speak for the whole image.
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="[CLS] whose loss went to one patch attends less globally, compared with the patches.",
    source="article, claim 5",
    arms={
        "loss_on_fixed_patch": Arm(
            change={"loss.cls": 0.0, "loss.fixed_patch": 1.0},
            expect=Falls("globality/contrast/gyration", by=0.05),
            confounds=(
                "the token with the loss has content of its own, a part of the image",
                "patch queries of the last block get a gradient; under a [CLS] loss they get none",
            ),
        )
    },
)
