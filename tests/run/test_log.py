"""A run's log.txt: begins when a stage begins, with what led to it."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

from prism_tune.run.folder import RunDir
from prism_tune.run.log import open_log, setup_logging
from prism_tune.run.timings import StageTimer

LOGGER = logging.getLogger("prism_tune")


@pytest.fixture
def logged():
    """Logging as the verbs set it up; taken down afterwards."""
    propagate = LOGGER.propagate
    setup_logging()
    yield logging.getLogger("prism_tune.somewhere")
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
        handler.close()
    LOGGER.propagate = propagate


def test_a_stage_that_begins_opens_the_log_with_what_led_to_it(tmp_path, logged):
    run = RunDir(tmp_path / "trial")
    logged.info("selection: runs again (changed: seed)")
    assert not run.root.exists()
    with StageTimer(run, "selection", fingerprint="a", device="cpu"):
        logged.info("scoring")
    first, second = run.log.read_text().splitlines()
    assert first.startswith("[rank 0] ")
    assert first.endswith("selection: runs again (changed: seed)")
    assert second.endswith("scoring")


def test_the_next_run_of_a_process_has_a_log_of_its_own(tmp_path, logged):
    open_log(tmp_path / "a" / "log.txt")
    logged.info("of a")
    open_log(tmp_path / "b" / "log.txt")
    logged.info("of b")
    setup_logging()
    logged.info("of neither")
    for name in ("a", "b"):
        (line,) = (tmp_path / name / "log.txt").read_text().splitlines()
        assert line.endswith(f"of {name}")


def test_as_a_library_nothing_is_logged_to_a_file(tmp_path):
    with StageTimer(RunDir(tmp_path), "selection", fingerprint="a", device="cpu"):
        logging.getLogger("prism_tune.somewhere").info("scoring")
    assert not (tmp_path / "log.txt").exists()


def test_what_libraries_have_to_tell_one_another_is_not_for_the_console(monkeypatch):
    """`-W` brings it back."""
    for options, seen in (([], ["mine"]), (["default"], ["theirs", "mine"])):
        monkeypatch.setattr(sys, "warnoptions", options)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            setup_logging()
            for text, module in (("theirs", "transformers.modeling_utils"), ("mine", "my_plugin")):
                warnings.warn_explicit(text, FutureWarning, "x.py", 1, module=module)
        assert [str(warning.message) for warning in caught] == seen
