"""Package definition. The folders are mapped to import names that cannot clash with a user's own `training` folder."""

from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
EXAMPLES = HERE / "examples"


def read_version() -> str:
    """Read `__version__` from the package without importing it (importing needs torch)."""
    for line in (HERE / "modeling_ladder" / "__init__.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("modeling_ladder/__init__.py holds no __version__ line")


PACKAGE_DIR = {
    "modeling_ladder": "modeling_ladder",
    "ladder_training": "training",
    "ladder_model_cards": "model_cards",
}


def mapped_packages() -> list[str]:
    """Every package below the mapped folders, under its import name."""
    names = []
    for name, folder in PACKAGE_DIR.items():
        for init in sorted((HERE / folder).rglob("__init__.py")):
            names.append(".".join((name, *init.parent.relative_to(HERE / folder).parts)))
    return names


EXPLORE = ["gradio>=6.0.1", "packaging>=22", "fastapi>=0.110", "uvicorn>=0.29", "faiss-cpu>=1.9"]
NOTEBOOK = ["nbclient>=0.9", "nbformat>=5.7", "ipykernel>=6.25"]
SCREENSHOTS = ["playwright>=1.40", "markdown-it-py>=3"]
DOCS = ["mkdocs>=1.6", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27", *NOTEBOOK, *SCREENSHOTS]
TIMM = ["timm>=1.0.31"]  # earlier ones load no Swin without a classifier, and take its images at one size
ONNX = ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.2"]
EXTRAS = {
    "onnx": ONNX,
    "timm": TIMM,
    "docs": DOCS,
    "explore": [*EXPLORE, "umap-learn>=0.5"],
    "dev": [
        "pytest",
        "pytest-xdist",
        "hypothesis",
        "ruff",
        "mypy>=1.15",
        "types-PyYAML",
        "types-tqdm",
        "build",
        "setuptools>=70",
        "gradio-client>=2",
        "lightly>=1.5",
        *TIMM,
        *DOCS,
        *EXPLORE,
        *ONNX,
    ],
    "benchmarks": ["lightly>=1.5", "byol-pytorch", "albumentations", *TIMM, *ONNX],
}

setup(
    name="ladder-siamese",
    version=read_version(),
    description="Ladder Siamese Network: multi-level BYOL pretraining of image backbones for Hugging Face",
    long_description=(HERE / "README.md").read_text(encoding="utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author="The Ladder Siamese maintainers",
    url="https://arxiv.org/abs/2211.13844",
    project_urls={"Paper": "https://arxiv.org/abs/2211.13844"},
    license_files=["LICENSE"],
    keywords="self-supervised learning, BYOL, Siamese networks, image backbones, transformers",
    python_requires=">=3.11",
    packages=mapped_packages(),
    package_dir=PACKAGE_DIR,
    package_data={
        "modeling_ladder": ["py.typed"],
        "ladder_training": ["py.typed", "recipes/*.yaml", "recipes/**/*.yaml", "exploration/map.html"],
        "ladder_model_cards": ["py.typed", "README.md", "templates/*", "templates/**/*", "backbones/**/*"],
    },
    data_files=[
        ("share/doc/ladder-siamese", ["CITATION.cff", "CHANGELOG.md"]),
        ("share/doc/ladder-siamese/examples", [f"examples/{path.name}" for path in sorted(EXAMPLES.glob("*.py"))]),
    ],
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "transformers>=5.23,<6",
        "datasets>=5.1",  # earlier ones order shards differently when they shuffle
        "huggingface-hub>=1.31",
        "accelerate>=1.3",
        "evaluate>=0.4.6",
        "safetensors>=0.8",
        "numpy>=2.0",
        "scipy>=1.13",
        "opencv-python-headless>=4.11",
        "pillow>=11.3",  # reads AVIF
        "psutil>=5.9",
        "pyyaml>=6",
        "scikit-learn>=1.5",
        "matplotlib>=3.9",
        "faster-coco-eval>=1.6",
        "pyarrow>=24",
        "fsspec>=2024.6",
        "tqdm>=4.66.3",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["ladder=ladder_training.__main__:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
