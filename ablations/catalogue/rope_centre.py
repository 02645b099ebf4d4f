"""Does [CLS] stand in the centre when positions are rotary?

Rotary positions turn queries and keys of patches and leave [CLS] unturned, as in DINOv3. A token
that is not turned attends exactly as if it stood at coordinate 0, here the centre of the image: so
this is no [CLS] without a position, and its attention should shrink around it. See rope_corner.
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="[CLS] that is not rotated attends as if it stood at the origin, so less globally.",
    source="article, claim 1; Siméoni et al. 2025 (DINOv3)",
    base={"model.rotary_origin": "centre"},
    arms={
        "rope_centre": Arm(
            change={"model.patch_position": "rotary", "model.cls_position": "none"},
            expect=Falls("globality/cls/gyration", by=0.05),
            confounds=(
                "patches change too: positions enter in every block, and values carry none",
            ),
        )
    },
)
