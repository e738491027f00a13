# Both targets set up .venv by themselves and may be run again at any time.
PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3,$(shell command -v $(p) 2>/dev/null)))
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check clean

demo: $(VENV)/ready
	$(BIN)/rankopt run studies/quickstart.yaml --workers $(WORKERS)
	@$(BIN)/rankopt report quickstart
	@echo "open reports/quickstart/index.html"

test: check
	$(BIN)/pytest -m "not slow"
	$(BIN)/pytest -m slow

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rankopt needs Python 3.11 or newer, $(PYTHON) is older; say PYTHON=/path/to/python3.11 make"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache runs
