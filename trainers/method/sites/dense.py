"""The loss on every patch, matched to the most similar patch of the other view (EsViT)."""

from collections.abc import Sequence

from torch import Tensor

from trainers.method.losses import dense_distillation, dense_entropy
from trainers.method.site import Head, PatchSite, Seen, Targets


class Dense(PatchSite):
    """All patches of each crop (Li et al. 2022, eq. 3)."""

    meaning = "every patch, matched between views"

    def rows(self, seen: Seen) -> Tensor:
        """[V · m · N, D]"""
        return seen.features.patches.flatten(0, 1)

    def keep(self, teacher: Seen) -> Tensor:
        """The teacher's patches [G, m, N, D], to find matches by."""
        return _by_view(teacher.features.patches, teacher)

    def loss(self, targets: Targets, student: Sequence[Seen], head: Head) -> Tensor:
        """Mean cross-entropy of patches with their matches, over pairs of different views."""
        assert targets.kept is not None
        groups = []
        for seen in student:
            patches = seen.features.patches
            logits = head(self.rows(seen)).unflatten(0, patches.shape[:2])
            groups.append((_by_view(logits, seen), _by_view(patches, seen)))
        rows = targets.rows.unflatten(0, targets.kept.shape[:3])
        return dense_distillation(rows, targets.kept, groups, self.config.student_temperature)

    def target_entropy(self, targets: Targets, student: Sequence[Seen]) -> Tensor:
        """Mean entropy of the matches' targets, each as often as it is one."""
        assert targets.kept is not None
        rows = targets.rows.unflatten(0, targets.kept.shape[:3])
        groups = [_by_view(seen.features.patches, seen) for seen in student]
        return dense_entropy(rows, targets.kept, groups)

    def rows_of_crop(self, patches: int, *, is_global: bool) -> float:
        """All its patches."""
        return patches


def _by_view(tokens: Tensor, seen: Seen) -> Tensor:
    """[V · m, N, ...] as [V, m, N, ...]"""
    return tokens.unflatten(0, (-1, seen.images))


SITE = Dense
