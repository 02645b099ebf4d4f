"""What would be seen if patches did attend to everything?

A positive control: the queries of patches are 0 in every block, so each attends evenly to all
tokens, whatever it has learned, and all patches add the same to what they know. An end point of how
local patches are, or of how widely they attend, that does not see this arm sees nothing.
"""

from ablations.spec import Ablation, Arm, Falls, Rises

ABLATION = Ablation(
    claim="Patches that attend evenly to all tokens are measured as global, and as not local.",
    source="dinolab: a control of the instruments for claim 4",
    arms={
        "patch_uniform": Arm(
            change={"model.patch_uniform": True},
            expect=(
                Rises("globality/patch/gyration", by=0.02),
                Falls("globality/contrast/gyration", by=0.02),
                Falls("globality/patch/content_dependence", by=0.02),
            ),
            confounds=("patches cannot choose what they read",),
        )
    },
)
