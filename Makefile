# Everything a newcomer needs: `make demo` and `make test`. Both set up what they use.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ROOT   := $(shell [ "$$(id -u)" = 0 ] && echo yes)
# Tests wait for other processes most of their time.
JOBS   ?= 2
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check bench lint clean redis players openssl chromium

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "edgecache needs Python 3.11 or newer; say which with: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "No venv module. On Debian: apt-get install python3-venv" >&2; exit 1; }

$(STAMP): $(BIN)/python pyproject.toml
	@echo "Installing edgecache into $(VENV) ..."
	@$(PIP) -e '.[demo]' && touch $@ || { $(BIN)/python -c 'import typer, edgecache.node' 2>/dev/null && \
	  echo "Could not bring $(VENV) up to date (no network?); going on with what is installed." >&2; }

$(VENV)/.tested: $(STAMP) pyproject.toml
	@$(PIP) -e '.[test]'
	@touch $@

# The tests start their own redis-server; here we only see to it that there is one.
redis:
	@command -v redis-server >/dev/null || command -v valkey-server >/dev/null || \
	  { [ "$(ROOT)" = yes ] && command -v apt-get >/dev/null && echo "Installing redis-server ..." && \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends redis-server >/dev/null; } || \
	  { echo "The tests need a Redis to start: apt-get install redis-server (as root), or put redis-server on PATH." >&2; exit 1; }

# Players that nobody here wrote decode what is served. Without them their tests are skipped and say so.
players:
	@{ command -v ffmpeg && command -v sox && sox --help | grep -w mp3; } >/dev/null 2>&1 || { [ "$(ROOT)" = yes ] && command -v apt-get >/dev/null && \
	  echo "Installing sox and ffmpeg ..." && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends sox libsox-fmt-mp3 ffmpeg >/dev/null; } || \
	  echo "Some tests want players: apt-get install sox libsox-fmt-mp3 ffmpeg (as root)." >&2

# Some make certificates.
openssl:
	@command -v openssl >/dev/null || \
	  { [ "$(ROOT)" = yes ] && command -v apt-get >/dev/null && echo "Installing openssl ..." && \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends openssl >/dev/null; } || \
	  { echo "The tests need openssl: apt-get install openssl (as root), or put it on PATH." >&2; exit 1; }

# The dashboard is opened in a real browser; without one those tests are skipped, with the reason.
chromium:
	@command -v chromium >/dev/null || [ "$(ROOT)" != yes ] || ! command -v apt-get >/dev/null || \
	  { echo "Installing chromium ..." && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	  echo "Could not install chromium; the dashboard's tests are skipped." >&2

## A small world on this machine: two demo clusters, Redis if installed, and an edge in front.
demo: $(STAMP)
	@exec $(BIN)/edgecache demo

## Everything: format, lint, types, import contract, tests.
test: redis players openssl chromium lint
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder --reruns 2 --reruns-delay 3 -raR

lint check: $(VENV)/.tested
	@$(BIN)/ruff format --check --quiet . || { echo "Not formatted: run $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

## Measured figures, as ratios to peers in one run; writes bench/results/*.json.
bench: $(VENV)/.tested redis
	@$(BIN)/python -m bench

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
