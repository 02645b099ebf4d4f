"""Does [CLS] stand in the corner when coordinates of rotary positions start there?

The same as rope_centre but for the origin: a [CLS] that is not turned attends as if it stood in the
upper left corner. Patches attend to each other as in rope_centre, whatever the origin, so the two
arms differ in the place of [CLS] alone: a sharp test of whether it stands nowhere.
"""

from ablations.spec import Ablation, Arm, Falls, Rises

ABLATION = Ablation(
    claim="[CLS] that is not rotated attends as if it stood at the origin, so less globally.",
    source="article, claim 1",
    arms={
        "rope_corner": Arm(
            change={
                "model.patch_position": "rotary",
                "model.cls_position": "none",
                "model.rotary_origin": "corner",
            },
            expect=(
                Falls("globality/cls/gyration", by=0.05),
                Rises("shuffled/cls/positional_bias", by=0.05),
            ),
            confounds=(
                "patches change too: positions enter in every block, and values carry none",
            ),
        )
    },
)
