"""How fast images become features: this package's pass over a data set against plain transformers and torchvision.

    python benchmarks/features.py [--photos FOLDER] [--device cuda] [--rounds 5] [--quick] [--json FILE]

All contenders read the same JPEG files in one process and run a ResNet-50 of random weights at 224 pixels in evaluation
mode. Plain transformers is its fast image processor and `ResNetModel`; plain torchvision is the transforms of its own
weights and `resnet50`. "forward only" leaves the images out, so that the network can be told from the input.
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peers import STAGES
from pictures import DATA, photographs
from report import Report, Table, clock_for, interleaved, parser_of, ratio, spread

SIZE = 224


def ours(folder: Path, network: Any, batch: int, device: str) -> Callable[[], Any]:
    """`extract_features`, as `ladder evaluate` and `ladder embed` use it."""
    from ladder_training.data.sources import load_image_stream
    from ladder_training.evaluation.backbone import ImageSettings, load_backbone
    from ladder_training.evaluation.features import extract_features
    from ladder_training.evaluation.image_transforms import CenterTransform

    backbone, transform = load_backbone(network, device), CenterTransform(ImageSettings(SIZE))
    dataset = load_image_stream(folder)
    words = {"image_column": "image", "label_column": None, "split": "train", "batch_size": batch, "device": device}
    return lambda: extract_features(backbone, dataset, transform, **words)


def plain_transformers(files: list[Path], network: Any, batch: int, device: str) -> Callable[[], Any]:
    """Pillow, transformers' image processor, and `ResNetModel`."""
    from PIL import Image
    from transformers import ConvNextImageProcessor, ResNetModel

    model = ResNetModel(network.config).to(device).eval()
    processor = ConvNextImageProcessor(size={"shortest_edge": SIZE}, crop_pct=0.875)

    @torch.inference_mode()
    def run() -> None:
        for first in range(0, len(files), batch):
            images = [Image.open(file).convert("RGB") for file in files[first : first + batch]]
            pixels = processor(images, return_tensors="pt")["pixel_values"].to(device)
            model(pixels).pooler_output.flatten(1).cpu()

    return run


def plain_torchvision(files: list[Path], batch: int, device: str) -> Callable[[], Any]:
    """Pillow, the transforms of torchvision's weights, and its `resnet50`."""
    import torchvision
    from PIL import Image

    model = torchvision.models.resnet50().to(device).eval()
    model.fc = torch.nn.Identity()
    transform = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms()

    @torch.inference_mode()
    def run() -> None:
        for first in range(0, len(files), batch):
            images = [transform(Image.open(file).convert("RGB")) for file in files[first : first + batch]]
            model(torch.stack(images).to(device)).cpu()

    return run


def forward_only(network: Any, count: int, batch: int, device: str) -> Callable[[], Any]:
    """The same network on pixels that are there already."""
    pixels = torch.randn(batch, 3, SIZE, SIZE, device=device)
    model = network.to(device).eval()

    @torch.inference_mode()
    def run() -> None:
        for _ in range(0, count, batch):
            model(pixel_values=pixels).feature_maps[-1].mean(dim=(2, 3)).cpu()

    return run


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--photos", type=Path, default=DATA / "photos")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.quick:
        options.count, options.rounds, options.batch_size = 8, 1, 4
    from transformers import ResNetBackbone, ResNetConfig

    report = Report("features", options)
    torch.manual_seed(0)
    network = ResNetBackbone(ResNetConfig(out_features=STAGES))
    images, what = photographs(options.photos, options.count)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number:05d}.jpg" for number in range(options.count)]
        for number, file in enumerate(files):
            file.write_bytes(images[number % len(images)])
        batch, device = options.batch_size, options.device
        work = {
            "forward only": forward_only(network, len(files), batch, device),
            "ladder": ours(Path(folder), network, batch, device),
            "plain transformers": plain_transformers(files, network, batch, device),
            "plain torchvision": plain_torchvision(files, batch, device),
        }
        clock, time_of = clock_for(device)
        seconds = interleaved(work, options.rounds, clock)
    rows = {
        name: {
            "images/s": options.count / statistics.median(times),
            "range": spread([options.count / own for own in times], ".1f"),
            "x transformers": 1 / ratio(seconds, name, "plain transformers"),
        }
        for name, times in seconds.items()
    }
    title = f"features of ResNet-50 at {SIZE} on {options.device}, batch {batch}, {what}"
    title += f"; {options.rounds} rounds, {time_of}"
    report.add(Table(title, {"images/s": ".1f", "range": "", "x transformers": ".2f"}, rows))
    report.finish()


if __name__ == "__main__":
    main()
