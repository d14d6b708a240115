# make lab: set up, then open the labs.    make labs: set up, then run every lab in its reduced form, two at a time.
# make test: set up, then test.    Without a target: make labs.
# uv installs, where there is one, and pip elsewhere. To take pip all the same: make UV=
UV := $(shell command -v uv >/dev/null 2>&1 && echo uv)
RANGE = >=3.11,<3.14
PYTHON ?= $(if $(UV),$(RANGE),python3)
BIN = .venv/bin
VENV = $(if $(UV),uv venv --quiet --seed --python "$(PYTHON)" .venv,$(PYTHON) -m venv .venv)
PIP = $(if $(UV),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install --disable-pip-version-check)
INSTALL = $(PIP) --quiet -c constraints.txt
# A virtual environment is bound to its folder: in a copy, or under another name, its programs would work on the old one.
MADE_IN := $(shell cat .venv/installed 2>/dev/null)
ifneq "$(MAKECMDGOALS)" "clean"
ifneq "$(MADE_IN)" "$(if $(MADE_IN),$(CURDIR))"
$(error .venv was made for $(MADE_IN), and works only there: remove it with 'rm -r .venv', and type make again)
endif
endif
CHECK = import platform, sys; sys.exit(sys.version_info < (3, 11) and \
    "Python 3.11 or later is needed: make PYTHON=python3.12" or (sys.platform, platform.machine()) == ("darwin", "x86_64") \
    and "PyTorch has no builds for Intel Macs any more: README.md says where the labs run all the same")
OPEN = $(BIN)/jupyter lab --notebook-dir=. --LabApp.default_url=/lab/tree
# Three workers for two cores, since many tests wait. One thread each, or they would wait for one another.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3

labs: .venv/installed
	$(BIN)/labs run --quick --jobs 2

test: lint
	$(PYTEST) --maxschedchunk 1

# The linter, and the tests that are not slow: about two minutes on two cores.
check: lint
	$(PYTEST) -m "not slow and not browser"

lint: .venv/tests-installed
	$(BIN)/ruff check

# The labs without solutions. A notebook in student/ that somebody has worked in stays as it is.
lab: student
	$(OPEN)/student

student: .venv/installed
	$(BIN)/labs student

# Saving leaves no diff, whatever the version of Python.
solutions: .venv/installed
	$(OPEN)/notebooks --ContentsManager.pre_save_hook=labutils.instructor.jupyter.keep_version

full: .venv/installed
	$(BIN)/labs run

# The labs and the documents as pages, book/student/index.html, and as a zip; book-solutions: with the solutions.
book: .venv/docs-installed
	$(BIN)/python docs/book/build.py student

book-solutions: .venv/docs-installed
	$(BIN)/python docs/book/build.py solutions

# img/results.png and img/training.webp, from what full runs have left in runs/
gallery: .venv/installed
	$(BIN)/python img/gallery.py

# Made again when the requirements change, so that a second call starts at once.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python && test -x $(BIN)/pip || { rm -rf .venv; $(VENV); }
	@$(BIN)/python -c '$(CHECK)' || { rm -r .venv; exit 1; }
	$(INSTALL) -e .
	pwd -P > $@

# Students need none of this.
.venv/tests-installed: .venv/installed
	$(INSTALL) -e ".[test]"
	touch $@

.venv/docs-installed: .venv/installed
	$(INSTALL) -e ".[docs]"
	touch $@

clean:
	rm -rf .venv runs book

.PHONY: labs test check lint lab student solutions full book book-solutions gallery clean
