"""Does it matter which patch's position [CLS] carries?

The catalogue's cls_position_tied takes the first patch. Here it is the last one of the 4×4 patches
of `digits_tiny`: if a place binds attention, each place does.
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="[CLS] that carries the position of the last patch attends less globally.",
    source="article, claim 1",
    arms={
        "cls_in_the_far_corner": Arm(
            change={"model.cls_position": "tied", "model.cls_tied_patch": [3, 3]},
            expect=Falls("globality/contrast/gyration", by=0.05),
            confounds=("the position of that patch is trained by what [CLS] does, too",),
        )
    },
)
