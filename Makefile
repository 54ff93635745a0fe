# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Every command of this repository. `make help` lists them; CI calls `make test` and nothing else.
# Runs as root on a bare Debian 12 with git, make and Python 3.11; everything else comes from package registries.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# The full path: a version manager's shim on PATH costs 0.2 s per call.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3.11 /usr/bin/python3) python3)
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
LINKS := .build/links
TREE := ansible_collections/crosscluster/migration
DIST := build/dist
INSTALLED := build/collections
STARTED := $(shell date +%s.%N)

# What is on the machine is used; only what is missing is installed. tests/lab says what each is for.
PACKAGES := qemu-system-x86 qemu-utils openssh-server openssh-client iproute2 nftables tcc python3-venv \
	openssl procps util-linux kmod

# For hosts of the lab that are Debian 13 (tests/lab/trees.py); no part of the demo.
TREE_PACKAGES := mmdebstrap e2fsprogs

# To catch a worker between a write and its fsync (tests/crash/unsynced.py); no part of the demo.
CRASH_PACKAGES := strace

export PYTHONDONTWRITEBYTECODE := 1
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/$(LINKS)
export ANSIBLE_HOME := $(CURDIR)/.ansible
export PATH := $(CURDIR)/$(BIN):$(PATH)

PYTEST := $(PY) -m pytest
REPORT = --junit-xml=build/reports/$@.xml
# The files of the product and its tests, as git knows them (new ones included, ignored ones not).
SOURCES := $(shell git ls-files --cached --others --exclude-standard 2>/dev/null | tr ' ' '?')
# What goes into the tarball: everything that galaxy.yml does not ignore.
PRODUCT := $(wildcard $(filter galaxy.yml README.md CHANGELOG.rst COPYING plugins/% roles/% playbooks/% meta/% examples/% docs/% changelogs/% LICENSES/%,$(SOURCES)))
# Rewritten only when the list changes, so that a removed file makes a new tarball too.
$(shell mkdir -p .build; cmp -s .build/product - <<<'$(PRODUCT)' || echo '$(PRODUCT)' >.build/product)

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9_-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- setting up -----------------------------------------------------------------------------------------------------

