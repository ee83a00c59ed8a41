"""Fetching from the hub (replaced by a function that serves rows), and what is said by hand."""

import io

import datasets
import huggingface_hub
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled
from PIL import Image

from prism_tune.config.sections import Config
from prism_tune.errors import UserError
from prism_tune.evaluation import fetch
from prism_tune.evaluation.benchmarks import BENCHMARKS
from prism_tune.evaluation.benchmarks.mmmu_answers import DOMAINS
from prism_tune.evaluation.check_data import find_all
from prism_tune.evaluation.data_sources import DATA_SOURCES
from prism_tune.evaluation.language.benchmarks import LANGUAGE_BENCHMARKS
from prism_tune.evaluation.language.tasks import find_split_files
from prism_tune.run.folder import read_json


class Hub:
    """Serves one row per split, and remembers what was asked for."""

    def __init__(self):
        self.asked = []
        self.fail_after = None

    def snapshot_download(self, hub_id, *, repo_type, allow_patterns):
        assert (repo_type, allow_patterns) == ("dataset", ["README.md"])
        return "/cache/snapshots/abc123"

    def load_dataset(self, hub_id, configuration, *, split, revision):
        if self.fail_after is not None and len(self.asked) >= self.fail_after:
            raise OfflineModeIsEnabled("no network")
        self.asked.append((hub_id, configuration, split, revision))
        content = io.BytesIO()
        Image.new("RGB", (4, 4), "red").save(content, format="PNG")
        rows = {
            "index": [5], "question": ["Which?"], "hint": ["nan"], "A": ["x"], "B": ["y"],
            "C": ["nan"], "D": ["nan"], "answer": ["B"], "category": ["c"], "L2-category": ["l"],
            "image": [{"bytes": content.getvalue(), "path": None}],
        }  # fmt: skip
        return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())


@pytest.fixture
def hub(monkeypatch):
    served = Hub()
    monkeypatch.setattr(datasets, "load_dataset", served.load_dataset)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", served.snapshot_download)
    return served


def test_what_is_fetched_is_what_the_benchmark_reads(hub, tmp_path):
    fetch.fetch_benchmark("mmbench", tmp_path)
    assert hub.asked == [("lmms-lab/MMBench", "en", "dev", "abc123")]
    (question,) = BENCHMARKS["mmbench"].load_questions(tmp_path, "llava15")
    assert (question.question_id, question.reference) == (5, "B")
    assert question.images == (f"parquet:{tmp_path.resolve()}/dev.parquet#0#image",)
    record = read_json(tmp_path / "source.json")
    assert record["hub_id"] == "lmms-lab/MMBench"
    assert record["revision"] == "abc123"
    assert record["files"]["dev.parquet"]["num_rows"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dev.parquet", "source.json"]


def test_a_fetch_that_was_cut_off_goes_on_where_it_stopped(hub, tmp_path):
    hub.fail_after = 1
    with pytest.raises(UserError, match=r"cais/mmlu cannot be fetched from the hub \(Offline"):
        fetch.fetch_benchmark("mmlu", tmp_path)
    hub.fail_after = None
    fetch.fetch_benchmark("mmlu", tmp_path)
    fetch.fetch_benchmark("mmlu", tmp_path)
    assert [split for _, _, split, _ in hub.asked] == ["test", "dev"]
    assert set(find_split_files("mmlu", tmp_path)) == {"test", "dev"}


def test_what_a_killed_fetch_left_is_removed_by_the_next(hub, tmp_path):
    left = tmp_path / ".dev.parquet.fetch-a8f_x0q1"
    left.mkdir()
    fetch.fetch_benchmark("mmbench", tmp_path)
    assert not left.exists()


def test_a_damaged_file_is_fetched_again(hub, tmp_path):
    fetch.fetch_benchmark("mmbench", tmp_path)
    (tmp_path / "dev.parquet").write_bytes(b"torn")
    fetch.fetch_benchmark("mmbench", tmp_path)
    assert len(hub.asked) == 2
    assert len(BENCHMARKS["mmbench"].load_questions(tmp_path, "llava15")) == 1


def test_each_subject_of_mmmu_is_a_file(hub, tmp_path):
    fetch.fetch_benchmark("mmmu", tmp_path)
    assert len(list(tmp_path.glob("validation-*.parquet"))) == 30
    subjects = {name for members in DOMAINS.values() for name in members.split()}
    assert set(DATA_SOURCES["mmmu"].hub.configurations) == subjects


def test_without_network_the_message_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"lmms-lab/POPE cannot be fetched from the hub \(") as told:
        fetch.fetch_benchmark("pope", tmp_path)
    assert "cocodataset.org" in str(told.value)
    assert "copy" in str(told.value)


