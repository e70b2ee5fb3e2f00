# Everything a newcomer needs: `make demo`, then `make test`. Both set themselves up.
PYTHON ?= python3
# Threads that spin while they wait slow everything else on a shared machine down, several times over.
export OMP_WAIT_POLICY ?= passive
VENV := .venv
WHEELS := .venv-unsloth
LATEST := .venv-latest
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-latest soak lint docs clean

demo: $(READY)
	$(BIN)/toasterft demo

# Two processes of one thread each: most tests start programs of their own and wait for them.
test: $(READY) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# What runs models, with the newest releases of what they stand on.
test-latest: $(LATEST)/.ready
	OMP_NUM_THREADS=1 $(LATEST)/bin/python -m pytest -n 2 --dist worksteal tests/heavy

# Long versions of tests that `make test` keeps short: kills at random moments, by the dozen.
soak: $(READY)
	$(BIN)/python -m pytest -m soak

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy toasterft
	$(BIN)/python tools/reference.py --check
	$(BIN)/mkdocs build --quiet

# The pages of docs/ as a site in dist/site; a broken link is an error.
docs: $(READY)
	$(BIN)/mkdocs build

# torch first and alone: asked for together with the rest, pip may choose another release of it.
# Without a GPU the CPU build is a tenth of the size; where it is not on the index, the plain one serves.
define environment
$(PYTHON) -m venv $(1)
$(1)/bin/python -m pip install --quiet --disable-pip-version-check -c $(2) torch
$(1)/bin/python -m pip install --quiet --disable-pip-version-check -c $(2) -e '.[dev]'
endef

# Unsloth and torchvision lie in a folder of their own, for the tests that run them without a GPU: what they depend on is
# there already or is CUDA's, and where torch is the CPU build transformers fails at a torchvision that it finds.
$(READY): pyproject.toml constraints.txt
	$(call environment,$(VENV),constraints.txt)
	rm -rf $(WHEELS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps --target $(WHEELS) \
		unsloth unsloth_zoo torchvision
	touch $(READY)

$(LATEST)/.ready: pyproject.toml constraints-latest.txt
	$(call environment,$(LATEST),constraints-latest.txt)
	touch $@

clean:
	rm -rf $(VENV) $(WHEELS) $(LATEST) .mypy_cache .pytest_cache .ruff_cache dist build *.egg-info
