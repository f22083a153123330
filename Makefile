# All that people and CI do with this tree. Recipes are silent and set-up talks on stderr: stdout is the command's own.
#
#   make run ARGS="--rm -- uname -a"

MAKEFLAGS += --no-print-directory --no-builtin-rules
.SILENT:
.DEFAULT_GOAL := help
.PHONY: help run setup install uninstall test lint bench host host-test FORCE

PREFIX ?= $(HOME)/.local
export PREFIX

help: ## Show this
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

# `value`: the shell sees ARGS as it was typed, `$` and all.
run: setup ## Boot a machine, setting up what is missing first: make run ARGS="--rm -- uname -a"
	.venv/bin/banger vm run $(value ARGS)

setup: host .venv/installed ## Install the host packages and Python environment that are missing

install: host ## Install for this user, without root: into PREFIX (~/.local)
	scripts/install

uninstall: ## Remove what install made; images, machines and settings stay
	scripts/uninstall

# Machines boot two at a time: while one waits for a disk or a clock, the other has the processor.
test: host-test .venv/installed-dev lint ## Check the sources, then run every test (as root, or those that need it are skipped)
	if [ -n "$(value ARGS)" ]; then .venv/bin/pytest $(value ARGS); \
	else .venv/bin/pytest -q -n 3 --dist loadfile -m 'not slow' && .venv/bin/pytest -n 2 --dist loadfile -m slow; fi

lint: .venv/installed-dev ## Check the sources
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: setup host-test ## Run the benchmarks
	for each in $$(grep -l __main__ benchmarks/*.py); do .venv/bin/python "$$each" || exit; done

host:
	scripts/host-packages

host-test:
	scripts/host-packages test

# An environment whose interpreter has gone is made again.
.venv/installed: pyproject.toml constraints.txt $(if $(wildcard .venv/bin/python),,FORCE) | host
	scripts/make-venv .venv -e .
	touch $@

.venv/installed-dev: .venv/installed
	scripts/make-venv .venv -e .[dev]
	touch $@