def test_an_error_of_no_words_is_named_by_its_type(hub, tmp_path, monkeypatch):
    def time_out(*_, **__):
        raise TimeoutError

    monkeypatch.setattr("datasets.load_dataset", time_out)
    with pytest.raises(UserError, match=r"cannot be fetched .* \(TimeoutError: TimeoutError\)"):
        fetch.fetch_benchmark("pope", tmp_path)


@pytest.mark.parametrize("name", ["mme", "mmvet"])
def test_what_has_to_be_fetched_by_hand_is_said_with_its_address(name, hub, tmp_path):
    with pytest.raises(UserError, match=r"Fetch by hand:\n.*https://github.com/") as caught:
        fetch.fetch_benchmark(name, tmp_path)
    assert f"-> {tmp_path}/" in str(caught.value)
    assert hub.asked == []


def test_a_folder_of_another_dataset_is_not_mixed(hub, tmp_path):
    fetch.fetch_benchmark("mmbench", tmp_path)
    with pytest.raises(UserError, match=r"source.json: of lmms-lab/MMBench"):
        fetch.fetch_benchmark("pope", tmp_path)


def test_another_language_of_the_same_dataset_is_not_taken_for_it(hub, tmp_path):
    """Both are files named dev.parquet of one hub id."""
    folder = tmp_path / "mmbench"
    fetch.fetch_benchmark("mmbench", folder)
    told = r"of lmms-lab/MMBench en, and mmbench_cn is lmms-lab/MMBench cn; give --to another"
    with pytest.raises(UserError, match=told) as caught:
        fetch.fetch_benchmark("mmbench_cn", folder)
    config = read_config(mmbench=folder / "e.tsv", mmbench_cn=folder / "cn.tsv", pope=folder)
    advised = {state.name: state.detail for state in find_all(config)}
    for name in ("mmbench_cn", "pope"):
        beside = tmp_path / name
        ending = (f"`prism-tune data {name} --to {beside}`, then "
                  f"evaluation.data.{name}.annotations={beside}")  # fmt: skip
        assert advised[name].endswith(ending)
    assert f"`prism-tune data mmbench --to {folder}`" in advised["mmbench"]
    assert str(caught.value).endswith(f"for example {tmp_path / 'mmbench_cn'}")
    fetch.fetch_benchmark("mmbench_cn", tmp_path / "mmbench_cn")
    assert [asked[1] for asked in hub.asked] == ["en", "cn"]


def read_config(**annotations):
    data = {name: {"annotations": str(path)} for name, path in annotations.items()}
    sections = {"model": {"path": "m"}, "data": {"records": "p"}, "evaluation": {"data": data}}
    return Config.model_validate({"name": "x", **sections})


def test_every_benchmark_has_a_source_and_other_names_are_refused(tmp_path):
    assert set(DATA_SOURCES) == {*BENCHMARKS, *LANGUAGE_BENCHMARKS} - {"quickstart"}
    for name, benchmark in LANGUAGE_BENCHMARKS.items():
        assert DATA_SOURCES[name].hub.splits == benchmark.splits
    with pytest.raises(UserError, match="did you mean 'mmmu'"):
        fetch.fetch_benchmark("mmmuu", tmp_path)
    with pytest.raises(UserError, match="prism-tune prepare"):
        fetch.fetch_benchmark("quickstart", tmp_path)
