"""The collapse panel on outputs and features of which every value is known."""

import math

import pytest
import torch
from torch import Tensor

from trainers.evaluation.collapse import (
    DESCRIPTIONS,
    LEAST_FEATURE_STD,
    LEAST_INFORMATION,
    MOST_IMAGES,
    collapse_panel,
    collapsed,
)

torch.set_num_threads(1)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def panel(
    teacher: Tensor | None = None,
    student: Tensor | None = None,
    features: Tensor | None = None,
    *,
    temperatures: tuple[float, float] = (1.0, 1.0),
    center: Tensor | None = None,
) -> dict[str, float]:
    """The panel, with varied outputs and features where a test is about others."""
    count = next((len(part) for part in (teacher, student, features) if part is not None), 12)
    if teacher is None:
        teacher = 3 * noise(0, count, 8) if student is None else student
    student = teacher if student is None else student
    features = noise(1, count, 6) if features is None else features
    center = torch.zeros(teacher.shape[1]) if center is None else center
    return collapse_panel(
        teacher,
        student,
        features,
        teacher_temperature=temperatures[0],
        student_temperature=temperatures[1],
        center=center,
    )


def one_hot(places: Tensor, prototypes: int) -> Tensor:
    """Logits of which the softmax is one-hot to float64 rounding."""
    return 1e3 * torch.eye(prototypes)[places]


def rankme_of_rank_1(count: int) -> float:
    """RankMe of features with one singular value of `count` that is not 0."""
    shares = [1 + 1e-7] + [1e-7] * (count - 1)
    return math.exp(-sum(share * math.log(share) for share in shares))


# Outputs


def test_identical_outputs_have_no_information_and_no_divergence_where_both_networks_agree():
    logits = noise(2, 1, 8).expand(10, 8)
    found = panel(logits)
    assert found["collapse/kl"] == pytest.approx(0, abs=1e-12)
    assert found["collapse/information"] == pytest.approx(0, abs=1e-12)
    assert found["collapse/target_entropy"] == pytest.approx(found["collapse/mean_entropy"])


def test_uniform_output_has_entropies_1_and_uses_every_prototype():
    found = panel(torch.zeros(10, 8))
    assert found["collapse/target_entropy"] == pytest.approx(1)
    assert found["collapse/mean_entropy"] == pytest.approx(1)
    assert found["collapse/information"] == pytest.approx(0, abs=1e-12)
    assert found["collapse/prototype_perplexity"] == pytest.approx(1)


def test_one_hot_output_that_differs_for_each_image_has_information_1():
    prototypes = 9
    found = panel(one_hot(torch.arange(prototypes), prototypes))
    assert found["collapse/target_entropy"] == pytest.approx(0, abs=1e-12)
    assert found["collapse/mean_entropy"] == pytest.approx(1)
    assert found["collapse/information"] == pytest.approx(1)
    assert found["collapse/prototype_perplexity"] == pytest.approx(1)


def test_one_hot_output_on_one_prototype_has_entropies_0():
    prototypes = 9
    found = panel(one_hot(torch.full((5,), 3), prototypes))
    assert found["collapse/target_entropy"] == pytest.approx(0, abs=1e-12)
    assert found["collapse/mean_entropy"] == pytest.approx(0, abs=1e-12)
    assert found["collapse/prototype_perplexity"] == pytest.approx(1 / prototypes)


def test_images_split_evenly_over_m_prototypes_have_information_log_m_over_log_k():
    found = panel(one_hot(torch.arange(12) % 4, 16))
    assert found["collapse/information"] == pytest.approx(math.log(4) / math.log(16))
    assert found["collapse/prototype_perplexity"] == pytest.approx(4 / 16)


def test_divergence_and_entropies_are_those_of_a_loop():
    teacher, student, center = noise(3, 7, 5), noise(4, 7, 5), noise(5, 5)
    found = panel(teacher, student, temperatures=(0.4, 0.7), center=center)

    def softmax(values: list[float]) -> list[float]:
        powers = [math.exp(value) for value in values]
        return [power / sum(powers) for power in powers]

    divergence, each = 0.0, 0.0
    mean = [0.0] * 5
    for one, other in zip(teacher.tolist(), student.tolist(), strict=True):
        p = softmax([(a - c) / 0.4 for a, c in zip(one, center.tolist(), strict=True)])
        q = softmax([b / 0.7 for b in other])
        divergence += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 7
        each -= sum(a * math.log(a) for a in p) / 7
        mean = [total + a / 7 for total, a in zip(mean, p, strict=True)]
    of_mean = -sum(a * math.log(a) for a in mean)
    assert found["collapse/kl"] == pytest.approx(divergence)
    assert found["collapse/target_entropy"] == pytest.approx(each / math.log(5))
    assert found["collapse/mean_entropy"] == pytest.approx(of_mean / math.log(5))
    assert found["collapse/information"] == pytest.approx((of_mean - each) / math.log(5))
    assert found["collapse/prototype_perplexity"] == pytest.approx(math.exp(of_mean) / 5)


def test_one_hot_outputs_have_a_finite_divergence():
    found = panel(
        one_hot(torch.arange(4), 4), one_hot(torch.arange(4), 4).roll(1, 0), temperatures=(1.0, 0.1)
    )
    assert found["collapse/kl"] == pytest.approx(1e3 / 0.1)
    assert all(math.isfinite(value) for value in found.values())


def test_a_center_equal_to_the_constant_output_makes_it_uniform():
    logits = noise(6, 1, 8).expand(10, 8)
    found = panel(logits, center=logits[0])
    assert found["collapse/target_entropy"] == pytest.approx(1)


