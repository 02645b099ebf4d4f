"""The loss on patches that are hidden from the student and not from the teacher (iBOT)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.method.losses import masked_distillation, masked_mean
from trainers.method.site import Head, PatchSite, Seen, Targets


class Masked(PatchSite):
    """The hidden patches of each global crop (Zhou et al. 2022, eq. 2)."""

    meaning = "masked patches"
    hides_patches = True

    def rows(self, seen: Seen) -> Tensor:
        """[R, D] of the R hidden patches."""
        patches = seen.features.patches
        if seen.places is None:
            assert seen.hidden is not None
            return patches[seen.hidden]
        return patches.flatten(0, 1)[seen.places]

    def keep(self, teacher: Seen) -> Tensor | None:
        """Which patches are hidden, bool [G · m, N]."""
        return teacher.hidden

    def loss(self, targets: Targets, student: Sequence[Seen], head: Head) -> Tensor:
        """Mean over crops of the mean cross-entropy of their hidden patches."""
        assert targets.kept is not None
        logits = head(self.rows(student[0]))
        temperature = self.config.student_temperature
        return masked_distillation(targets.rows, logits, targets.kept, temperature)

    def target_entropy(self, targets: Targets, student: Sequence[Seen]) -> Tensor:
        """Mean over crops of the mean entropy of their hidden patches' targets."""
        assert targets.kept is not None
        return masked_mean(torch.special.entr(targets.rows).sum(-1), targets.kept)

    def rows_of_crop(self, patches: int, *, is_global: bool) -> float:
        """The patches that are to be hidden on average, of global crops; blocks hide a few less."""
        share = self.config.mask_probability * sum(self.config.mask_share) / 2
        return patches * share if is_global else 0


SITE = Masked
