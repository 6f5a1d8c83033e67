# A fresh clone needs only Python >= 3.10: every target installs what it needs into .venv, once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_DIR ?= runs/demo
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The stamps are newer than the files that say what is to be installed, or the install runs again.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

.PHONY: install demo test test-slow lint format clean distclean
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
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -m slow

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED_DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The installed packages too: the next target downloads them again.
distclean: clean
	rm -rf $(VENV) *.egg-info
