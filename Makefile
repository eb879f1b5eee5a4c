# demo: the two-datacenter story   test: all tests   test-fast: without root, peers and waiting   bench: benchmarks
# check: format, lint, types, all tests with a floor under their coverage, the audit; what CI runs
# hostile: crafted requests at the servers people run
# docs: the pages as a site in build/site; a warning is an error   reference: docs/reference.md and docs/faults.md from the code   picture: the demo, drawn
# pictures: every state of the page, by Chromium, judged by axe
# audit: known vulnerabilities of what is locked   release: sdist and wheel, proven by the demo (VERSION=, SOURCE_URL=)
# install, uninstall: the program, units, man pages, completions (DESTDIR=, PREFIX=/usr/local)   deb: a Debian package in dist/
# fuzz: coverage-guided fuzzing of every reader, FUZZ_SECONDS for each (FUZZ_FLAGS=: the readers; --keep; --seed N; --runs N)
# mutants: wrong edits in what decides, an hour (MUTANTS_FLAGS=: 'certs.peer*', …)
# Every target makes its own .venv; nothing but Debian 12 with Python 3.11 is assumed.
SHELL  := /bin/bash
# Debian's own, where it is new enough, before whatever else the path has: it is what Debian's users run.
PYTHON ?= $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  && echo /usr/bin/python3 || echo python3)
BIN    := .venv/bin
READY  := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo docs reference picture pictures lint test test-fast check audit bench hostile fuzz mutants lock release install uninstall deb clean packages
FUZZ_SECONDS ?= 60

help:
	@sed -n '/^#/!q;p' Makefile

# The lock carries hashes and every dependency, so pip has nothing to resolve: left to resolve, it would take the
# newest release of what only an extra names, and stop at the missing hash. `pip check` says if the lock lacks one.
# An editable install warns of itself, forty lines long, before the first line of the demo; `make release` builds with
# its warnings in the log.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || .ci/packages python3-venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check
	@touch $@

# Peers and tools the tests talk to. Without root the tests that need them say so and are skipped.
packages:
	@.ci/packages openssl curl iproute2 util-linux systemd procps haproxy nghttp2-client nghttp2-proxy debhelper dpkg-dev mmdebstrap lintian

demo: $(READY)
	$(BIN)/sidecar demo $(DEMO_FLAGS)

# The site has an environment of its own, for its pins are not those of the lock.
docs: build/docs/.ready
	build/docs/bin/python -m sphinx --quiet --fail-on-warning --keep-going -c docs . build/site
	@echo "build/site/docs/index.html"

build/docs/.ready: docs/requirements.txt
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || .ci/packages python3-venv
	$(PYTHON) -m venv build/docs
	build/docs/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
	  --require-hashes -r docs/requirements.txt
	@touch $@

reference: $(READY)
	$(BIN)/python -m tests.reference
	$(BIN)/python -m tests.diagnosis.table

# Each state of the page by a headless Chromium into docs/pages, and what axe says of it. axe's file is apart: its wheel
# asks for a browser of its own, which pip would miss.
pictures: $(READY) build/axe/.ready
	@.ci/packages chromium
	$(BIN)/python -m tests.pictures $(PICTURES_FLAGS)

build/axe/.ready: tests/pictures/requirements.txt | $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
	  --upgrade --target build/axe -r tests/pictures/requirements.txt
	@touch $@

picture: $(READY)
	$(BIN)/python -m agent demo | $(BIN)/python -m tests.drawn

test: $(READY) packages
	$(BIN)/python -m pytest --durations=10 $(TEST_FLAGS)

# What a change is tried by: no root, no other program, no process, nothing that is marked slow.
test-fast: $(READY)
	$(BIN)/python -m pytest -m "not slow and not root and not consul and not envoy" --durations=10 $(TEST_FLAGS) \
	  tests/agent tests/certs tests/upstreams tests/datacenter tests/test_house.py tests/test_reasons.py

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Under coverage a test takes twice its time, and more of its limit.
check: lint
	$(MAKE) test TEST_FLAGS="--cov --cov-report=term --timeout=300 $(TEST_FLAGS)"
	$(MAKE) audit

audit: $(READY)
	@$(BIN)/python .ci/audit $(AUDIT_FLAGS)

bench: $(READY) packages
	@.ci/packages wrk nghttp2-client nginx-light libnginx-mod-stream haproxy
	$(BIN)/python -m tests.bench $(BENCH_FLAGS)

fuzz: $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
	  -r tests/fuzz/requirements.txt || true
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_FLAGS)

# Wrong edits in what decides, one at a time: docs/bench/mutants.md. It goes on where it was stopped. mutmut is not in
# the lock, for nothing else needs it.
mutants: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check mutmut==3.8.1
	nice $(BIN)/mutmut run $(MUTANTS_FLAGS)
	$(BIN)/mutmut results

# Crafted requests against real servers, behind the sidecar; what is missing of them is told.
hostile: $(READY) packages
	@for each in nginx:nginx-light apache2:apache2 lighttpd:lighttpd php:php-cli puma:puma gunicorn:gunicorn \
	  uvicorn:uvicorn node:nodejs go:golang-go javac:default-jdk-headless; do \
	  command -v $${each%:*} >/dev/null || .ci/packages $${each#*:}; done
	$(BIN)/python -m tests.hostile $(HOSTILE_FLAGS)

# What pyproject.toml asks for, pinned and hashed. Pins stay as they are where they fit; LOCK_FLAGS=--upgrade moves them.
lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --generate-hashes --python-version 3.11 \
	  --no-header --no-annotate --quiet $(LOCK_FLAGS) --output-file requirements.lock
	$(BIN)/uv pip compile docs/requirements.in --generate-hashes --python-version 3.11 \
	  --no-header --no-annotate --quiet $(LOCK_FLAGS) --output-file docs/requirements.txt
	@sed -i '1i # Pinned and hashed development environment, Python 3.11 on Linux; made by `make lock`.' requirements.lock

release: $(READY)
	VERSION=$(VERSION) SOURCE_URL=$(SOURCE_URL) .ci/release

install: $(READY)
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" UNITDIR="$(UNITDIR)" .ci/install

uninstall:
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" .ci/install uninstall

deb: $(READY)
	@VERSION=$(VERSION) .ci/deb dist

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz mutants .coverage*
