# Both targets set up .venv by themselves and may be run again at any time.
# the first of these that runs here and is new enough (a version manager's shim may be there and not run)
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
WORKERS ?= 2
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test bench check docs clean

demo: $(VENV)/ready
	$(BIN)/rankopt demo --workers $(WORKERS)

test: check
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m "not slow" --durations=15
	$(BIN)/pytest -n $(JOBS) -m slow --durations=15

# DATA: a folder of GLUE tasks as parquet files; MODEL: a folder with a BERT-shaped encoder. Three hours or more.
# ONLY=methods needs neither.
bench: $(VENV)/ready
	$(BIN)/python tests/bench/bench.py $(if $(DATA),--data $(DATA)) $(if $(MODEL),--model $(MODEL)) $(if $(ONLY),--only $(ONLY))

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the generated parts of studies/README.md
docs: $(VENV)/ready
	$(BIN)/python tests/update_readme.py

$(VENV)/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "rankopt needs Python 3.11 or newer with venv; say: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): some minutes the first time, about 2 GB"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache runs
