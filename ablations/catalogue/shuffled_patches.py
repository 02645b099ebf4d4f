"""Do patches attend locally because neighbours belong together?

The arm trains on crops whose patches are in random order: each patch is what it was, but what is
near says nothing any more. Held-out images stay as they are.
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="Patches trained on images without spatial order attend less locally.",
    source="article, claim 4",
    arms={
        "shuffled_patches": Arm(
            change={"augment.shuffle": "patches"},
            expect=Falls("globality/patch/locality", by=0.05),
            confounds=(
                "held-out images are not shuffled: they are unlike those of training",
                "the task changes: shapes larger than a patch cannot be learned",
            ),
        )
    },
)
