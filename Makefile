# The two commands of the README are `make run` and `make test`; each sets up all it needs.
# A machine needs Python 3.11 or newer and a C compiler, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
NATIVE  = $(wildcard audio_native/*.pyx audio_native/*.pxd audio_native/*.h)

.PHONY: run test lint demo bench cuts examples replays build clean
.DELETE_ON_ERROR:

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("talkspurt needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import tomllib; d = tomllib.load(open("pyproject.toml", "rb"))["project"]; print("\n".join(d["dependencies"] + d["optional-dependencies"]["test"]))' > $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(VENV)/requirements.txt
	touch $@

$(VENV)/.built: $(VENV)/.installed setup.py $(NATIVE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

build: $(VENV)/.built

run: build
	$(BIN)/python -m server serve

lint: build
	$(BIN)/ruff check .
	$(BIN)/mypy

# Most of a test's time is a call's: several files at once take a third of the time, and hardly more of the machine.
WORKERS ?= 3

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# PROVIDERS=sim: the same calls through Azure, Groq and OpenAI by their SDKs, played by simulators.
PROVIDERS ?= offline

demo: build
	$(BIN)/python -m bench demo --providers $(PROVIDERS)

bench: build
	$(BIN)/python -m bench check

# Recognition by the real SDK, cut a thousand times at random places: what a release wants; the suite does a few.
cuts: build
	CUTS=1000 $(BIN)/python -m pytest tests/call/test_azure_cuts.py

# The properties with examples that no run has seen: what a release wants.
examples: build
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --hypothesis-profile=default -m "not e2e"

# Each captured situation a thousand times, and at every instruction set: the suite does fifty.
replays: build
	REPLAYS=1000 $(BIN)/python -m pytest --durations=3 tests/call/test_regression_captures.py tests/call/test_replay_everywhere.py

clean:
	rm -rf $(VENV) build dist *.egg-info audio_native/*.c audio_native/*.so
