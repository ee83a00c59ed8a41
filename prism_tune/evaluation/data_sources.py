"""Where each benchmark's data come from: the hub, and what only a person can fetch.

Hub ids and configurations are those of lmms-eval's and lm-eval's task files; official addresses
those of LLaVA's evaluation guide and of the benchmarks' own repositories.
"""

from __future__ import annotations

from dataclasses import dataclass

from prism_tune.evaluation.benchmarks.mmmu import DOMAINS


@dataclass(frozen=True)
class HubData:
    """A dataset of the hub: `splits` of each of its `configurations` (none: its default)."""

    hub_id: str
    splits: tuple[str, ...]
    configurations: tuple[str, ...] = ()


@dataclass(frozen=True)
class ByHand:
    """What a person has to fetch: what it is, where it is, where it goes below the folder."""

    what: str
    address: str
    goes_to: str


@dataclass(frozen=True)
class DataSource:
    """One benchmark's data.

    Attributes:
        hub: None where the licence asks for the official files.
        by_hand: the official files; where there is a hub id too, `reason` says what they are for.
        reason: why by hand.
    """

    hub: HubData | None
    by_hand: tuple[ByHand, ...] = ()
    reason: str = ""


_SUBJECTS = tuple(sorted(name for members in DOMAINS.values() for name in members.split()))

DATA_SOURCES: dict[str, DataSource] = {
    "scienceqa": DataSource(
        hub=HubData("lmms-lab/ScienceQA", ("test",), ("ScienceQA-FULL",)),
        by_hand=(
            ByHand(
                "problems.json, pid_splits.json and images",
                "https://github.com/lupantech/ScienceQA (folder data/scienceqa)",
                "problems.json, pid_splits.json, images/test/<pid>/image.png",
            ),
        ),
        reason="the official files carry the problem ids that LLaVA's answer files use (the hub's "
        "rows have none); CC BY-NC-SA",
    ),
    "vizwiz": DataSource(
        hub=HubData("lmms-lab/VizWiz-VQA", ("val",)),
        by_hand=(
            ByHand(
                "annotations",
                "https://vizwiz.cs.colorado.edu/VizWiz_final/vqa_data/Annotations.zip",
                "val.json, test.json",
            ),
            ByHand("images of val and test", "https://vizwiz.org (VQA)", "val/, test/"),
        ),
        reason="the official test split, whose answers are withheld, is scored by the EvalAI "
        "server alone",
    ),
    "pope": DataSource(
        hub=HubData("lmms-lab/POPE", ("test",)),
        by_hand=(
            ByHand(
                "the version LLaVA pins (8,910 questions)",
                "https://github.com/AoiDragon/POPE/tree/"
                "e3e39262c85a6a83f26cf5094022a782cb0df58d/output/coco",
                "coco/coco_pope_{random,popular,adversarial}.json",
            ),
            ByHand("COCO val2014 images", "https://cocodataset.org (Download)", "val2014/*.jpg"),
        ),
        reason="the hub has 9,000 questions, with which published numbers (8,910) are not "
        "comparable",
    ),
    "mmvet": DataSource(
        hub=None,
        by_hand=(
            ByHand(
                "questions and images (CC BY-NC)",
                "https://github.com/yuweihao/MM-Vet/releases/download/v1/mm-vet.zip",
                "mm-vet.json, images/",
            ),
            ByHand(
                "the judge's prompt, for `prism-tune judge`",
                "https://github.com/yuweihao/MM-Vet (mm-vet_evaluator.py)",
                "mm-vet_evaluator.py",
            ),
        ),
        reason="the official release is one archive",
    ),
    "mmbench": DataSource(
        hub=HubData("lmms-lab/MMBench", ("dev",), ("en",)),
        by_hand=(
            ByHand(
                "the version of LLaVA-1.5 (1,176 questions)",
                "https://download.openmmlab.com/mmclassification/datasets/mmbench/"
                "mmbench_dev_20230712.tsv",
                "mmbench_dev_20230712.tsv",
            ),
        ),
        reason="the hub has the current 1,164 questions, published numbers are of the 1,176",
    ),
    "mme": DataSource(
        hub=None,
        by_hand=(
            ByHand(
                "the release, on application to its authors",
                "https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/"
                "tree/Evaluation",
                "MME_Benchmark_release_version/<category>/",
            ),
        ),
        reason="its licence asks for an application",
    ),
    "mmmu": DataSource(hub=HubData("MMMU/MMMU", ("validation",), _SUBJECTS)),
    "mmlu": DataSource(hub=HubData("cais/mmlu", ("test", "dev"), ("all",))),
    "mmlu_pro": DataSource(hub=HubData("TIGER-Lab/MMLU-Pro", ("test", "validation"))),
    "hellaswag": DataSource(hub=HubData("Rowan/hellaswag", ("validation",))),
    "gsm8k": DataSource(hub=HubData("openai/gsm8k", ("test", "train"), ("main",))),
}
