# Every target does its own set-up; none needs root. Start with `make demo` or `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONUNBUFFERED := 1
# Every worker and every program that a test starts would compile all of it again.
unexport PYTHONDONTWRITEBYTECODE

# What the image is made for; its C library is newer than any of these.
TAGS   := $(foreach minor,34 28 27 24 17 12 5,--platform manylinux_2_$(minor)_x86_64) --platform manylinux2014_x86_64
FOR    := --only-binary=:all: --implementation cp --python-version 3.11 $(TAGS)
EXTRAS := server,s3,azure,hdf5,postgres,kubernetes,telemetry
ENGINE ?= podman
IMAGE  ?= cropduster:latest
BASE   ?=

.PHONY: help install hsds demo demo-s3 test check soak bench format stubs wheels lock image play clean

help: ## what can be made
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[all]' --group dev
	touch $@

install: $(READY) ## a .venv with everything in it

hsds: $(READY) ## fetch the HSDS that the tests run, into the user's cache folder
	$(BIN)/python -m tests.doubles.hsds > /dev/null

demo: $(READY) ## spray a real table into 8 parts, despray it, compare
	$(BIN)/python tests/demo.py

demo-s3: $(READY) ## the same through an S3 store that is started and stopped here
	$(BIN)/python tests/demo.py --s3

test: hsds ## every promise once, at the smallest size that can fail
	$(BIN)/python -m tests.doubles.azurite > /dev/null
	$(BIN)/python -m tests.doubles.helm > /dev/null
	$(BIN)/python -m pytest --collect-only -qq > /dev/null || true  # compiles all of it once, and not in each of the four
	REQUIRE_PLANES=memory,posix,s3,azure $(BIN)/python -m pytest -m 'not soak' -n 4 --dist loadfile

check: $(READY) ## lint, types, layers, wire, freshness of generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	cd proto && $(CURDIR)/$(BIN)/buf lint
	$(BIN)/python -m pytest -q tests/house

soak: hsds ## large sizes, crash marathons and many more examples; takes an hour
	$(BIN)/python -m tests.doubles.azurite > /dev/null
	REQUIRE_PLANES=memory,posix,s3,azure $(BIN)/python -m pytest -m 'soak or hypothesis' --hypothesis-profile long --timeout 3600

bench: hsds ## ratios against cp, split, dd, s5cmd, rclone and hsload
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m tests.bench

stubs: $(READY) ## regenerate fileserver/v1 from proto/, and the schema of the chart's values from the config
	$(BIN)/python proto/generate.py
	$(BIN)/python helm/generate.py

wheels: $(READY) ## fetch what the image is made of, and build our own wheel, into wheels/
	rm -rf wheels
	$(BIN)/python -m pip download --quiet --no-deps --require-hashes $(FOR) --dest wheels --requirement tests/image/requirements.txt
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir wheels .

image: wheels ## build the image with podman (ENGINE=docker: with docker), without a network (BASE=…: on another Python 3.11), and spray in it once
	$(ENGINE) build --network=none $(if $(BASE),--build-arg PYTHON=$(BASE)) --tag $(IMAGE) .
	$(BIN)/python tests/image/try.py $(ENGINE) $(IMAGE)

play: $(READY) ## run the chart's pods with that image under podman: one as its notes say, then two with certificates
	$(BIN)/python -m tests.image.play $(IMAGE)
	$(BIN)/python -m tests.image.cluster $(IMAGE)

lock: $(READY) ## choose the newest of everything for the image, and pin it in tests/image/requirements.txt
	rm -rf wheels
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir wheels .
	$(BIN)/python -m pip download --quiet $(FOR) --dest wheels "$$(ls wheels/cropduster-*.whl)[$(EXTRAS)]"
	$(BIN)/python tests/image/lock.py wheels

format: $(READY) ## ruff's formatter and safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what the targets above made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist wheels
