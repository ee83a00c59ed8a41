"""Where each benchmark's data come from: the hub, and what only a person can fetch.

Hub ids and configurations are those of lmms-eval's and lm-eval's task files; official addresses
those of LLaVA's evaluation guide and of the benchmarks' own repositories.
"""

from __future__ import annotations

from dataclasses import dataclass

from prism_tune.evaluation.benchmarks.mmmu_answers import SUBJECTS


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


def _llava_file(goes_to: str) -> ByHand:
    where = "https://github.com/haotian-liu/LLaVA (docs/Evaluation.md, eval.zip)"
    return ByHand("LLaVA's question files", where, goes_to)


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
    "mmbench_cn": DataSource(
        hub=HubData("lmms-lab/MMBench", ("dev",), ("cn",)),
        by_hand=(
            ByHand(
                "the version of LLaVA-1.5",
                "https://download.openmmlab.com/mmclassification/datasets/mmbench/"
                "mmbench_dev_cn_20231003.tsv",
                "mmbench_dev_cn_20231003.tsv",
            ),
        ),
        reason="published numbers are of that file",
    ),
    "textvqa": DataSource(
        hub=HubData("lmms-lab/textvqa", ("validation",)),
        by_hand=(
            ByHand(
                "annotations",
                "https://dl.fbaipublicfiles.com/textvqa/data/TextVQA_0.5.1_val.json",
                "TextVQA_0.5.1_val.json",
            ),
            _llava_file("textvqa/llava_textvqa_val_v051_ocr.jsonl"),
            ByHand(
                "images",
                "https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip",
                "train_images/*.jpg",
            ),
        ),
        reason="LLaVA's question file has the OCR tokens of its prompts, and its answer files the "
        "images' ids",
    ),
    "gqa": DataSource(
        hub=HubData(
            "lmms-lab/GQA",
            ("testdev",),
            ("testdev_balanced_instructions", "testdev_balanced_images"),
        ),
        by_hand=(
            ByHand(
                "questions and images",
                "https://cs.stanford.edu/people/dorarad/gqa/download.html",
                "testdev_balanced_questions.json, images/*.jpg",
            ),
        ),
        reason="the official files",
    ),
    "vqav2": DataSource(
        hub=HubData("lmms-lab/VQAv2", ("validation",)),
        by_hand=(
            ByHand(
                "questions and annotations of val2014",
                "https://visualqa.org/download.html",
                "v2_OpenEnded_mscoco_val2014_questions.json, v2_mscoco_val2014_annotations.json",
            ),
            _llava_file("vqav2/llava_vqav2_mscoco_{test-dev2015,test2015}.jsonl"),
            ByHand("COCO images", "https://cocodataset.org (Download)", "val2014/ or test2015/"),
        ),
        reason="published numbers are of test-dev, which the EvalAI server scores alone",
    ),
    "seed_bench": DataSource(
        hub=HubData("lmms-lab/SEED-Bench", ("test",)),
        by_hand=(
            ByHand(
                "questions, images, and videos of which one frame each is taken",
                "https://github.com/AILab-CVC/SEED-Bench (DATASET.md)",
                "SEED-Bench.json, SEED-Bench-image/, SEED-Bench-video-image/",
            ),
        ),
        reason="the official files name the question types",
    ),
    "llava_bench": DataSource(
        hub=HubData("lmms-lab/llava-bench-in-the-wild", ("train",)),
        by_hand=(
            ByHand(
                "questions, captions, GPT-4's answers and images",
                "https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild",
                "questions.jsonl, context.jsonl, answers_gpt4.jsonl, images/",
            ),
            ByHand(
                "the judge's prompts, for `prism-tune judge`",
                "https://github.com/haotian-liu/LLaVA (llava/eval/table/rule.json)",
                "rule.json",
            ),
        ),
        reason="the judge needs the captions and GPT-4's answers of the official files",
    ),
    "mmmu": DataSource(hub=HubData("MMMU/MMMU", ("validation",), SUBJECTS)),
    "mmlu": DataSource(hub=HubData("cais/mmlu", ("test", "dev"), ("all",))),
    "mmlu_pro": DataSource(hub=HubData("TIGER-Lab/MMLU-Pro", ("test", "validation"))),
    "hellaswag": DataSource(hub=HubData("Rowan/hellaswag", ("validation",))),
    "gsm8k": DataSource(hub=HubData("openai/gsm8k", ("test", "train"), ("main",))),
}
