# `make demo` and `make test` work on a fresh machine with Python 3.11 or newer.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
SEEDS ?= 2
OUT ?= demo-run/$(shell date +%Y%m%d-%H%M%S)
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Side by side, as tests/conftest.py groups them.
PYTEST = $(VENV)/bin/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-fast faults check format clean

demo: $(VENV)/.installed
	$(VENV)/bin/fedai demo --out $(OUT)

# The ways out of fedai come last: with Ignite and MLflow there, each process that imports MONAI takes seconds more.
EXPORTS = tests/fedai/test_bundles.py tests/fedai/test_exports.py tests/fedai/test_mlflow.py tests/fedai/test_tensorboard.py \
  tests/server/test_following.py tests/sites/test_bundle_images.py

test: $(VENV)/.installed-dev
	$(PYTEST)
	$(PIP) -e ".[dev,bundle,mlflow,onnx,tensorboard]"
	$(PYTEST) $(EXPORTS)

# Everything but the tests that start real SuperLink and agent processes.
test-fast: $(VENV)/.installed-dev
	$(PYTEST) -m "not federation and not faults and not slow"

# Every way to kill, cut, freeze or starve a part of a federation that is tested, each with so many seeds; minutes
# for each seed. Prints a table and writes it to fault-table.json. Then what is slow for other reasons.
faults: $(VENV)/.installed-dev
	FEDAI_FAULT_SEEDS=$(SEEDS) FEDAI_FAULT_TABLE=fault-table.json \
		$(VENV)/bin/python -m pytest tests/faults -m "faults or not faults" -v
	$(PYTEST) -m slow

check: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo-run build dist
