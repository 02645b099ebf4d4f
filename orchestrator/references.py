"""What gates compare models with: accuracies that are of the data alone."""

from ablations.study.study import Study
from trainers.data.image_set import ImageSet
from trainers.evaluation.references import reference_accuracies


def references_of(study: Study, images: ImageSet) -> dict[str, float]:
    """The accuracies that gates of `study` ask for, by name; computed anew, on the CPU.

    They are those of the base, whose split every arm has. None on images without labels, on which
    no such gate can be stated.
    """
    names = sorted({gate.reference for gate in study.gates.values() if gate.reference})
    if images.labels is None:
        return {}
    return reference_accuracies(images, study.base, names)
