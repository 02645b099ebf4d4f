"""What would be seen if patches did attend locally?

A positive control: each patch attends to itself and to the patches around it, by a mask, whatever
it has learned. So an end point of how widely patches attend that does not see this arm sees
nothing. [CLS] attends to all patches, and no patch to [CLS], so what a patch knows comes from near.
"""

from ablations.spec import Ablation, Arm, Falls, Rises

ABLATION = Ablation(
    claim="Patches that can attend to their neighbours alone are measured as local.",
    source="dinolab: a control of the instruments for claim 4",
    arms={
        "patch_window_1": Arm(
            change={"model.patch_window": 1},
            expect=(
                Rises("globality/patch/locality", by=0.05),
                Falls("globality/patch/gyration", by=0.05),
            ),
            confounds=(
                "patches attend to no [CLS] and no register",
                "[CLS] reads patches that know less of the rest of the image",
            ),
        )
    },
)
