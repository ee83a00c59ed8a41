"""What is sent to the hub, and what is said where nothing can be: no network in any test."""

from __future__ import annotations

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled
from typer.testing import CliRunner

from prism_tune.cli.app import app
from prism_tune.errors import UserError
from prism_tune.run.fingerprints import fingerprint_file
from prism_tune.run.folder import RunDir
from prism_tune.run.stage import Stage
from prism_tune.selection.finished import Subset
from prism_tune.selection.select import select

TOKEN = "hf_secret"


class Hub:
    """Stands in for `HfApi` at its boundary, and keeps what it is asked for."""

    def __init__(self):
        self.calls = []
        self.refusal = None

    def __call__(self, *, token):
        self.token = token
        return self

    def create_repo(self, repository, **options):
        if self.refusal is not None:
            raise self.refusal
        self.calls.append((repository, options))

    def create_commit(self, repository, operations, **options):
        self.files = {item.path_in_repo: item.path_or_fileobj for item in operations}
        self.calls.append((repository, options))


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    return hub


@pytest.fixture
def push(published_run, tmp_path):
    """Calls the verb; the file is `ids.parquet`."""

    def call(*more):
        to = ("--to", tmp_path / "ids.parquet", "--push-to-hub", "me/subset")
        arguments = ("subset", "export", published_run.root, *to, *more)
        return CliRunner().invoke(app, list(map(str, arguments)))

    return call


@pytest.fixture
def select_again(published_run, tmp_path):
    """The run's selection with other settings, in a folder of its own."""

    def call(**settings):
        config = Stage(published_run.selection).config()
        selection = config.selection.model_copy(update=settings)
        update = {"output_dir": str(tmp_path), "selection": selection}
        run = RunDir(tmp_path / config.name)
        select(config.model_copy(update=update), run)
        return run

    return call


def test_hashes_and_a_card_are_sent(hub, push, published_run, tmp_path):
    done = push("--private")
    assert done.exit_code == 0, done.output
    assert hub.calls == [
        ("me/subset", {"repo_type": "dataset", "private": True, "exist_ok": True}),
        ("me/subset", {"repo_type": "dataset", "commit_message": "Subset of run published"}),
    ]
    assert hub.token == TOKEN
    assert hub.files.keys() == {"README.md", "ids.parquet"}
    assert hub.files["ids.parquet"] == str(tmp_path / "ids.parquet")
    assert pq.read_table(tmp_path / "ids.parquet").schema.field("hash").type == pa.binary(8)
    card = hub.files["README.md"].decode()
    assert "\n# 15 of 27 records of pool.json\n" in card
    assert "\n| budget | 50.0% of the image records, per_source, seed 0 |\n" in card
    assert f"\n| subset's SHA-256 | `{fingerprint_file(published_run.subset)}` |\n" in card
    assert "\n| shape | 9 | 17 |\n" in card
    assert "prism-tune subset verify ids.parquet --records" in card


def test_the_card_is_one_that_the_hub_reads(hub, push):
    push()
    card = huggingface_hub.DatasetCard(hub.files["README.md"].decode())
    assert card.data.configs == [{"config_name": "default", "data_files": "ids.parquet"}]
    assert "prism_tune" in card.data.tags


def test_nothing_of_this_machine_is_sent(hub, push, published_run, tmp_path):
    """No folder's name, of model or pool or run; no text of a record."""
    push()
    sent = hub.files["README.md"] + (tmp_path / "ids.parquet").read_bytes()
    sent += pq.read_schema(tmp_path / "ids.parquet").metadata[b"prism_tune.subset"]
    assert str(published_run.root.parent).encode() not in sent
    assert str(tmp_path.parent).encode() not in sent
    assert b"<image>" not in sent


def test_no_setting_names_a_place_on_this_machine(hub, select_again, published_run, tmp_path):
    """Files and folders that a selection reads are called by their last name."""
    folder = tmp_path / "clients" / "acme"
    folder.mkdir(parents=True)
    (folder / "drop.txt").write_text(f"{Subset(published_run).ids[-1]}\n")
    run = select_again(must_drop=str(folder / "drop.txt"), budget_of="rows", budget=0.4)
    Subset(run).push_to_hub("me/subset")
    shared = next(iter(hub.files.keys() - {"README.md"}))
    header = pq.read_schema(hub.files[shared]).metadata[b"prism_tune.subset"]
    assert b"acme" not in header + hub.files["README.md"]
    assert b'"must_drop":"drop.txt"' in header
    assert (
        b"\n| budget | 40.0% of the rows, must drop drop.txt, per_source, seed 0 |\n"
        in (hub.files["README.md"])
    )


def test_a_further_budget_is_not_shared_as_the_runs_own(hub, select_again):
    run = select_again(budgets=(0.2,))
    with pytest.raises(UserError, match=r"own budget alone, and 0\.2 is a further one"):
        Subset(run).at(0.2).push_to_hub("me/subset")
    assert hub.calls == []


def test_without_a_token_one_line_says_what_to_do(hub, push, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    refused = push()
    assert isinstance(refused.exception, UserError)
    assert str(refused.exception) == (
        "me/subset: no token for the hub; `hf auth login` keeps one, or set HF_TOKEN to one that "
        "may write"
    )
    assert hub.calls == []


def test_a_refusal_is_one_line_without_the_token(hub, push, caplog):
    hub.refusal = OfflineModeIsEnabled(f"cannot reach it with {TOKEN}\nmore")
    refused = push()
    assert "OfflineModeIsEnabled: cannot reach it with ***)" in str(refused.exception)
    assert TOKEN not in str(refused.exception) + refused.output + caplog.text


def test_records_are_not_pushed(hub, push):
    assert "leave out --as" in str(push("--as", "trl").exception)
    assert hub.calls == []
