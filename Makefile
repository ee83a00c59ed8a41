# make test: set up what is needed and run the tests (ARGS="-k config" narrows them down).
# make fast: those that start no process and put no model through a whole stage, for the developer's loop.
# make test-torchvision: what torchvision changes, in an environment of its own that has it.
# make lint: style and types.
# make docs: the documentation as a site, build/site/index.html; a broken link is an error.
# make try-wheel: build the wheel, install it into a fresh environment, run it from an empty folder.
# make release-check: one version everywhere, sdist and wheel built, their metadata, the wheel tried.
# make golden: write the golden losses anew, after a change that is meant to change them.

PRISM_TUNE_VENV ?= .venv
export PRISM_TUNE_VENV
PYTHON = $(PRISM_TUNE_VENV)/bin/python
ARGS ?=
EXTRAS ?= dev,eval
# Test files side by side, one thread each, the slow ones first (tests/conftest.py): else the last one
# runs alone. JOBS=0 runs them one after another, for a debugger.
JOBS ?= auto
PYTEST = OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n $(JOBS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := test
.PHONY: setup test fast test-torchvision torture fuzz lint docs golden format clean try-wheel release-check

setup:
	@bash scripts/setup.sh $(EXTRAS)

test: setup
	@bash scripts/browser.sh || true
	@$(PYTEST) $(ARGS)

fast: setup
	@$(PYTEST) -m "not slow" $(ARGS)

test-torchvision:
	@bash scripts/test_torchvision.sh $(ARGS)

torture: setup
	$(PYTHON) -W ignore tests/support/torture.py $(ARGS)

fuzz: setup
	$(PYTHON) -W ignore tests/support/fuzz.py $(ARGS) 2>/dev/null

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

docs: EXTRAS = dev,eval,docs
docs: setup
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --quiet

try-wheel:
	@bash scripts/try_wheel.sh

release-check: setup
	$(PYTHON) scripts/check_release.py
	@bash scripts/try_wheel.sh
	$(PYTHON) scripts/check_release.py dist
	$(PYTHON) -m pip install --quiet twine
	$(PYTHON) -m twine check --strict dist/*

golden: setup
	PRISM_TUNE_GOLDEN=write OMP_WAIT_POLICY=PASSIVE $(PYTHON) -m pytest tests/training/test_train.py -k golden

format: setup
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
