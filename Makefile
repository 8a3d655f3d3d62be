# catena: `make demo` shows the whole chain on a real (virtual) machine, `make test` proves it.

CATENA := .venv/bin/catena
CACHE ?= .cache
SECONDS ?= 1200

.PHONY: demo test unit kubelet check fuzz mutations bench setup setup-tests doctor clean

demo: setup ## the main job end to end, then five attacks
	@$(CATENA) doctor --quiet
	@$(CATENA) lab demo --cache $(CACHE)

test: setup-tests ## every test, those that boot machines included
	@CATENA_CACHE=$(CACHE) .venv/bin/pytest

unit: setup-tests ## the tests that boot no machine
	@.venv/bin/pytest -m "not boot"

kubelet: setup-tests ## a kubelet from Debian's source, for one test; takes minutes, once
	@CATENA_CACHE=$(CACHE) scripts/kubelet

check: setup ## style, types, floors
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

fuzz: setup ## every parser against hostile input, SECONDS for each
	@.venv/bin/python tests/fuzz/run.py --seconds $(SECONDS) --folder $(CACHE)/fuzz

mutations: setup-tests ## every check of an attestation taken out once, and the test that misses it
	@.venv/bin/python tests/security/mutations.py

bench: setup ## measurements, each beside its limit
	@.venv/bin/python benchmarks/attestation.py
	@.venv/bin/python benchmarks/fleet.py
	@.venv/bin/python benchmarks/eventlog.py
	@.venv/bin/python benchmarks/appraisal.py
	@.venv/bin/python benchmarks/auditlog.py
	@.venv/bin/python benchmarks/serving.py
	@.venv/bin/python benchmarks/containers_signature.py
	@.venv/bin/python benchmarks/containers_rootfs.py
	@.venv/bin/python benchmarks/containers_launch.py
	@.venv/bin/python benchmarks/containers_record.py
	@.venv/bin/python benchmarks/containers_start.py

setup: ## Debian packages and the virtual environment
	@scripts/setup

setup-tests: ## what tests need beside that: other verifiers, PostgreSQL, object storage
	@scripts/setup tests

doctor: setup ## what this machine lacks
	@$(CATENA) doctor

clean: ## everything that can be made again
	rm -rf .venv $(CACHE) .pytest_cache .mypy_cache .ruff_cache .hypothesis
