# Each target sets up what it needs. `make demo` shows a migration, `make test` runs the tests.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# the first Python that is new enough: Debian's own before any other
PYTHON ?= $(shell for python in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := .cache/packages.done
INSTALLED := $(VENV)/installed.done
# files of guests belong to root
NAMESPACE := $(if $(filter 0,$(shell id -u)),,unshare --user --map-root-user)
# one more than there are processors, since tests wait a lot; the tests of a file share what they set up
SIDE_BY_SIDE := --numprocesses=$(shell expr $$(nproc) + 1) --dist=loadfile
# the long files begin first, in the order of tests/conftest.py
LONG_FIRST := $(SIDE_BY_SIDE) --no-loadscope-reorder
AS_ROOT := $(ROOT) env H2K_GUEST_CACHE="$${H2K_GUEST_CACHE:-$(CURDIR)/.cache/guests}" PYTHONDONTWRITEBYTECODE=1

.PHONY: help setup lint audit test unit integration coverage test-python test-long test-kernel test-system test-faults test-power test-mutations fuzz bench bench-repair bench-service screenshots demo demo-guest reference docs release wheel deb rpm lock clean

help: ## list these targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | column -t -s $$'\t'

setup: $(PACKAGES) ## system packages, virtual environment, locked dependencies
	@$(MAKE) $(INSTALLED)

$(PACKAGES): packaging/debian-packages.txt
	@wanted=$$(sed 's/#.*//' $<); \
	states=$$(dpkg-query --show --showformat='$${db:Status-Status}\n' $$wanted 2>&1 || true); \
	if grep -qvx installed <<<"$$states"; then \
		export DEBIAN_FRONTEND=noninteractive; \
		$(ROOT) apt-get update --quiet; \
		$(ROOT) env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends $$wanted; \
	fi
	@mkdir -p $(@D) && touch $@

$(INSTALLED): requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer is not installed' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

lint: $(INSTALLED) ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: setup ## dependencies are as locked, unchanged, and not known to be vulnerable (says so where that cannot be asked)
	$(BIN)/pip check --disable-pip-version-check
	$(BIN)/python -B -m tests.audit

test: setup lint audit unit integration ## lint, types, audit, import directions, unit and integration tests

unit: $(INSTALLED) ## what needs no root, and of the system only git and mtools: about a minute
	$(NAMESPACE) $(BIN)/pytest $(SIDE_BY_SIDE) tests/unit

integration: setup
	$(AS_ROOT) $(BIN)/pytest -p no:cacheprovider $(LONG_FIRST) -m "not slow" tests/integration tests/security tests/guests tests/faults

test-python: $(PACKAGES) ## the unit tests with the Python of another Debian release: SUITE=forky, trixie if not given
	tests/python.sh $(or $(SUITE),trixie) $(SIDE_BY_SIDE)

# No gate. A process that is killed leaves no record, and tests end their daemons so: the daemon's lines are undercounted.
coverage: setup ## lines that the unit tests execute, or TESTS=tests/integration/test_vmdk.py, with their child processes
	$(ROOT) rm -rf .cache/coverage && mkdir -p .cache/coverage && chmod 1777 .cache/coverage
	$(AS_ROOT) COVERAGE_FOLDER="$(CURDIR)/.cache/coverage" $(BIN)/coverage run -m pytest -p no:cacheprovider $(LONG_FIRST) \
		-m "not slow" $(or $(TESTS),tests/unit)
	$(AS_ROOT) $(BIN)/coverage combine --quiet
	$(AS_ROOT) $(BIN)/coverage html --quiet --directory .cache/coverage/html
	$(BIN)/coverage report

# Run it before a release, and when a repair, the boot proof, the copying engine or a reader of disks changes.
test-long: setup ## what `make test` leaves out, since it repeats a check: more guests, formats and cases
	$(AS_ROOT) $(BIN)/pytest -p no:cacheprovider $(LONG_FIRST) -m slow tests/integration tests/security tests/guests \
		tests/system/test_newer_server.py

test-kernel: setup ## the root boundary in a virtual machine whose kernel has NBD and device-mapper
	$(ROOT) $(BIN)/pytest -p no:cacheprovider tests/system/test_kernel.py

test-system: setup ## the package on a Debian server, a virtual machine, from installation to purge
	$(AS_ROOT) $(BIN)/pytest -p no:cacheprovider --durations=0 tests/system/test_server.py

test-faults: setup ## what a service survives: deaths, orders and faults in any sequence; LONG=1 for all of it, in hours
	$(AS_ROOT) LONG=$(LONG) $(BIN)/pytest -p no:cacheprovider $(SIDE_BY_SIDE) tests/faults
ifdef LONG
	$(AS_ROOT) $(BIN)/python -B -m tests.faults.long
endif

test-power: setup ## the power fails at 50 instants of a busy service and of real migrations, on a disk that is recorded write by write
	$(AS_ROOT) LONG=1 $(BIN)/pytest -p no:cacheprovider tests/faults/test_power_loss.py \
		tests/faults/test_power_loss_guests.py

test-mutations: setup ## take each guard away in a copy: the attacks of tests/security must succeed then; half an hour
	$(ROOT) $(BIN)/python -B -m tests.security.mutations $(WORDS)

fuzz: setup ## damage disks, archives, descriptions of machines, YAMLs, NTFS volumes, hives, event logs, drivers and requests: each must be read or refused
	$(BIN)/python -m tests.fuzz.vmdk --count 100000
	$(BIN)/python -m tests.fuzz.foreign --count 20000
	$(BIN)/python -m tests.fuzz.ovf --count 100000
	$(BIN)/python -m tests.fuzz.vmx --count 100000
	$(BIN)/python -m tests.fuzz.texts --count 50000
	$(BIN)/python -m tests.fuzz.archives --count 100000
	$(BIN)/python -m tests.fuzz.hives --count 100000
	$(BIN)/python -m tests.fuzz.event_logs --count 100000
	$(BIN)/python -m tests.fuzz.drivers --count 100000
	$(BIN)/python -m tests.fuzz.requests --count 100000
	H2K_API_EXAMPLES=1000 $(BIN)/pytest tests/integration/test_openapi.py
	$(BIN)/python -m tests.fuzz.ntfs --count 100000
	$(BIN)/python -m tests.fuzz.ntfs --deep --count 2000

bench: setup ## our engine and its rivals side by side: an hour, 45 GB of disk; writes docs/explanation/performance.md
	$(ROOT) $(BIN)/python -B -m bench --markdown $(BENCH)

bench-repair: setup ## how long each broken guest is held open for its repair; writes docs/explanation/performance.md
	$(ROOT) env H2K_GUEST_CACHE="$${H2K_GUEST_CACHE:-$(CURDIR)/.cache/guests}" $(BIN)/python -B -m bench.repair --markdown

bench-service: setup ## commands, status pages and the scrape with 100,000 jobs, and 10,000 files at once, in minutes; writes docs/explanation/performance.md
	$(BIN)/python -B -m bench.service --markdown
	$(BIN)/python -B -m bench.intake --markdown

screenshots: setup ## renew the pictures in docs/images/ that README.md shows
	$(BIN)/pytest -p no:cacheprovider tests/integration/daemon/test_browser.py
	mkdir -p docs/images
	cp .cache/screenshots/overview-1440x900-light.png docs/images/overview.png
	cp .cache/screenshots/job-failed-390x844-dark.png docs/images/job-phone-dark.png

demo: $(PACKAGES) ## a broken VMware guest becomes one that boots, in three minutes
	@$(MAKE) --jobs=2 $(INSTALLED) demo-guest
	@$(BIN)/python -m tests.demo.demo

# needs no virtual environment, so it is built while that is set up
demo-guest: | $(PACKAGES)
	@$(PYTHON) -B -m tests.guests debian12 --subformat streamOptimized >/dev/null

reference: setup ## the generated pages of docs/: errors, guests, keys, commands, exit statuses, keys of hyper2kvm
	$(BIN)/python -B -m hyper2kvmd.catalogue >docs/reference/errors.md
	$(BIN)/python -B -m hyper2kvmd.daemon.openapi >docs/reference/openapi.json
	$(BIN)/python -B -m hyper2kvmd.hyper2kvm_keys >docs/howto/from-hyper2kvm.md
	$(BIN)/python -B -m hyper2kvmd.cli.manual reference docs/reference
	$(BIN)/python -B -m hyper2kvmd.cli.schema docs/reference
	$(BIN)/python -B -m hyper2kvmd.daemon.metrics_page >docs/reference/metrics.md
	$(BIN)/python -B -m tests.guests.support_matrix >docs/reference/guests.md

docs: setup ## the site, into .cache/docs; a warning or a dead link is an error. Links to other sites are listed
	$(BIN)/python -B -m sphinx -q -W --keep-going --doctree-dir .cache/doctrees docs .cache/docs
	@cat .cache/docs/external-links.txt

wheel: setup ## wheel and source archive, into dist/
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/twine check --strict dist/*.whl dist/hyper2kvmd-*.tar.gz

# a chroot is made for a SUITE, and is gone afterwards
deb: setup ## Debian package for this release, or for SUITE=trixie, into dist/; as VERSION=1.2.3, if not that of the sources
ifdef SUITE
	$(ROOT) env VERSION=$(VERSION) mmdebstrap --quiet --mode=root --variant=apt --include=debhelper,dh-apparmor,python3-venv \
		--customize-hook='cd "$(CURDIR)" && packaging/deb.sh "$$1"' $(SUITE) /dev/null
else
	packaging/deb.sh
endif

rpm: setup ## RPM, for a distribution with the Python of this one, into dist/
	packaging/rpm.sh

release: setup ## VERSION=1.2.3: test all, write version and changelog, tag, build everything into dist/
	$(BIN)/python packaging/release.py check "$(VERSION)"
	$(MAKE) test test-long test-system
	$(BIN)/python packaging/release.py tag "$(VERSION)"
	rm -rf dist
	$(MAKE) wheel deb rpm VERSION=
	cd dist && sha256sum -- * >SHA256SUMS

lock: setup ## renew requirements.lock and requirements-dev.lock
	$(BIN)/pip-compile $(LOCK_OPTIONS) --output-file requirements.lock pyproject.toml
	$(BIN)/pip-compile $(LOCK_OPTIONS) --extra dev --build-deps-for editable --output-file requirements-dev.lock pyproject.toml

LOCK_OPTIONS := --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-header --no-emit-index-url \
	--no-emit-trusted-host --no-emit-find-links

clean: ## remove all that these targets made, guests and environment included
	$(ROOT) rm -rf .demo .cache dist $(VENV) .mypy_cache .ruff_cache .pytest_cache
