"""Is [CLS] good because small crops are compared with large ones, or because crops are many?

The arm is the paper's run without multi-crop: no local crops, and global crops of any size, from
0.14 of the image to all of it, as DINO's code advises for this case. So small parts of an image are
still seen, but as global crops, by student and teacher alike. In no_local_crops they are not seen
at all: global crops keep the scale of the base.
"""

from ablations.spec import Ablation, Arm, Falls

ABLATION = Ablation(
    claim="Without multi-crop features are worse.",
    source="Caron et al. 2021, table 7 (k-NN 67.9 against 72.8 %); DINO's code, main_dino.py",
    arms={
        "no_multicrop": Arm(
            change={"augment.local_crops": 0, "augment.global_scale": [0.14, 1.0]},
            expect=Falls("knn/cls_top1", by=0.02),
            confounds=(
                "fewer forward passes: less compute and fewer student views a step",
                "the teacher sees small parts of images too, so its targets vary more",
            ),
        )
    },
)
