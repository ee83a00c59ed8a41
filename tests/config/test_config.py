"""Configs: merge order, strictness, and error messages a user can act on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import ValidationError

from prism_tune.config.errors import describe_errors
from prism_tune.config.load import load_config, render_config
from prism_tune.config.sections import Config, Section
from prism_tune.errors import ConfigError

MINIMAL = """
name: trial
model: {path: some/model}
data: {records: pool.json}
"""


@pytest.fixture
def write(tmp_path):
    def write_config(text: str, name: str = "trial.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_config


def error_of(path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_a_section_without_keys_says_so():
    class Nothing(Section):
        pass

    with pytest.raises(ValidationError) as caught:
        Nothing.model_validate({"beta": 1})
    assert describe_errors(caught.value, "x", Nothing) == "x: unknown key `beta`; there are none"


def test_defaults_are_the_papers(write):
    config = load_config(write(MINIMAL))
    selection = config.selection
    assert (selection.scorer, selection.budget, selection.layer) == ("prism", 0.30, 1)
    assert (selection.centering, selection.scope) == ("corpus", "per_source")
    assert (selection.keep, selection.pooling, selection.features) == (None, "mean", "visual")
    assert config.training.tuning == "lora"
    assert config.training.freeze == ("vision_tower",)
    assert config.tracking.wandb is False


def test_base_is_below_the_file_and_the_file_below_overrides(write):
    write(MINIMAL + "selection: {budget: 0.1, layer: 2}\ntraining: {hf: {a: 1, b: 1}}\n", "a.yaml")
    write("base: ../a.yaml\nselection: {layer: 3, keep: high}\n", "sub/b.yaml")
    top = write("base: sub/b.yaml\ntraining: {hf: {b: 2}}\n", "c.yaml")
    config = load_config(top, ["selection.keep=middle", "training.hf.c=2e-5"])
    assert config.selection.budget == 0.1
    assert config.selection.layer == 3
    assert config.selection.keep == "middle"
    assert config.training.hf == {"a": 1, "b": 2, "c": 2e-5}


def test_last_override_wins_and_lists_are_replaced(write):
    path = write(MINIMAL + "evaluation: {benchmarks: [pope, mme]}\n")
    config = load_config(path, ["benchmarks=[mme]", "seed=1", "seed=2"])
    assert config.evaluation.benchmarks == ("mme",)
    assert config.seed == 2


def test_bare_keys_are_completed_where_one_section_knows_them(write):
    path = write(MINIMAL)
    config = load_config(path, ["budget=500", "hf.max_steps=3", "tuning=full"])
    assert config.selection.budget == 500
    assert config.training.hf == {"max_steps": 3}
    assert config.training.tuning == "full"
    assert "unknown key `dtype`" in error_of(path, "dtype=float32")  # in three sections


@pytest.mark.parametrize(
    ("override", "value"),
    [("budget=0.3", 0.3), ("budget=1.0", 1.0), ("budget=1", 1), ("budget=250000", 250000)],
)
def test_budget_is_a_fraction_or_a_count(write, override, value):
    budget = load_config(write(MINIMAL), [override]).selection.budget
    assert budget == value
    assert type(budget) is type(value)


@pytest.mark.parametrize("value", ["1.5", "0", "0.0", "-3", "true", "half", ".nan", ".inf", "null"])
def test_other_budgets_are_refused_in_one_line(write, value):
    message = error_of(write(MINIMAL), f"selection.budget={value}")
    assert message.count("\n") == 0
    assert "`selection.budget` = " in message
    assert message.endswith(": expected a fraction in (0, 1] or a positive count")


def test_message_names_file_key_value_and_what_was_expected(write):
    path = write(MINIMAL + "selection: {budget: 1.5, keep: lowest}\n")
    assert error_of(path).splitlines() == [
        f"{path}: `selection.budget` = 1.5: expected a fraction in (0, 1] or a positive count",
        f"{path}: `selection.keep` = 'lowest': expected 'low', 'middle' or 'high'",
    ]


@pytest.mark.parametrize(
    ("override", "unknown", "nearest"),
    [
        ("selection.budgte=0.1", "selection.budgte", "selection.budget"),
        ("selction.budget=0.1", "selction", "selection"),
        ("budgte=0.1", "budgte", "selection.budget"),
        ("model.image_dir=x", "model.image_dir", "data.image_dir"),
        ("evaluation.data.pope.annotation=x", "evaluation.data.pope.annotation", None),
    ],
)
def test_unknown_key_names_the_nearest_by_its_full_path(write, override, unknown, nearest):
    nearest = nearest or f"{unknown}s"
    message = error_of(write(MINIMAL), override)
    assert f"unknown key `{unknown}`; did you mean `{nearest}`?" in message


@pytest.mark.parametrize("value", ["2024", "1e5", "no"])
def test_a_text_that_yaml_reads_otherwise_wants_quotes(write, value):
    for key in ("name", "model_name"):
        with pytest.raises(ConfigError, match=rf"`{key}` = .*: put it into quotes$"):
            load_config(write(MINIMAL), [f"{key}={value}"])
        assert getattr(load_config(write(MINIMAL), [f"{key}='{value}'"]), key) == value


def test_unknown_key_without_a_near_one_lists_the_known(write):
    message = error_of(write(MINIMAL), "tracking.qqqq=1")
    assert (
        "unknown key `tracking.qqqq`; known keys in `tracking`: wandb, project, entity" in message
    )


def test_missing_values_are_named(write):
    message = error_of(write("name: x\nmodel: {path: '???'}\ndata: {records: p.json}\n"))
    assert "`model.path`: Missing mandatory value" in message
    message = error_of(write("name: x\nmodel: {path: m}\n"))
    assert message.endswith("`data` is missing and has no default")


@pytest.mark.parametrize("rate", ["0", "-1e-5", "true", "fast"])
def test_learning_rates_are_positive_numbers_of_known_parts(write, rate):
    message = error_of(write(MINIMAL), f"training.learning_rates.projector={rate}")
    assert "`training.learning_rates.projector`" in message
    assert "`training.learning_rates.projecter`" in error_of(
        write(MINIMAL), "training.learning_rates.projecter=1e-5"
    )


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "''", "a b"])
def test_a_run_name_cannot_leave_its_folder(write, name):
    message = error_of(write(MINIMAL), f"name={name}")
    assert "`name` = " in message
    assert "expected a folder name" in message


def test_a_circular_base_is_an_error_that_shows_the_circle(write):
    first = write("base: b.yaml\n", "a.yaml")
    write("base: a.yaml\n", "b.yaml")
    message = error_of(first)
    assert "its `base:` leads back to itself" in message
    assert "a.yaml -> " in message
    assert message.endswith("a.yaml")


def test_unreadable_files_are_config_errors(write, tmp_path):
    assert "no such config file" in error_of(tmp_path / "absent.yaml")
    orphan = write("base: gone.yaml\n")
    assert "gone.yaml: no such config file (named as base by " in error_of(orphan)
    assert "cannot be read as YAML" in error_of(write("a: [1\n"))
    assert "cannot be read as YAML" in error_of(tmp_path)
    for text in ("null: 2\n", "name: ${\n"):
        assert "trial.yaml: cannot be read: " in error_of(write(text))
    assert "trial.yaml: `base`: Interpolation key 'nope' not found" in error_of(
        write("base: ${nope}\n")
    )
    assert "expected a mapping of sections" in error_of(write("- a\n- b\n"))
    assert "expected the path of one YAML file" in error_of(write("base: [a.yaml, b.yaml]\n"))
    assert "`output_dir`: Interpolation key 'not_there'" in error_of(
        write(MINIMAL + "output_dir: ${not_there}\n")
    )


@pytest.mark.parametrize("item", ["budget", "=3", "selection.budget=[", "selection.budget={a"])
def test_overrides_that_cannot_be_read_are_config_errors(write, item):
    assert f"override {item!r}" in error_of(write(MINIMAL), item)


def test_rendered_config_loads_back_equal(write, tmp_path):
    path = write(MINIMAL + "training: {hf: {learning_rate: 2e-5, seed: null, report_to: none}}\n")
    config = load_config(path, ["evaluation.data.pope.annotations=x", "freeze=[]"])
    again = write(render_config(config), "resolved.yaml")
    assert load_config(again) == config


def test_infinity_survives_the_saved_config_as_its_word(write):
    """JSON manifests and fingerprints know no infinity: `.inf` would be null in them."""
    options = "{alpha: .inf}"
    text = MINIMAL + f"selection: {{scorer: kernel_prism, options: {options}}}\n"
    text += (
        f"compare: {{selectors: [{{scorer: kernel_prism, options: {options}}}], metrics: [a.b]}}\n"
    )
    config = load_config(write(text))
    assert config.selection.options == {"alpha": "inf"}
    assert load_config(write(render_config(config), "again.yaml")) == config


def test_single_values_of_the_config_are_printed_for_scripts(write):
    config = load_config(write(MINIMAL), ["training.hf.max_steps=3", "benchmarks=[pope]"])
    assert render_config(config, "name") == "trial"
    assert render_config(config, "compare_random") == "false"
    assert render_config(config, "data.prepare") == "null"
    assert render_config(config, "selection.budget") == "0.3"
    assert render_config(config, "training.hf") == '{"max_steps":3}'
    assert render_config(config, "evaluation.benchmarks") == '["pope"]'
    assert render_config(config, "name,seed") == "trial\n0"
    with pytest.raises(ConfigError, match=r"no key `training\.nothing`"):
        render_config(config, "training.nothing")


def test_a_config_is_frozen(write):
    config = load_config(write(MINIMAL))
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="$\\{}", exclude_categories=("Cs", "Cc")))
)
KEYS = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)


@given(st.dictionaries(KEYS, SCALARS | st.lists(SCALARS, max_size=3), max_size=4))
def test_any_training_arguments_survive_the_saved_config(arguments):
    config = Config.model_validate(
        {
            "name": "trial",
            "model": {"path": "m"},
            "data": {"records": "p.json"},
            "training": {"hf": arguments},
        }
    )
    tree = OmegaConf.to_container(OmegaConf.create(render_config(config)))
    assert Config.model_validate(tree) == config
