"""Does [CLS] stay global when patches have to guess what is hidden?

Beside the whole loss on [CLS], masked patches predict the teacher's output at their place (iBOT).
[CLS] keeps its loss, so it should attend as before. What becomes of the patches is open: that they
change is expected, in no direction.
"""

from ablations.spec import Ablation, Arm, Differs, Holds

ABLATION = Ablation(
    claim="[CLS] with its loss attends as globally when masked patches carry one too.",
    source="article, claim 4; Zhou et al. 2022 (iBOT), eq. 2",
    arms={
        "masked_patches": Arm(
            change={"loss.masked": 1.0},
            expect=(
                Holds("globality/cls/gyration", by=0.05),
                Differs("globality/patch/locality", by=0.05),
            ),
            confounds=(
                "the student sees masked global crops, so [CLS] has to do with fewer patches",
                "the sum of all weights is larger by 1",
                "patch queries of the last block get a gradient; under a [CLS] loss they get none",
            ),
        )
    },
)
