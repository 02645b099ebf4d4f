"""What would be seen if [CLS] did attend to everything?

A positive control: the query of [CLS] is 0 in every block, so it attends evenly to all tokens,
whatever it has learned. It is as global as attention can be, and asks for nothing: an end point of
how widely [CLS] attends, or of how much that depends on the image, that does not see this arm sees
nothing.
"""

from ablations.spec import Ablation, Arm, Falls, Rises

ABLATION = Ablation(
    claim="A [CLS] that attends evenly to all tokens is measured as global, and as the same for "
    "every image.",
    source="dinolab: a control of the instruments for claims 1 and 2",
    arms={
        "cls_uniform": Arm(
            change={"model.cls_uniform": True},
            expect=(
                Rises("globality/cls/gyration", by=0.02),
                Rises("globality/contrast/gyration", by=0.02),
                Falls("globality/cls/content_dependence", by=0.02),
            ),
            confounds=("[CLS] cannot choose what it reads",),
        )
    },
)
