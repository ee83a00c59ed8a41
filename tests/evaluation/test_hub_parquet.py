"""The hub's `datasets` schema gives the same questions as the official files."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prism_tune.errors import UserError
from prism_tune.evaluation.benchmark import fingerprint_questions, open_questions
from prism_tune.evaluation.benchmarks import BENCHMARKS
from prism_tune.evaluation.image_references import extract

IMAGE = {"bytes": b"\x89PNG", "path": "i.png"}
ROWS = {
    "pope": {"question_id": "1", "question": "Is there?", "answer": "no", "category": "popular"},
    "mme": {"question_id": "OCR/1.png", "question": "Is it? Please answer yes or no.",
            "answer": "Yes", "category": "OCR"},
    "scienceqa": {"question": "Which?", "choices": ["x", "y"], "answer": 1, "hint": "",
                  "subject": "natural science"},
    "vizwiz": {"question_id": "VizWiz_val_00000000", "question": "What IS it?",
               "answers": ["a cup"] * 10, "category": "other"},
    "mmbench": {"index": 5, "question": "Which?", "hint": "nan", "A": "x", "B": "y", "C": "nan",
                "D": "nan", "answer": "B", "category": "c", "L2-category": "l", "split": "dev"},
    "mmvet": {"question_id": "v1_0", "question": "What?", "answer": "x<OR>y",
              "capability": "rec,know"},
    "textvqa": {"image_id": "f1", "question_id": 34602, "question": "what Brand?",
                "answers": ["x"] * 10, "ocr_tokens": ["A", "b"]},
    "vqav2": {"question_id": 9, "question": "What?", "answer_type": "other",
              "question_type": "what", "answers":
              [{"answer": "x", "answer_confidence": "yes", "answer_id": 1}]},
    "seed_bench": {"question_id": "101", "question": "How?", "choice_a": "a", "choice_b": "b",
                   "choice_c": "c", "choice_d": "d", "answer": "D", "data_type": "image",
                   "data_id": "1", "question_type_id": 1},
    "llava_bench": {"question_id": 3, "question": "What?", "category": "conv", "caption": "A cup.",
                    "gpt_answer": "A cup."},
}  # fmt: skip
EXPECTED = {
    "pope": (20000001, "Is there?\nAnswer the question using a single word or phrase.", "no"),
    "mme": ("OCR/1.png", "Is it?\nAnswer the question using a single word or phrase.", "yes"),
    "scienceqa": ("0", "Which?\nA. x\nB. y\nAnswer with the option's letter from the given choices "
                  "directly.", "B"),
    "vizwiz": (0, "What is it?\nWhen the provided information is insufficient, respond with "
               "'Unanswerable'.\nAnswer the question using a single word or phrase.",
               ["a cup"] * 10),
    "mmbench": (5, "Which?\nA. x\nB. y\nAnswer with the option's letter from the given choices "
                "directly.", "B"),
    "mmvet": ("v1_0", "What?", "x<OR>y"),
    "textvqa": ("f1", "what Brand?\nReference OCR token: A, b\nAnswer the question using a single "
                "word or phrase.", ["x"] * 10),
    "vqav2": (9, "What?\nAnswer the question using a single word or phrase.", ["x"]),
    "seed_bench": ("101", "How?\nA. a\nB. b\nC. c\nD. d\nAnswer with the option's letter from the "
                   "given choices directly.", "D"),
    "llava_bench": (3, "What?", "A cup."),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ROWS))
def test_rows_become_questions_with_a_reference_to_their_image(name, tmp_path):
    path = tmp_path / "data" / "test-00000-of-00001.parquet"
    path.parent.mkdir()
    pq.write_table(pa.Table.from_pylist([{**ROWS[name], "image": IMAGE}]), path)
    for source in (path, tmp_path):
        (question,) = BENCHMARKS[name].load_questions(source, "llava15")
        assert (question.question_id, question.text, question.reference) == EXPECTED[name]
        assert question.images == (f"parquet:{path.resolve()}#0#image",)


@pytest.mark.parametrize("name", list(ROWS))
def test_a_snapshot_in_the_hubs_cache_is_read_wherever_it_lies(name, tmp_path):
    """Its files are links to blobs, which lie outside the folder."""
    blob = tmp_path / "blobs" / "1f"
    blob.parent.mkdir()
    pq.write_table(pa.Table.from_pylist([{**ROWS[name], "image": IMAGE}]), blob)
    found = []
    for folder in (tmp_path / "snapshots" / "a", tmp_path / "b"):
        folder.mkdir(parents=True)
        (folder / "data.parquet").symlink_to(blob)
        for source in (folder, folder / "data.parquet"):
            questions = open_questions(BENCHMARKS[name], source, "llava15")
            found.append(fingerprint_questions(questions, source))
            (image,) = questions[0].images
            assert extract([image], tmp_path / "images") != {image: None}
    assert len(set(found)) == 1


def test_a_row_without_image_is_text_only(tmp_path):
    rows = [{**ROWS["scienceqa"], "image": IMAGE}, {**ROWS["scienceqa"], "image": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    questions = BENCHMARKS["scienceqa"].load_questions(tmp_path, "llava15")
    assert [bool(question.images) for question in questions] == [True, False]


def test_missing_columns_and_broken_files_are_named(tmp_path):
    pq.write_table(pa.table({"question": ["q"]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t.parquet: no key 'question_id'; found question"):
        BENCHMARKS["pope"].load_questions(tmp_path, "llava15")
    (tmp_path / "t.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match="not a readable parquet file"):
        BENCHMARKS["pope"].load_questions(tmp_path, "llava15")


@pytest.mark.parametrize("name", list(ROWS))
def test_of_a_whole_dataset_only_the_benchmarks_split_counts(name, tmp_path):
    table = pa.Table.from_pylist([{**ROWS[name], "image": IMAGE}])
    split = {"mmbench": "dev", "textvqa": "validation", "vqav2": "validation", "vizwiz": "val",
             "llava_bench": "train"}.get(name, "test")  # fmt: skip
    other = "testdev" if split == "train" else "train"
    pq.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    (tmp_path / other).mkdir()
    pq.write_table(table, tmp_path / other / "0000.parquet")
    (question,) = BENCHMARKS[name].load_questions(tmp_path, "llava15")
    assert f"{split}-00000-of-00001.parquet#0#image" in question.images[0]


def put(name, *places):
    """A file of one row at each place."""
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        row = {**ROWS[name], "image": IMAGE}
        pq.write_table(pa.Table.from_pylist([row]), place)


def test_of_a_snapshot_what_is_named_after_no_split_does_not_count(tmp_path):
    """lmms-lab/POPE: one split, and the same questions again in files of other names."""
    put("pope", tmp_path / "data/test-00000-of-00001.parquet")
    put("pope", tmp_path / "Full/adversarial-00000-of-00001.parquet")
    (question,) = BENCHMARKS["pope"].load_questions(tmp_path, "llava15")
    assert "/data/test-" in question.images[0]


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("scienceqa", ["ScienceQA-FULL/test-0.parquet", "ScienceQA-IMG/test-0.parquet"]),
        ("mmbench", ["cn/dev-0.parquet", "en/dev-0.parquet", "en/test-0.parquet"]),
        ("mmbench", ["cn/dev/0000.parquet", "en/dev/0000.parquet"]),
        ("mmbench", ["cn/0000.parquet", "en/0000.parquet"]),
    ],
)
def test_several_configurations_are_not_mixed(name, places, tmp_path):
    put(name, *(tmp_path / place for place in places))
    first, second = (place.split("/")[0] for place in places[:2])
    told = f"in several folders, which are different data: {first}, {second}; name one of them"
    with pytest.raises(UserError, match=told):
        BENCHMARKS[name].load_questions(tmp_path, "llava15")
    assert len(BENCHMARKS[name].load_questions(tmp_path / second, "llava15")) == 1


def test_configurations_that_make_up_a_benchmark_are_read_together(tmp_path):
    """GQA's questions and images, beside those that are not balanced; MMMU's subjects."""
    for kind in ("all", "balanced"):
        folder = tmp_path / "gqa" / f"testdev_{kind}_instructions"
        row = {"id": "1", "question": "Is it?", "answer": "yes", "imageId": "n1"}
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([row]), folder / "testdev-0.parquet")
        folder = tmp_path / "gqa" / f"testdev_{kind}_images"
        folder.mkdir()
        pq.write_table(pa.table({"id": ["n1"], "image": [b"x"]}), folder / "testdev-0.parquet")
    (question,) = BENCHMARKS["gqa"].load_questions(tmp_path / "gqa", "llava15")
    assert "testdev_balanced_images" in question.images[0]
    for subject in ("Art", "Math"):
        row = {"id": f"validation_{subject}_1", "question": "What?", "options": "['x', 'y']",
               "answer": "A", "question_type": "multiple-choice"}  # fmt: skip
        for split in ("dev", "validation"):
            place = tmp_path / "mmmu" / subject / f"{split}-00000-of-00001.parquet"
            place.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist([row]), place)
    questions = BENCHMARKS["mmmu"].load_questions(tmp_path / "mmmu", "llava15")
    assert [question.category for question in questions] == ["Art", "Math"]


def test_other_splits_alone_are_refused(tmp_path):
    table = pa.Table.from_pylist([{**ROWS["scienceqa"], "image": IMAGE}])
    for split in ("train", "validation"):
        pq.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    with pytest.raises(UserError, match="the splits train, validation; expected those of test"):
        BENCHMARKS["scienceqa"].load_questions(tmp_path, "llava15")
