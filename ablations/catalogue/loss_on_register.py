"""Is there anything about [CLS] itself, or does any token that carries the loss become global?

The arm adds a register, which is a second [CLS] without a position, and takes the loss from [CLS]
to it: the roles are swapped. If the loss decides, [CLS] attends as a token without one does. The
decisive arm of claim 5; compare the register with the baseline's [CLS].
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="[CLS] whose loss went to a register attends less globally, compared with the patches.",
    source="article, claim 5",
    arms={
        "loss_on_register": Arm(
            change={"loss.cls": 0.0, "loss.register_token": 1.0, "model.registers": 1},
            expect=(
                Falls("globality/contrast/gyration", by=0.05),
                Falls("influence/contrast/gyration", by=0.05),
            ),
            confounds=("the register, unlike a [CLS] with a learned one, has no position",),
        )
    },
)
