"""Is [CLS] less global when labels train it?

The arm learns labels through a linear classifier on [CLS], on the same crops, and distils nothing.
The article says: global in both, more so in DINO. Needs a data set with labels.
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="[CLS] trained by labels attends less globally, compared with the patches, than by DINO.",
    source="article, claim 6; Caron et al. 2021, fig. 4",
    arms={
        "supervised": Arm(
            change={"loss.cls": 0.0, "loss.labels": 1.0},
            expect=Falls("globality/contrast/gyration", by=0.05),
            confounds=(
                "labels; no head, no teacher's targets, no centering",
                "the teacher, which is what is measured, is an average that nothing learns from",
                "rates, schedules and crops are those of DINO, not of supervised training",
            ),
        )
    },
)
