"""Does DINO collapse without sharpening?

Targets are made at the student's temperature. Centering alone pushes every output to the uniform
one, so each output should become as spread as can be.
"""

from ablations.spec import Ablation, Arm, Falls, Rises

ABLATION = Ablation(
    claim="Without sharpening the outputs become uniform and tell images apart no more.",
    source="Caron et al. 2021, section 5.3 and fig. 7",
    arms={
        "no_sharpening": Arm(
            change={"targets.sharpening": False},
            expect=(
                Rises("collapse/target_entropy", by=0.1),
                Falls("collapse/information", by=0.05),
            ),
            confounds=(
                "the collapse panel measures at the teacher temperature, unlike the targets",
            ),
        )
    },
)
