"""Is [CLS] global because the loss is on it, and are patches local because none is on them?

The arm takes the loss from [CLS] to every patch on its own, matched to the most similar patch of
the other view (EsViT). Unlike the mean of loss_on_patches, no token has to speak for the whole
image.
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="[CLS] without a loss attends less globally, compared with patches that each carry one.",
    source="article, claims 3 and 4; Li et al. 2022 (EsViT), eq. 3",
    arms={
        "loss_on_patches_dense": Arm(
            change={"loss.cls": 0.0, "loss.dense": 1.0},
            expect=Falls("globality/contrast/gyration", by=0.05),
            confounds=(
                "the loss averages over all patches, so its gradient noise is smaller",
                "targets are matched by the model's own features, so they change with it",
                "centering sees every patch: many more rows a step",
                "patch queries of the last block get a gradient; under a [CLS] loss they get none",
            ),
        )
    },
)
