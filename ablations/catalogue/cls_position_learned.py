"""Does a position of its own change what [CLS] attends to?

The other direction of cls_position_none, for recipes whose [CLS] has no position: the added vector
is a learned constant, which [CLS] is already.
"""

from ablations.spec import Ablation, Arm, Holds

ABLATION = Ablation(
    claim="[CLS] with a learned position embedding attends as globally as with none.",
    source="article, claim 1; Dosovitskiy et al. 2021, eq. 1",
    base={"model.cls_position": "none"},
    arms={
        "cls_position_learned": Arm(
            change={"model.cls_position": "learned"},
            expect=Holds("globality/contrast/gyration", by=0.05),
            confounds=("[CLS] starts further from 0: the sum of two random vectors, not one",),
        )
    },
)