# Features


@pytest.mark.parametrize(("count", "width"), [(10, 6), (4, 6)])
def test_identical_features_have_rank_1_and_no_spread(count: int, width: int):
    found = panel(features=noise(7, 1, width).expand(count, width))
    rank = found["collapse/rankme"] * width
    assert rank == pytest.approx(rankme_of_rank_1(min(count, width)), rel=1e-9)
    assert rank == pytest.approx(1, abs=2e-5)
    assert found["collapse/feature_std"] == pytest.approx(0, abs=1e-7)
    assert found["collapse/uniformity"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_orthonormal_features_have_the_rank_of_their_dimension(scale: float):
    width = 6
    found = panel(features=scale * torch.linalg.qr(noise(8, 20, width).double()).Q)
    share = 1 / width + 1e-7
    assert found["collapse/rankme"] == pytest.approx(
        math.exp(-width * share * math.log(share)) / width
    )
    assert found["collapse/rankme"] == pytest.approx(1, abs=1e-5)


def test_features_of_zeros_count_as_identical():
    found = panel(features=torch.zeros(10, 6))
    assert found["collapse/rankme"] * 6 == pytest.approx(1, abs=2e-5)
    assert found["collapse/feature_std"] == 0
    assert found["collapse/uniformity"] == 0
    assert "features" in collapsed(found)


def test_isotropic_features_have_a_spread_of_1():
    found = panel(features=noise(9, 2000, 64))
    assert found["collapse/feature_std"] == pytest.approx(1, abs=0.02)


def test_features_evenly_along_both_ways_of_every_axis_have_a_spread_of_exactly_1():
    found = panel(features=torch.cat([torch.eye(4), -torch.eye(4)]))
    assert found["collapse/feature_std"] == pytest.approx(1)


def test_uniformity_is_that_of_a_loop_over_pairs():
    features = noise(10, 9, 5)
    unit = [row / row.norm() for row in features.double()]
    kernel = [
        math.exp(-2 * float(((unit[i] - unit[j]) ** 2).sum())) for i in range(9) for j in range(i)
    ]
    expected = math.log(sum(kernel) / len(kernel))
    assert panel(features=features)["collapse/uniformity"] == pytest.approx(expected)


def test_uniformity_of_opposite_points_is_minus_8():
    assert panel(features=torch.tensor([[2.0, 0.0], [-3.0, 0.0]]))[
        "collapse/uniformity"
    ] == pytest.approx(-8)


def test_the_length_of_features_does_not_change_spread_or_uniformity():
    features = noise(11, 10, 6)
    lengths = 10 ** torch.linspace(-3, 3, 10)[:, None]
    one, other = panel(features=features), panel(features=lengths * features)
    for name in ("collapse/feature_std", "collapse/uniformity"):
        assert other[name] == pytest.approx(one[name], rel=1e-5)


# Both


def test_every_value_is_described_and_every_description_has_a_value():
    assert set(panel()) == set(DESCRIPTIONS)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_are_refused(count: int):
    with pytest.raises(ValueError, match=f"two images or more, got {count}"):
        panel(torch.zeros(count, 8), features=torch.zeros(count, 6))


def test_two_images_are_enough():
    assert all(math.isfinite(value) for value in panel(noise(12, 2, 8)).values())


def test_of_very_many_images_the_first_ones_count():
    first = noise(15, MOST_IMAGES, 3)
    found = panel(torch.cat([first, first[:0]]), features=first)
    others = torch.cat([first, 100 + noise(16, 50, 3)])
    assert panel(others, features=others) == found


@pytest.mark.parametrize("count", [2, 255, 256, 257, 600])
def test_outputs_taken_in_parts_have_the_panel_of_the_whole(count: int):
    teacher, student = noise(17, count, 5).double(), noise(18, count, 5).double()
    found = panel(teacher, student)
    p, log_q = teacher.softmax(1), student.log_softmax(1)
    assert found["collapse/kl"] == pytest.approx(float((p * (p.log() - log_q)).sum(1).mean()))
    mean = p.mean(0)
    entropy = float(-(mean * mean.log()).sum()) / math.log(5)
    assert found["collapse/mean_entropy"] == pytest.approx(entropy)


# Verdict


def test_a_healthy_network_is_not_collapsed():
    healthy = panel()
    assert healthy["collapse/information"] > LEAST_INFORMATION
    assert healthy["collapse/feature_std"] > LEAST_FEATURE_STD
    assert collapsed(healthy) == ""


def test_uniform_output_is_named_as_the_reason():
    reason = collapsed(panel(1e-3 * noise(13, 10, 8)))
    assert "outputs are the same for every image, uniform" in reason
    assert str(LEAST_INFORMATION) in reason


def test_output_on_few_prototypes_is_named_as_the_reason():
    reason = collapsed(panel(one_hot(torch.full((10,), 2), 8)))
    assert "outputs are the same for every image, on few prototypes" in reason


def test_constant_features_are_named_as_the_reason():
    reason = collapsed(panel(features=torch.ones(12, 6) + 1e-4 * noise(14, 12, 6)))
    assert "features are the same for every image" in reason
    assert str(LEAST_FEATURE_STD) in reason


def test_outputs_are_named_before_features():
    assert collapsed(panel(torch.zeros(10, 8), features=torch.ones(10, 6))).startswith("outputs")


def test_the_thresholds_themselves_are_not_collapse():
    values = {
        "collapse/information": LEAST_INFORMATION,
        "collapse/target_entropy": 0.2,
        "collapse/feature_std": LEAST_FEATURE_STD,
    }
    assert collapsed(values) == ""
