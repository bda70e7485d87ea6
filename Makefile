# Everything is set up by these targets on a fresh Debian with python3, python3-venv and make.
PYTHON ?= python3
CONFIG ?= config.example.yaml
VENV = .venv
OLDEST = .venv-oldest
PINS = .venv-pins
# Most tests wait for processes of their own, so twice as many workers as cores.
WORKERS ?= 4
PYTEST = pytest --numprocesses $(WORKERS) --dist loadgroup
QUICK = not (slow or servers or daemon)

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(VENV)/run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[postgresql,redis,calendars]'
	touch $@

$(VENV)/test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	touch $@

$(OLDEST)/test: pyproject.toml tests/oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check --constraint tests/oldest.txt --editable '.[test]'
	touch $@

run: $(VENV)/run ## start the daemon in the foreground with config.example.yaml, state in ./var
	$(VENV)/bin/schedulerd --config $(CONFIG)

servers: ## install PostgreSQL and Redis for the tests, when they are missing and we may
	sh tests/install-servers

test: $(VENV)/test servers ## run all tests on the newest libraries
	$(VENV)/bin/$(PYTEST)

test-quick: $(VENV)/test ## run the tests that start no daemon and no server: for the ordinary change
	$(VENV)/bin/$(PYTEST) -m '$(QUICK)'

test-oldest: $(OLDEST)/test servers ## run all tests on the versions of Debian 12
	$(OLDEST)/bin/$(PYTEST)

lint: $(VENV)/test ## style and types
	$(VENV)/bin/ruff check schedulerd tests benchmarks packaging
	$(VENV)/bin/ruff format --check schedulerd tests benchmarks packaging
	$(VENV)/bin/mypy

docs: $(VENV)/test ## rewrite the generated parts of docs/: tables of settings, routes and commands, the picture
	$(VENV)/bin/python packaging/reference.py docs/*.md
	$(VENV)/bin/python packaging/picture.py

pins: ## pin the newest versions, with hashes, for installations with pip: packaging/pinned.txt, pinned-build.txt
	$(PYTHON) -m venv $(PINS)
	$(PINS)/bin/pip install --quiet --disable-pip-version-check uv
	packaging/pin $(PINS)/bin/uv

audit: ## check the pinned versions for known vulnerabilities at OSV (reports when OSV cannot be reached)
	$(PYTHON) packaging/audit.py || [ $$? = 75 ]

sbom: ## write the bill of materials of an installation with pip to dist/ (CycloneDX)
	mkdir -p dist
	$(PYTHON) packaging/sbom.py dist/schedulerd.cdx.json

deb: ## build the Debian package into dist/ (needs what Build-Depends in packaging/debian/control names)
	packaging/build-deb dist

test-deb: $(VENV)/test ## build, install and try the package on Debian 12 and 13 under a real systemd, and all tests on their libraries
	tests/deb/run || [ $$? = 77 ]

test-bare: ## set up, run and test a checkout on bare Debian 12 and 13 roots, where such can be had
	tests/bare || [ $$? = 77 ]

bench: $(VENV)/test ## measure a burst against the bare limit of this machine
	$(VENV)/bin/python benchmarks/burst.py

bench-time: $(VENV)/test ## measure the cost of next times and of a long downtime
	$(VENV)/bin/python benchmarks/next_time.py
	$(VENV)/bin/python benchmarks/downtime.py

bench-cli: $(VENV)/test ## measure the start of schedulerctl against a bare Python
	$(VENV)/bin/python benchmarks/cli_start.py

clean: ## remove what the targets above made
	rm -rf $(VENV) $(OLDEST) $(PINS) var build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help run servers test test-quick test-oldest lint docs pins audit sbom deb test-deb test-bare bench bench-time bench-cli clean
