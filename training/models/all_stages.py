"""All stages of a backbone as one more feature vector, called "all"."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ALL_STAGES = "all"


def with_all_stages(features: dict[str, "Tensor"], *, normalise: bool) -> dict[str, "Tensor"]:
    """Add the concatenation of all stages' features under the name "all"; a single stage stays alone.

    Args:
        features: Stage name to float (images, channels).
        normalise: First scale each stage's features to length 1, so that every stage contributes equally to the cosine
            similarity (kNN). A linear classifier learns the weights of the stages itself.
    """
    import torch  # reports and tables need the name alone, without torch

    if len(features) < 2:
        return features
    normalised = torch.nn.functional.normalize
    parts = [normalised(values, dim=1) if normalise else values for values in features.values()]
    return {**features, ALL_STAGES: torch.cat(parts, dim=1)}
