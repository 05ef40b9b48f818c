# One word a verb. `make demo` and `make test` do all their own set-up.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -q

# Compiled modules are kept, whatever the shell says: compiling them at every start is seconds, and 3 MB a process.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup help lock demo up test unit check bench loadtest clients wheel fmt

setup:            ## install what is missing into .venv
	@$(PYTHON) infra/setup.py

help:             ## list these verbs
	@sed -n 's/^\([a-z]*\): *[a-z]* *## /make \1\t/p' Makefile | expand -t 16

lock:             ## write requirements/*.txt anew
	@$(PYTHON) infra/setup.py lock

demo: setup       ## wake an endpoint at zero, ask it, bill it, put it back to zero
	@$(BIN)/python -m pilotlight.cli.main demo

up: setup         ## start everything on this machine, in the foreground
	@$(BIN)/pilotlight up

# What needs no installation forks over the cores by itself (tests/forked.py); what starts one runs in two workers, as
# tests/conftest.py spreads it; what is timed comes last and alone.
test: setup       ## every test this machine can run
	@failed=0; \
	$(PYTEST) tests/unit tests/slow tests/sim || failed=1; \
	$(PYTEST) -p xdist.plugin -n 2 --dist loadscope --no-loadscope-reorder tests/integration tests/acceptance || failed=1; \
	$(PYTEST) tests/timed tests/gpu || failed=1; \
	exit $$failed

unit: setup       ## the tests that take milliseconds
	@$(PYTEST) tests/unit

check: setup      ## what CI asks of the text: ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

fmt: setup        ## put the text into its form
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: setup      ## measure, beside stock vLLM, and rewrite loadtests/bench/RESULTS.md
	@$(BIN)/python -m loadtests.bench

clients: setup    ## real client programs against an installation, each in an environment of its own; rewrite docs/clients.md
	@$(BIN)/python -m tests.clients

wheel: setup      ## build dist/*.whl, install it in clean environments by `uv tool install` and pipx, and see it serve
	@$(BIN)/python infra/try_wheel.py

SCENARIO ?= wake
loadtest: setup   ## users at an endpoint, against loadtests/slo.toml: SCENARIO=wake|steady|idle_cycle|ledger [IDLE=5] [UI=1] [URL=… KEY=… CA=…]
	@$(BIN)/python -m loadtests $(SCENARIO) $(if $(UI),--ui) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(IDLE),--idle "$(IDLE)") \
		$(if $(URL),--url "$(URL)" --ca "$(CA)" --model "$(MODEL)")
