# A fresh clone needs only Python >= 3.11: every target installs what it needs into .venv, once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_DIR ?= runs/demo
TEST_WORKERS ?= auto
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The stamps are newer than the files that say what is to be installed, or the install runs again.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

.PHONY: install demo test test-slow test-lowest test-newest lint types format dist clean distclean types-links docs docs-serve
.DEFAULT_GOAL := install

install: $(INSTALLED)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch and torchvision are resolved in one go, because they only work as a matching pair.
$(INSTALLED): setup.py pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) --editable .
	touch $@

$(INSTALLED_DEV): setup.py pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) --editable '.[dev]'
	touch $@ $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/ladder demo $(DEMO_DIR)

test: $(INSTALLED_DEV) lint
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile -m "not slow" --durations=20

test-slow: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile -m slow --durations=20

# The fast tests with the lowest versions that setup.py allows, and with the newest ones, each in a folder of its own
# (about 7 GB). The newest Python: make test-newest PYTHON=python3.13
UV_OF = $(1)/bin/python -m uv pip
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	mkdir -p build
	$(call UV_OF,.venv-lowest) compile --quiet --python .venv-lowest/bin/python --resolution lowest-direct \
		--extra timm --extra onnx --extra explore pyproject.toml --output-file build/lowest.txt
	$(call UV_OF,.venv-lowest) install --python .venv-lowest/bin/python --constraint build/lowest.txt --editable '.[dev]'
	PATH="$(CURDIR)/.venv-lowest/bin:$$PATH" .venv-lowest/bin/python -m pytest -n $(TEST_WORKERS) --dist loadfile -m "not slow"

test-newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(call UV_OF,.venv-newest) install --python .venv-newest/bin/python --upgrade --editable '.[dev]'
	PATH="$(CURDIR)/.venv-newest/bin:$$PATH" .venv-newest/bin/python -m pytest -n $(TEST_WORKERS) --dist loadfile -m "not slow"

lint: $(INSTALLED_DEV) types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy finds a package by the name of its folder, and `training` is imported as `ladder_training`: give it links of that name.
TYPED := modeling_ladder:modeling_ladder ladder_model_cards:model_cards ladder_training:training
types-links:
	mkdir -p build/types
	for pair in $(TYPED); do ln -sfn "../../$${pair#*:}" "build/types/$${pair%%:*}"; done

types: $(INSTALLED_DEV) types-links
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32  # nothing that Windows lacks is called there

# The documentation as a site, in build/site; `make docs-serve` shows it while you write.
docs: $(INSTALLED_DEV) types-links
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-serve: $(INSTALLED_DEV) types-links
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

# The sdist first, then the wheel from it: what the sdist lacks, the wheel would lack too.
dist: $(INSTALLED_DEV)
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .

format: $(INSTALLED_DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The installed packages too: the next target downloads them again.
distclean: clean
	rm -rf $(VENV) *.egg-info
