"""Draw what the backbone in the box sees: `python docs/draw_backbone.py` writes its figures/pca.png.

The two photographs come with scikit-learn: china.jpg (https://www.flickr.com/photos/danielbuechele/6061409035) and
flower.jpg (https://www.flickr.com/photos/vultilion/6056698931), both CC BY 2.0. The network saw neither.
"""

import tempfile
from pathlib import Path

from sklearn.datasets import load_sample_images

from ladder_model_cards import feature_figures
from ladder_model_cards.files import write_whole

BACKBONE = Path(__file__).parents[1] / "model_cards" / "backbones" / "imagenette96-ladder"
SIZE = 384
"""Pixels of a side: four times the training size, so that the maps of all stages show something."""


def main() -> None:
    """Draw the picture."""
    with tempfile.TemporaryDirectory() as folder:
        feature_figures(BACKBONE, load_sample_images().images, folder, queries=2, neighbours=1, view_size=SIZE)
        write_whole(BACKBONE / "figures" / "pca.png", (Path(folder) / "pca.png").read_bytes())
    print(BACKBONE / "figures" / "pca.png")


if __name__ == "__main__":
    main()
