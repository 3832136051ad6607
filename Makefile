PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
REVISION ?= 0001_decision_engine
TEST_ARGS ?=
WORKERS ?= 2
PACKAGES := cli client migrations sql worker

.PHONY: setup demo test bench lint docs lock freeze clean

setup: $(READY)

$(READY): pyproject.toml requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit("pgrisk needs Python 3.11 or newer; name one with make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	@rm -f $@
	@if command -v uv >/dev/null 2>&1; then \
	  set -e; export UV_PYTHON_DOWNLOADS=never; \
	  test -x $(BIN)/python || uv venv --quiet --clear --python "$$(command -v $(PYTHON))" $(VENV); \
	  uv pip install --quiet --python $(BIN)/python -r requirements/dev.txt; \
	  uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	else \
	  set -e; test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV); \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	fi
	@touch $@

demo: $(READY)
	@$(BIN)/pgrisk demo

# The second run is the same suite, with fewer random histories, on the oldest PostgreSQL that pgrisk
# supports.
test: $(READY)
	PGRISK_TEST_POSTGRES=18 $(BIN)/python -m pytest -n $(WORKERS) --maxschedchunk 1 --cov $(TEST_ARGS)
	PGRISK_TEST_POSTGRES=16 PGRISK_RUNS=100 $(BIN)/python -m pytest -n $(WORKERS) --maxschedchunk 1 $(TEST_ARGS)

bench: $(READY)
	$(BIN)/python -m tests.bench

# mypy sees the folders under the name that the wheel gives them.
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/typings/pgrisk
	@for package in $(PACKAGES); do ln -sfn ../../../$$package build/typings/pgrisk/$$package; done
	$(BIN)/mypy
	$(BIN)/squawk migrations/versions/*.sql

# Rewrites docs/sql.md from the comments in sql/.
docs: $(READY)
	$(BIN)/python -m tests.sql_reference

# Re-pins requirements/ to the newest versions that pyproject.toml allows (needs uv).
lock:
	uv pip compile --upgrade --universal --python-version 3.11 --no-emit-index-url --no-annotate \
	  --no-header --quiet pyproject.toml -o requirements/runtime.txt
	uv pip compile --upgrade --universal --python-version 3.11 --no-emit-index-url --no-annotate \
	  --no-header --quiet pyproject.toml --group dev -o requirements/dev.txt

# Copies sql/ into an unreleased revision; a released revision is never edited.
freeze: $(READY)
	$(BIN)/python -m pgrisk.migrations freeze $(REVISION)

clean:
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* *.egg-info
