"""Does [CLS] attend more globally when registers take over the scratch work?

Large ViTs keep global information in a few patches, which registers replace; DINO's small ones do
not show such patches, so nothing should change.
"""

from ablations.spec import Ablation, Arm, Holds

ABLATION = Ablation(
    claim="Registers do not change how globally [CLS] of a small DINO attends.",
    source="Darcet et al. 2024, fig. 3 (DINO does not present these artifacts)",
    arms={
        "registers_4": Arm(
            change={"model.registers": 4},
            expect=Holds("globality/contrast/gyration", by=0.05),
        )
    },
)
