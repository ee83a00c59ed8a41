"""Packaging of prism_tune: `pip install -e '.[dev,eval]'`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "prism_tune/__init__.py").read_text()).group(1)

QUICKSTART = ["gguf>=0.13", "onnx>=1.16"]  # read the embedded default model's source files
EVAL = ["lm-eval>=0.4.13"]
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.5"]  # the site: `make docs`
DEV = [
    "axe-playwright-python>=0.1.4",  # carries axe-core
    "fastapi>=0.110",  # with openai and uvicorn: `transformers serve`, which a test asks
    "hypothesis>=6.100",
    "mypy>=1.10",
    "ninja",
    "openai>=1.98",
    "playwright>=1.45",
    "pre-commit>=3.7",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.6",
    "setuptools>=68",  # builds the wheel that a test looks into
    "uvicorn>=0.30",
]

setup(
    name="prism_tune",
    version=VERSION,
    description="Visual instruction tuning with built-in, training-free data selection (PRISM).",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # configs/ is where people read presets; installed, it is a folder of the package.
    packages=[*find_packages(include=["prism_tune", "prism_tune.*"]), "prism_tune.configs"],
    package_dir={"prism_tune.configs": "configs"},
    package_data={
        "prism_tune": ["py.typed", "*.pyi"],
        "prism_tune.configs": ["**/*.yaml", "**/*.json"],
        "prism_tune.quickstart": ["aligned/*"],
        "prism_tune.report": ["templates/*", "assets/*"],
    },
    install_requires=[
        # No upper bound: it would take a user's newer torch away from their torchvision.
        "torch>=2.6",
        "transformers>=5.24,<6",  # 5.23 lost the first space of a tokenizer.model beside a LLaVA
        "accelerate>=1.10",
        "deepspeed>=0.19.8",  # the first that can train twice in one process
        "peft>=0.18",
        "datasets>=4",
        "safetensors>=0.5",
        "sentencepiece>=0.2",  # tokenizers that come as tokenizer.model alone (Vicuna)
        "protobuf>=5.27",  # by which transformers reads these
        "pillow>=11",
        "wandb>=0.20",
        "numpy>=2.0",
        "orjson>=3.10",
        "pyarrow>=17",
        "omegaconf>=2.3",
        "pydantic>=2.9",  # before, a count in a union with a fraction was written as a float
        "typer>=0.19",
        "rich>=13.7",
        "packaging>=24",
        "jinja2>=3.1.6",
        "plotly>=5.22",
        "openpyxl>=3.1",
        "faiss-cpu>=1.9",
        "scipy>=1.11",
    ],
    extras_require={
        "quickstart": QUICKSTART,
        "eval": EVAL,
        "dev": DEV + QUICKSTART,
        "docs": DOCS,
    },
    entry_points={"console_scripts": ["prism-tune = prism_tune.cli.app:main"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
