"""The model card of a tuned model: what it was made of, what it scored, what it cost.

In: a run folder. Out: Markdown with the hub's header. Everything stands in the run's own records;
paths of this machine are left out.
"""

from __future__ import annotations

from typing import Any

import jinja2

from prism_tune import __version__
from prism_tune.config.hub_ids import name_publicly
from prism_tune.report.numbers import number
from prism_tune.results.columns import num_digits, scale_of
from prism_tune.results.runs import FinishedRun
from prism_tune.run.folder import RunDir
from prism_tune.run.timings import read_timings

_STAGES = ("audit", "selection", "training", "evaluation")
_CARD = jinja2.Template(
    """\
---
library_name: transformers
pipeline_tag: image-text-to-text
{% if base_id %}base_model: {{ base_id }}
{% endif -%}
tags: [prism_tune, visual-instruction-tuning, data-selection]
---

# {{ name }}

{{ base }}, tuned ({{ tuning }}, seed {{ seed }}) on {{ records }} by prism_tune {{ version }}.

| | |
|---|---|
{% for key, value in facts -%}
| {{ key }} | {{ value }} |
{% endfor %}
{% for fault in faults -%}
**Not as recorded**: {{ fault }}.

{% endfor -%}
## Results
{% if results %}
| benchmark | metric | value | questions |
|---|---|---:|---:|
{% for row in results -%}
| {{ row.benchmark }} | {{ row.metric }} | {{ row.value }} | {{ row.number }} |
{% endfor -%}
{% else %}
None: {{ "these weights were" if stale else "this run was" }} not evaluated.
{% endif -%}
{% if stale %}
Left out, for it was of other weights of this run: {{ stale | join(", ") }}.
{% endif %}
## Cost

| stage | device | device-seconds |
|---|---|---:|
{% for row in costs -%}
| {{ row.stage }} | {{ row.device }} | {{ "{:,.0f}".format(row.seconds) }} |
{% endfor %}
Metered by the stages themselves, resumed attempts included.
""",
    keep_trailing_newline=True,
)


def write_model_card(run: RunDir) -> str:
    """The card of the model that the run has tuned.

    Raises:
        UserError: not a run folder, or records of it that cannot be read.
    """
    found = FinishedRun(run)
    config, manifest = found.config, found.manifest
    base = name_publicly(config.model.path)
    records = f"the whole of {name_publicly(config.data.records)}"
    facts: list[tuple[str, Any]] = [("prompt template", f"`{config.model.template}`")]
    if found.is_selected and manifest is not None:
        chosen = f"{manifest['num_selected']:,} of {manifest['num_pool']:,} records"
        records = f"{chosen} of {name_publicly(config.data.records)}"
        facts += [
            ("selected by", f"`{config.selection.scorer}`, {config.selection.scope}"),
            ("subset's SHA-256", f"`{manifest.get('subset_sha256', 'n/a')}`"),
            ("pool's fingerprint", f"`{manifest.get('pool_fingerprint', 'n/a')}`"),
        ]
    return _CARD.render(
        name=run.root.resolve().name,
        base=base,
        base_id=base if "/" in config.model.path and base == config.model.path else "",
        tuning=config.training.tuning,
        seed=config.seed,
        records=records,
        version=__version__,
        facts=facts,
        faults=found.stale_stages,
        results=list(_list_results(found)),
        stale=found.stale_results,
        costs=_list_costs(run),
    )


def _list_results(found: FinishedRun) -> list[dict[str, Any]]:
    """The first metric of each benchmark that these weights were evaluated on."""
    listed = []
    for name, result in sorted(found.results.items()):
        if name in found.stale_results or not result.metrics:
            continue
        metric, value = next(iter(result.metrics.items()))
        shown = number(value, 1 + num_digits(scale_of(result)))
        listed.append(
            {"benchmark": name, "metric": metric, "value": shown, "number": result.num_examples}
        )
    return listed


def _list_costs(run: RunDir) -> list[dict[str, Any]]:
    entries = read_timings(run)
    rows = []
    for stage in _STAGES:
        own = [entry for entry in entries if entry["stage"].partition("/")[0] == stage]
        if own:
            seconds = sum(entry["device_seconds"] for entry in own)
            rows.append({"stage": stage, "device": own[-1]["device"], "seconds": seconds})
    return rows