define install-missing
	@missing=(); for name in $(1); do \
	  [ "$$(dpkg-query -W -f '$${db:Status-Status}' $$name 2>/dev/null)" = installed ] || missing+=($$name); done; \
	if [ $${#missing[@]} -gt 0 ]; then \
	  echo "installing: $${missing[*]}"; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq; \
	  apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 "$${missing[@]}" >/dev/null; \
	fi
endef

.PHONY: packages
packages: ## Install the Debian packages that are missing
	$(call install-missing,$(PACKAGES))

.PHONY: packages-trees
packages-trees: packages
	$(call install-missing,$(TREE_PACKAGES))

.PHONY: packages-crash
packages-crash: packages
	$(call install-missing,$(CRASH_PACKAGES))

$(VENV)/.stamp-demo: requirements-demo.txt meta/ee-requirements.txt | packages
	@[ -x $(PY) ] || $(PYTHON) -m venv $(VENV)
	@echo "installing $<"; $(PY) -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(VENV)/.stamp-dev: requirements-dev.txt $(VENV)/.stamp-demo
	@echo "installing $<"; $(PY) -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# A collection is no package of pip: tests/dependencies.py takes it out of one.
$(LINKS)/.stamp: requirements-collections.txt tests/dependencies.py | $(VENV)/.stamp-demo
	@mkdir -p $(LINKS)
	@$(PY) tests/dependencies.py $(LINKS)
	@touch $@

.PHONY: venv
venv: $(VENV)/.stamp-dev links $(LINKS)/.stamp ## Virtual environment with every tool (.venv)

.PHONY: links
links: $(LINKS)/$(TREE) ## Link tree in which Python and Ansible find the collection by its name

# Relative, so that the checkout can be moved.
$(LINKS)/$(TREE):
	@mkdir -p $(dir $@)
	@ln -sfn ../../../.. $@

.PHONY: build
build: $(DIST)/.stamp ## Collection tarball in build/dist

$(DIST)/.stamp: $(PRODUCT) .build/product galaxy.yml | $(VENV)/.stamp-demo
	@mkdir -p $(DIST); rm -f $(DIST)/*.tar.gz
	@ansible-galaxy collection build --force --output-path $(DIST) . | tail -n 1
	@touch $@

# Without what galaxy.yml depends on: only the role certificates needs it, and the demo does not use that.
.PHONY: install
install: $(INSTALLED)/.stamp ## The tarball installed into build/collections, as a user would

$(INSTALLED)/.stamp: $(DIST)/.stamp
	@rm -rf $(INSTALLED); mkdir -p $(INSTALLED)
	@ANSIBLE_COLLECTIONS_PATH=$(CURDIR)/$(INSTALLED) \
	  ansible-galaxy collection install --offline --force --no-deps -p $(INSTALLED) $(DIST)/*.tar.gz >/dev/null
	@touch $@

# --- the lab --------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: packages $(VENV)/.stamp-demo install ## Two clusters, a real guest, one playbook: see a VM move (about 5 minutes at first)
	@ANSIBLE_COLLECTIONS_PATH=$(CURDIR)/$(INSTALLED) CROSSCLUSTER_DEMO_STARTED=$(STARTED) \
	  PYTHONPATH=tests $(PY) -m lab.demo up

.PHONY: demo-down
demo-down: ## Remove every trace of the demo
	@PYTHONPATH=tests $(firstword $(wildcard $(PY)) $(PYTHON)) -m lab.demo down

.PHONY: lab-up
lab-up: packages $(VENV)/.stamp-demo links ## Start a lab: clusters alpha and beta
	@PYTHONPATH=tests $(PY) tests/lab/cli.py up

.PHONY: lab-down
lab-down: ## Stop the labs of this checkout
	@PYTHONPATH=tests $(firstword $(wildcard $(PY)) $(PYTHON)) tests/lab/cli.py down

# --- tests ----------------------------------------------------------------------------------------------------------

# Here, or two lanes would install packages at the same time.
.PHONY: test
test: packages-trees venv ## Everything CI runs; ends with a line of counts
	@$(PY) tests/suite.py

.PHONY: house
house: venv ## The house rules: imports, names, mirrored tests
	@$(PYTEST) $(REPORT) tests/unit/test_house.py

.PHONY: lint
lint: lint-python lint-yaml lint-reuse lint-changelog lint-ansible lint-docs ## Every static check but the types

.PHONY: lint-python
lint-python: venv
	@ruff check .
	@ruff format --check --quiet . || { ruff format --diff --quiet . | head -n 60; echo 'cure: make format'; exit 1; }

.PHONY: lint-yaml
lint-yaml: venv
	@yamllint --strict .

.PHONY: lint-reuse
lint-reuse: venv
	@reuse lint --quiet || { reuse lint --lines; exit 1; }

.PHONY: lint-changelog
lint-changelog: venv
	@antsibull-changelog lint

# In the link tree, or its own modules are unknown to it.
.PHONY: lint-ansible
lint-ansible: venv
	@cd $(LINKS)/$(TREE) && ansible-lint --offline --nocolor -q

.PHONY: lint-docs
lint-docs: venv
	@antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs all .

.PHONY: types
types: venv ## mypy: rooms strictly, as Python 3.9
	@MYPYPATH=$(LINKS) $(PY) -m mypy --config-file .mypy.ini

.PHONY: format
format: venv ## Rewrite the Python files in the one format
	@ruff check --fix-only --quiet . || true
	@ruff format --quiet .

.PHONY: unit
unit: venv ## Unit tests: no sockets to the world, no sleep
	@$(PYTEST) $(REPORT) tests/unit --ignore tests/unit/test_house.py

.PHONY: conformance
conformance: venv ## The recorded conversations against the client's codec and the lab; CAPTURES=dir: every file of it
	@$(if $(CAPTURES),$(PY) tests/conformance/run.py --captures $(CAPTURES),$(PYTEST) $(REPORT) tests/conformance)

.PHONY: conformance-slow
conformance-slow: venv ## Every recorded conversation against the lab, waits over a minute in real time
	@$(PY) tests/conformance/run.py --slow $(if $(CAPTURES),--captures $(CAPTURES))

.PHONY: topologies
topologies: packages venv ## Networks made of namespaces: what looks private and is not is found (root)
	@$(PYTEST) $(REPORT) tests/topologies

.PHONY: pairs
pairs: packages venv ## What two real QEMUs say to each other and to us, without a lab
	@$(PYTEST) $(REPORT) -m 'not mixed' tests/pairs

.PHONY: sanity
sanity: venv ## ansible-test sanity in a copied tree, without any ignore file
	@$(PY) tests/sanity.py

.PHONY: e2e
e2e: e2e-certified e2e-bare measuring ## Migrations of real guests between two clusters of the lab

# What takes no notice of other load, in two halves that can run beside each other, each with a lab of its own: only the
# nodes of one get certificates.
CERTIFIED := $(addprefix tests/e2e/test_,certificates.py direct*.py integration_targets.py)
QUICK := not measuring and not mixed and not slow

.PHONY: e2e-certified
e2e-certified: packages venv
	@$(PYTEST) $(REPORT) -m '$(QUICK)' $(CERTIFIED)

.PHONY: e2e-bare
e2e-bare: packages venv
	@$(PYTEST) $(REPORT) -m '$(QUICK)' $(CERTIFIED:%=--ignore-glob '$(CURDIR)/%') tests/e2e

.PHONY: measuring
measuring: packages-trees venv ## Bounds of the guest's pauses, of queues and memory; nothing else may run meanwhile
	@$(PYTEST) $(REPORT) -m 'measuring and not slow' tests/e2e

.PHONY: e2e-slow
e2e-slow: packages-trees venv ## End-to-end tests that take longer: pacing at every rate, every death and silence
	@$(PYTEST) $(REPORT) -m slow tests/e2e

.PHONY: mixed
mixed: packages-trees venv ## Moves between Debian 12 and 13 hosts, and under systemd (makes a Debian 13 tree at first)
	@$(PYTEST) $(REPORT) -m 'mixed and not measuring and not slow' tests/pairs tests/e2e

.PHONY: molecule
molecule: packages venv ## The scenarios of extensions/molecule but nested, on the lab or on CROSSCLUSTER_INVENTORY
	@molecule test --scenario-name default --scenario-name certificates --scenario-name trusted_network
	@molecule test --scenario-name transports

.PHONY: test-nested
test-nested: packages-trees venv ## The scenario nested: a guest moves between two virtual machines (up to half an hour)
	@molecule test --scenario-name nested

.PHONY: crash
crash: packages-crash venv ## Every crash case on real QEMU (up to an hour, resumable; build/crash.json)
	@PYTHONPATH=tests $(PY) -m crash

.PHONY: crash-few
crash-few: packages venv
	@$(PYTEST) $(REPORT) tests/crash

.PHONY: bench
bench: packages venv ## Measure against the goals (build/bench.json)
	@PYTHONPATH=tests:$(LINKS) $(PY) -m bench

.PHONY: bench-transports
bench-transports: packages venv ## The direct transports against QEMU to QEMU (build/bench-transports.json; OPTIONS=--help)
	@PYTHONPATH=tests:$(LINKS) $(PY) -m bench.transports $(OPTIONS)

.PHONY: docs
docs: venv ## HTML documentation in build/docs
	@$(PY) -m pip install --quiet --disable-pip-version-check sphinx sphinx-ansible-theme
	@rm -rf build/docs; mkdir -p build/docs
	@antsibull-docs sphinx-init --use-current --dest-dir build/docs --squash-hierarchy --lenient crosscluster.migration
	@cd build/docs && ./build.sh

# --- cleaning -------------------------------------------------------------------------------------------------------

.PHONY: clean
clean: ## Remove what was built (labs first); the virtual environment stays
	@[ ! -f tests/lab/cli.py ] || $(MAKE) --no-print-directory lab-down || true
	@rm -rf build .build .ansible tests/output .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: distclean
distclean: clean ## clean, and the virtual environment too
	@rm -rf $(VENV)

.DELETE_ON_ERROR:
