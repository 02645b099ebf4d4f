"""Is [CLS] global because it stands nowhere, where positions are fixed?

Patches carry fixed sine-cosine codes, in which near places have similar codes from the first step.
The arm gives [CLS] the code of the centre of the image. The base must have such patches, or the
code of [CLS] would name no place: `set: {model.patch_position: sincos}`.
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="[CLS] that carries the fixed code of the image's centre attends less globally.",
    source="article, claim 1; Chen et al. 2021 (MoCo v3)",
    base={"model.patch_position": "sincos"},
    arms={
        "cls_position_sincos": Arm(
            change={"model.cls_position": "sincos"},
            expect=Falls("globality/contrast/gyration", by=0.05),
            confounds=("codes are far longer than the learned [CLS] that they are added to",),
        )
    },
)
