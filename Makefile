# Sets everything up on a machine that has python3 (3.11 or newer) and make, then does what is asked.
#
#   make run                      start; the address is printed
#   make run PHOTOS=/a/folder     ingest that folder as well, and serve on until Ctrl-C
#   make run PHOTOS=… ONCE=1      ... and end after it

UV_VERSION := 0.13.8
PYTHON ?= python3
UV := .uv/bin/uv
BIN := .venv/bin
# Tests wait more than they compute: three share two cores well. Each worker has a server of its own.
WORKERS ?= 3
PAGE := src/kaleidoscope/apps/page_files/index.html
NODE_IS_THERE := command -v npm >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null

.DEFAULT_GOAL := help
.PHONY: help run test check format docs soak bench setup clean

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

run: setup ## start the product [PHOTOS=/a/folder [ONCE=1]]
	@exec $(BIN)/kaleidoscope up $(if $(PHOTOS),--ingest "$(PHOTOS)") $(if $(ONCE),--once)

test: check ## the checks and the tests
	$(BIN)/pytest -q -m "not soak" -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: setup ## lint, types and the arrows between rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if [ -d web/node_modules ]; then echo "npm run check"; npm --prefix web run --silent check; fi

format: .venv/ready ## lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/ready ## write docs/reference anew from the code
	$(BIN)/python -m kaleidoscope.apps.reference

soak: setup ## the long crash tests (many minutes)
	$(BIN)/pytest -q -m soak --timeout 7200

bench: setup ## the benchmarks, each a ratio against a baseline of the same run
	@for script in bench/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

setup: .venv/ready $(PAGE)

# The stamp is older than what it was made from: install anew, else nothing is to do.
.venv/ready: pyproject.toml uv.lock $(UV)
	UV_PYTHON_DOWNLOADS=never $(UV) sync --frozen --quiet --compile-bytecode --python .uv/bin/python
	@$(BIN)/python -m compileall -q src
	@touch $@

# The page needs Node.js to be built, and nothing but a browser to be used. Without Node.js all else
# works: the page is told of and left out, or stays as it was built before.
$(PAGE): web/package-lock.json web/index.html web/vite.config.ts web/public/favicon.svg docs/reference/api.json \
		$(shell find web/src -type f -not -name schema.d.ts 2>/dev/null)
	@if $(NODE_IS_THERE); then \
		{ [ web/node_modules/.package-lock.json -nt web/package-lock.json ] || npm --prefix web ci --silent; } \
		&& { npm --prefix web run --silent build -- --logLevel warn >web/node_modules/.build.log 2>&1 \
			|| { tail -n 30 web/node_modules/.build.log | cut -c -200; exit 1; }; } && touch $@; \
	else \
		echo "The page is not built: it needs Node.js 20 or newer (package nodejs, or https://nodejs.org). Everything else works without."; \
	fi

$(UV):
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11, 3.12 or 3.13"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$$($(PYTHON) --version) is too old: install Python 3.11, 3.12 or 3.13, or name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) has no ensurepip: install the package python3-venv"; exit 1; }
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

clean: ## remove what was installed and cached here (never the data folder)
	rm -rf .venv .uv web/node_modules src/kaleidoscope/apps/page_files .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
