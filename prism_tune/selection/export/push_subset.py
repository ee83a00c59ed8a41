"""A shared subset on the hub: its hashes and ids, and a dataset card that says what they are.

In: a run folder and the file that `shared_subset.export_subset` wrote. Out: one commit to a dataset
repository, which is made where there is none. No record's text and no image is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from prism_tune.config.hub_ids import name_publicly
from prism_tune.errors import UserError, first_line
from prism_tune.run.folder import RunDir, read_object
from prism_tune.run.stage import Stage

logger = logging.getLogger(__name__)

_CARD = jinja2.Template(
    """\
---
tags: [prism_tune, data-selection, visual-instruction-tuning]
configs:
- config_name: default
  data_files: {{ file }}
---

# {{ "{:,}".format(num_selected) }} of {{ "{:,}".format(num_pool) }} records of {{ pool }}

Which records of a visual-instruction pool to tune on, as prism_tune's `{{ scorer }}` chose them: a
hash of the content of each record of the pool, whether it was kept, and the ids of those kept. No
text and no images: make the subset from your own copy of the pool.

```bash
prism-tune subset verify {{ file }} --records YOUR_COPY_OF_THE_POOL --to {{ subset }}
```

| | |
|---|---|
| scorer | `{{ scorer }}`, keeps {{ keep }} |
| budget | {{ cut }}, {{ scope }}, seed {{ seed }} |
| model | {{ model }} |
{% if reader -%}
| evidence is read from | {{ reader }} |
{% endif -%}
| subset's SHA-256 | `{{ subset_sha256 }}` |
| pool's fingerprint | `{{ pool_fingerprint }}` |

| source | kept | of |
|---|---:|---:|
{% for source, counts in sources -%}
| {{ source }} | {{ "{:,}".format(counts.kept) }} | {{ "{:,}".format(counts.total) }} |
{% endfor -%}
""",
    keep_trailing_newline=True,
)


def push_subset(run: RunDir, shared: Path, repository: str, *, private: bool) -> None:
    """Send a shared subset and its card.

    Args:
        run: the run folder that it is of.
        shared: the file.
        repository: `owner/name`.
        private: of a repository that has to be made.

    Raises:
        UserError: no token, or the hub refuses or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HFValidationError, HTTPError

    token = get_token()
    if token is None:
        raise UserError(
            f"{repository}: no token for the hub; `hf auth login` keeps one, or set HF_TOKEN to "
            "one that may write"
        )
    api = HfApi(token=token)
    card = describe_subset(run, shared.name)
    try:
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.create_commit(
            repository,
            [
                CommitOperationAdd("README.md", card.encode()),
                CommitOperationAdd(shared.name, str(shared)),
            ],
            commit_message=f"Subset of run {run.root.name}",
            repo_type="dataset",
        )
    except (HTTPError, HFValidationError, OSError) as error:
        reason = first_line(error).replace(token, "***")
        raise UserError(
            f"{repository}: the hub did not take the subset ({type(error).__name__}: {reason}); "
            f"check the name, the network, and that the token may write. {shared} is written"
        ) from None
    logger.info("%s: %s and its card are on the hub (dataset)", repository, shared.name)


def describe_subset(run: RunDir, file: str) -> str:
    """The dataset card of a run's subset, in Markdown."""
    config = Stage(run.selection).config()
    assert config is not None  # the subset has been exported
    manifest: dict[str, Any] = read_object(run.selection / "manifest.json")
    return _CARD.render(
        manifest,
        file=file,
        subset=run.subset.name,
        pool=name_publicly(config.data.records),
        model=name_publicly(config.model.path),
        scorer=config.selection.scorer,
        scope=config.selection.scope,
        seed=config.seed,
        reader=_name_reader(manifest.get("reference")),
        sources=manifest["per_source"].items(),
    )


def _name_reader(reference: Mapping[str, Any] | None) -> str:
    """The model that evidence was read from, where it is not the target."""
    if reference is None:
        return ""
    tuned = "with a LoRA" if reference["adapter"] else "as it is"
    how = "warmed up on some of the pool" if reference["warmup"] else tuned
    return f"{name_publicly(reference['model'])}, {how}"
