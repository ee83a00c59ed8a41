"""Benchmarks of many metrics: all are in the page, those after the first twelve folded."""

from __future__ import annotations

import json
import re

import pytest
from support.table_runs import RunWriter, llava_results, quickstart_result

from prism_tune.report.build import build_report
from prism_tune.report.sections.training import split_results
from prism_tune.run.folder import RunDir

pytestmark = pytest.mark.slow

PHONE = 390
SPLITS = ("random", "popular", "adversarial")
POPE = ["f1", "accuracy"] + [
    f"{name}_{split}"
    for split in SPLITS
    for name in ("f1", "accuracy", "precision", "recall", "yes_ratio")
]


@pytest.fixture
def folders(tmp_path):
    """Two runs on POPE and MME, with POPE's 17 metrics in its own order."""
    pope, mme, _ = llava_results(80.0, 300.0, 60.0)
    pope["metrics"] = {name: 70.0 + k for k, name in enumerate(POPE)}
    mme["notes"] = ["seen"]
    written = [
        RunWriter(tmp_path).write(name, [pope, mme], records="pool", timings=[])
        for name in ("a", "b")
    ]
    return [RunDir(root) for root in written]


def test_the_first_twelve_of_each_benchmark_come_first():
    rows = [*[("pope", str(k)) for k in range(14)], ("mme", "0"), ("mme", "1")]
    first, further = split_results(rows)
    assert (len(first), first[-1]) == (14, ("mme", "1"))
    assert further == [("pope", "12"), ("pope", "13")]


def test_no_metric_is_left_out(folders):
    html = build_report(folders).read_text(encoding="utf-8")
    assert html.count("<summary>Further metrics (5)</summary>") == 2
    for section in ("training", "compare"):
        (found,) = re.findall(rf'<section class="section" id="{section}".*?</section>', html, re.S)
        for place, name in enumerate(POPE):
            assert f"<td>{name}</td>" in found
            assert f"{70.0 + place:.1f}" in found


def test_a_metric_at_a_hundred_per_cent_is_a_dot_without_a_bar(tmp_path):
    result = quickstart_result(20, 5)
    root = RunWriter(tmp_path).write("a", [result], records="pool", timings=[])
    page = build_report([RunDir(root)]).parent
    text = (page / "data" / "training.js").read_text()
    figures = json.loads(text[text.index("= ") + 2 :].strip().removesuffix(";"))["figures"]
    (trace,) = figures["results"]["variants"]["only"]["data"]
    assert trace["x"] == [100.0, 25.0, 62.5]
    assert trace["error_x"]["array"][0] == trace["error_x"]["arrayminus"][0] == 0.0
    assert trace["error_x"]["array"][1] > 0.0


def test_unfolded_it_is_no_wider_than_a_phone(folders, open_page):
    page = open_page(build_report(folders).parent, width=PHONE)
    for summary in page.get_by_text("Further metrics (5)").all():
        summary.click()
    assert page.locator("#training").get_by_text("f1_adversarial").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE
