"""The paper's printed rows against our Rel."""

import pytest

from prism_tune.errors import UserError
from prism_tune.results import paper
from prism_tune.results.build import build_table
from prism_tune.results.columns import COLUMN_SETS
from prism_tune.results.scores import paper_relative


def _rel(table, key, columns):
    return paper_relative(table.row(key), table, COLUMN_SETS[columns].columns)


@pytest.mark.parametrize("key", ["random", "prism", "full"])
def test_vision_flan_is_reproduced_to_the_digit(key):
    row = paper.VISIONFLAN.row(key)
    assert round(_rel(paper.VISIONFLAN, key, "visionflan"), 1) == row.printed_rel


def test_vision_flan_values():
    assert _rel(paper.VISIONFLAN, "random", "visionflan") == pytest.approx(94.1088, abs=1e-4)
    assert _rel(paper.VISIONFLAN, "prism", "visionflan") == pytest.approx(100.9149, abs=1e-4)


def test_the_main_rows_ten_columns_give_101_95_not_the_printed_101_7():
    assert _rel(paper.MAIN, "prism", "llava") == pytest.approx(101.9506, abs=1e-4)
    assert paper.MAIN.row("prism").printed_rel == 101.7
    text = build_table("main", [], baseline=None)
    assert "the mean over the ten columns it prints is 101.95" in text


def test_ablation_rows_lie_up_to_0_8_below_print_and_never_above():
    gaps = [
        row.printed_rel - _rel(paper.ABLATION, row.key, "ablation")
        for row in paper.ABLATION.rows
        if row.key != "prism"
    ]
    assert [round(gap, 1) for gap in gaps] == [0.5, 0.8, 0.1, 0.8]


def test_every_printed_cell_is_a_column_of_its_table():
    tables = {"llava": paper.MAIN, "ablation": paper.ABLATION, "visionflan": paper.VISIONFLAN}
    tables["selectors"] = paper.SELECTORS
    for columns, table in tables.items():
        labels = {column.label for column in COLUMN_SETS[columns].columns}
        assert all(row.cells.keys() <= labels for row in table.rows)


def test_vision_flan_table_as_printed():
    table = build_table("visionflan", [], baseline=None)
    assert table.splitlines()[2:7] == [
        "| Method         | Run          |       Kept | VizWiz | SQA-I | TextVQA | POPE |  MME-P "
        "| MMBench |  Rel. | Rel. printed |",
        "|----------------|--------------|-----------:|-------:|------:|--------:|-----:|-------:"
        "|--------:|------:|-------------:|",
        "| Random         | paper: PRISM | 57K / 186K |   38.8 |  56.5 |    46.9 | 83.1 | 1175.0 "
        "|    48.9 |  94.1 |         94.1 |",
        "| PRISM          | paper: PRISM | 57K / 186K |   42.3 |  61.1 |    50.8 | 84.1 | 1275.5 "
        "|    53.1 | 100.9 |        100.9 |",
        "| Full fine-tune | paper: ICONS |        all |   41.7 |  60.8 |    50.4 | 83.4 | 1263.2 "
        "|    52.6 | 100.0 |        100.0 |",
    ]


def test_selection_studies_have_ten_columns_and_llavas_own_rows():
    assert [c.label for c in COLUMN_SETS["selectors"].scored] == [
        "VQAv2", "GQA", "VizWiz", "SQA-I", "TextVQA", "POPE", "MME-P", "MMBench", "MMBench-CN",
        "LLaVA-W",
    ]  # fmt: skip
    assert all(len(row.cells) == 10 for row in paper.SELECTORS.rows)
    lines = build_table("selectors", [], baseline=None).splitlines()
    assert [cell.strip() for cell in lines[4].split("|")[1:-1]] == [
        "LLaVA-1.5-7B", "paper: LLaVA-1.5", "all", "78.5", "62.0", "50.0", "66.8", "58.2", "85.9",
        "1510.7", "64.3", "58.3", "65.4", "100.0", "n/a",
    ]  # fmt: skip


@pytest.mark.parametrize("table", ["ablation", "models", "language"])
def test_the_papers_rows_stand_alone_without_runs(table):
    assert "| paper: PRISM |" in build_table(table, [], baseline=None)


def test_the_main_table_has_all_twelve_methods_each_with_its_study_and_budget():
    lines = build_table("main", [], baseline=None).splitlines()[4:17]
    cells = [[cell.strip() for cell in line.split("|")[1:4]] for line in lines]
    assert cells == [
        ["Random", "paper: PRISM", "30 %"],
        ["Length", "paper: PRISM", "not known"],
        ["EL2N", "paper: PRISM", "not known"],
        ["Perplexity", "paper: PRISM", "not known"],
        ["GraNd", "paper: PRISM", "not known"],
        ["TIVE", "paper: TIVE", "15 % (inferred)"],
        ["InstructionGPT-4", "paper: InstructionGPT-4", "200 of 3,439"],
        ["Self-Filter", "paper: Self-Filter", "not known"],
        ["COINCIDE", "paper: COINCIDE", "20 %"],
        ["ICONS", "paper: ICONS", "20 %"],
        ["DataTailor", "paper: DataTailor", "not known"],
        ["PRISM", "paper: PRISM", "30 %"],
        ["Full fine-tune", "paper: LLaVA-1.5", "all"],
    ]


@pytest.mark.parametrize(
    ("key", "gap"),
    [
        *((key, 0.0) for key in ("random", "clip_score", "perplexity", "semdedup", "d2")),
        *((key, 0.0) for key in ("coincide", "coido", "full lora")),
        ("icons", 0.2),  # 98.6 in its own study, over the same ten columns
        ("self_filter", 0.4),
        ("el2n", 2.1),
    ],
)
def test_the_studies_rows_at_20_percent_are_reproduced_but_where_mm_vet_counts(key, gap):
    row = paper.SELECTORS.row(key)
    assert round(_rel(paper.SELECTORS, key, "selectors") - row.printed_rel, 1) == gap


def test_mme_perception_stands_beside_cognition_and_does_not_count():
    columns = {column.label: column for column in COLUMN_SETS["llava"].columns}
    assert columns["MME-P"].control
    assert "MME-P" not in [column.label for column in COLUMN_SETS["llava"].scored]


def test_without_runs_and_without_the_paper_there_is_nothing():
    with pytest.raises(UserError, match="--no-paper: without --runs there are the paper's rows"):
        build_table("main", [], baseline=None, printed=False)
