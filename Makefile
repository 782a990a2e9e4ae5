# Set-up, tests and linter. `make setup PYTHON=python3.12 VENV=somewhere` chooses the interpreter and the folder.
VENV ?= .venv
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
PIP = $(VENV)/bin/python -m pip install --only-binary :all:

.PHONY: setup test lint format

setup:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10 to 3.13 on the path: install one, or name it: make setup PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt -r requirements-dev.txt -c constraints.txt
	$(PIP) --no-deps -r requirements-mmpose.txt

test:
	$(VENV)/bin/python -m pytest

lint:
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format:
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
