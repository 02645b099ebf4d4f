"""What would be seen if [CLS] did attend locally?

A positive control: [CLS] attends to itself and to the patches in the middle, by a mask, whatever it
has learned. So an end point of how widely [CLS] attends that does not see this arm sees nothing.
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="A [CLS] that can attend to the middle of the image alone is measured as local.",
    source="dinolab: a control of the instruments for claims 1 and 2",
    arms={
        "cls_window_1": Arm(
            change={"model.cls_window": 1},
            expect=(
                Falls("globality/cls/gyration", by=0.05),
                Falls("globality/contrast/gyration", by=0.05),
            ),
            confounds=(
                "[CLS] attends to no register",
                "[CLS] still hears of the rest of the image, through what patches attend to",
            ),
        )
    },
)
