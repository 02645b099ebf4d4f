"""Is [CLS] global because it stands nowhere?

The arm gives [CLS] the position of a real patch, the corner (0, 0): if position binds attention,
its map must shrink.
"""

from ablations.spec import Ablation, Arm, Falls, Rises

ABLATION = Ablation(
    claim="[CLS] that carries the position of a patch attends less globally.",
    source="article, claim 1",
    arms={
        "cls_position_tied": Arm(
            change={"model.cls_position": "tied"},
            expect=(
                Falls("globality/contrast/gyration", by=0.05),
                Rises("shuffled/cls/positional_bias", by=0.05),
            ),
            confounds=("the position of that patch is trained by what [CLS] does, too",),
        )
    },
)
