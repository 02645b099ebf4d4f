# `make demo`, `make test`, `make check` for its quick part, and `make soak` for hours. Each sets up .venv first, once.
PYTHON := $(or $(shell command -v python3.11),python3)
VENV := .venv
BIN := $(VENV)/bin
# The pip that is there installs into .venv: Debian's venv has none without a further package.
PIP := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check --quiet
# Should one of the processes die, all end: the test that it died in would be tried for ever.
TOGETHER := --numprocesses 2 --dist loadgroup --max-worker-restart 0

.PHONY: demo test check soak site lint lock clean

demo: $(VENV)/installed
	$(BIN)/dinolab run ablations/studies/demo.yaml

test: lint
	$(BIN)/python -m pytest $(TOGETHER)

# Lint, types and the quick tests: what to run before every commit.
check: lint
	$(BIN)/python -m pytest $(TOGETHER) -m "not slow"

# Every kill and fault there is: docs/reliability.md. Called again, the matrix and the last part go on where
# they were.
soak: $(VENV)/installed
	DINOLAB_SOAK=10000 $(BIN)/python -m pytest $(TOGETHER) tests/reliability
	$(BIN)/python -m tests.faults.matrix build/faults
	$(BIN)/python -m tests.faults.soak build/faults-soak
	$(BIN)/python -m tests.reliability.soak build/soak

# docs/ as pages in build/site.
site: $(VENV)/installed
	$(BIN)/python -m mkdocs build

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The lock decides every version; the project itself is installed without asking for more.
$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PIP) install --requirement requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

lock: $(VENV)/installed
	$(PIP) install uv
	$(BIN)/uv pip compile pyproject.toml --extra orchestrator --extra dev --python-version 3.11 --quiet --no-header --no-annotate -o requirements.lock

clean:
	rm -rf $(VENV)
