"""Does [CLS] need a position of its own?

A learned position of [CLS] is a constant added to another learned constant: the two models compute
the same functions, so the claim is an equivalence.
"""

from ablations.spec import Ablation, Arm, Holds

ABLATION = Ablation(
    claim="[CLS] without a position embedding attends as globally as with a learned one.",
    source="article, claim 1; Dosovitskiy et al. 2021, eq. 1",
    base={"model.cls_position": "learned"},
    arms={
        "cls_position_none": Arm(
            change={"model.cls_position": "none"},
            expect=(
                Holds("globality/contrast/gyration", by=0.05),
                Holds("shuffled/cls/positional_bias", by=0.05),
            ),
            confounds=("[CLS] starts less far from 0: one random vector, not the sum of two",),
        )
    },
)
