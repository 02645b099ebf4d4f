"""Is [CLS] global because it stands nowhere, or because it always stands at the same place?

The arm gives [CLS] the position of a patch, but of another one at each forward pass: a place binds
attention, yet [CLS] cannot learn to make up for this one.
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="[CLS] that carries the position of a random patch each time attends less globally.",
    source="article, claim 1",
    arms={
        "cls_position_random": Arm(
            change={"model.cls_position": "random"},
            expect=Falls("globality/contrast/gyration", by=0.05),
            confounds=("[CLS] is noisy: two passes of one crop differ",),
        )
    },
)
