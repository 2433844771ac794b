# `make demo` and `make test` do everything. Each makes the virtual environment if it is missing.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
# Otherwise every process compiles every module again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: .venv help demo test lint style types suite coverage docs notebooks pictures bundle walk release long properties chaos benchmark screenshots clean

help:
	@echo "make demo         run the demonstration: the paper's synthetic example and real digits"
	@echo "make test         linters, type checker and tests"
	@echo "make lint         only linters and type checker"
	@echo "make docs         the documentation site, in build/site; warnings are errors"
	@echo "make notebooks    run the notebooks of the documentation, and store their outputs"
	@echo "make pictures     draw the pictures of the documentation again; runs their studies"
	@echo "make bundle       the script that draws the charts of a page, made by vl-convert"
	@echo "make coverage     the tests once more, and which lines and branches they run"
	@echo "make walk         every command of the README and the page of five minutes, in a new environment"
	@echo "make release      sdist and wheel in dist, checked, installed in an empty environment and tried"
	@echo "make long         tests of a minute or more: a cluster that loses nodes, an object store, faults, benchmarks"
	@echo "make properties   the property tests with 1,000 examples each"
	@echo "make chaos        one study, thirty faults: killed processes, damaged files, a full disk, two drivers"
	@echo "make benchmark    time the trainer against a plain PyTorch loop, and a large report"
	@echo "make screenshots  pictures of a report in build/screenshots, to look at"
	@echo "make .venv        the virtual environment, from requirements.lock"
	@echo "make clean        remove the environment, caches and the demonstration"

.venv: $(READY)

# A file inside, so that an environment whose installation was interrupted does not count. Modules are compiled where they
# are first imported: most never are.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

demo: $(READY)
	$(BIN)/lratlas demo

lint: style types

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(READY)
	$(BIN)/basedpyright

# One process per core; what shares a fixture stays together.
PYTEST := $(BIN)/pytest -n $(shell nproc) --dist loadgroup

suite: $(READY)
	$(PYTEST)

# The type checker keeps one core busy for a minute: the tests begin beside it.
test: style
	$(MAKE) --jobs=2 types suite

coverage: $(READY)
	$(PYTEST) --cov --cov-report=term --durations=10

# Material's notice about the future of MkDocs is no warning of this site.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

notebooks: $(READY)
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False docs/notebooks/*.ipynb

pictures: $(READY)
	$(BIN)/python docs/pictures/draw.py watch
	$(BIN)/python docs/pictures/stored.py
	rm -rf build/own-search build/ticks
	cd examples && PATH="$(CURDIR)/$(BIN):$$PATH" lratlas find own_model.toml --folder ../build/own-search
	cp build/own-search/advice.svg docs/pictures/find.svg
	$(BIN)/lratlas reproduce ticks --folder build/ticks
	$(BIN)/python docs/pictures/draw.py report build/ticks

bundle: $(READY)
	$(BIN)/python -c "import gzip; from lratlas.report import bundle, figures; \
	  bundle.FILE.write_bytes(gzip.compress(bundle.make_bundle(figures.VERSION).encode(), mtime=0))"

walk: $(READY)
	rm -rf build/walk
	cd tests && ../$(BIN)/python -m docs.walk ../build/walk

# The tools and the wheel each have an environment of their own; versions of the latter's are those of the lock.
release:
	rm -rf dist build/release
	$(PYTHON) -m venv build/release/tools
	build/release/tools/bin/pip install --quiet --disable-pip-version-check build twine
	build/release/tools/bin/python -m build
	build/release/tools/bin/twine check --strict dist/*
	$(PYTHON) -m venv build/release/empty
	build/release/empty/bin/pip install --quiet --disable-pip-version-check -c requirements.lock dist/*.whl
	cd build/release && { timeout --signal=INT 60 empty/bin/lratlas demo || [ $$? -eq 124 ]; }
	cd build/release && empty/bin/lratlas status lratlas-demo/ticks

long: $(READY)
	$(BIN)/pytest -m long

properties: $(READY)
	$(PYTEST) -m hypothesis --hypothesis-profile=thorough

chaos: $(READY)
	FAULTS=30 $(BIN)/pytest -m long tests/execute/test_chaos.py -s

benchmark: $(READY)
	$(BIN)/python benchmarks/ticks.py
	$(BIN)/python benchmarks/images.py
	$(BIN)/python benchmarks/report.py

screenshots: $(READY)
	cd tests && ../$(BIN)/python -m browser.screenshots ../build/screenshots

clean:
	rm -rf .venv .cache .pytest_cache .hypothesis .ruff_cache build dist lratlas-demo
