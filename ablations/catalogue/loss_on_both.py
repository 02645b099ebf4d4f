"""Does [CLS] stay global when the patches share the loss?

Half of the weight goes to the mean patch token, so the whole weight stays 1. If it is the loss on
[CLS] that makes it global, half of it should do.
"""

from ablations.spec import Ablation, Arm, Holds

ABLATION = Ablation(
    claim="[CLS] that shares the loss with the patches attends as globally as with all of it.",
    source="article, claim 3",
    base={"loss.cls": 1.0},
    arms={
        "loss_on_both": Arm(
            change={"loss.cls": 0.5, "loss.patches": 0.5},
            expect=Holds("globality/cls/gyration", by=0.05),
            confounds=(
                "the head serves two kinds of tokens, and each has a center of its own",
                "patch queries of the last block get a gradient; under a [CLS] loss they get none",
            ),
        )
    },
)
