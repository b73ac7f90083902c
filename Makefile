# headgate: everything a person or a CI runs. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH):/usr/sbin:/sbin:/usr/local/go/bin

.NOTPARALLEL:
.PHONY: help setup setup-test setup-bench demo test test-nightly check bench soak profile reliability golden stories clean lock zds manifests image test-image test-apiserver

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: ## Debian packages that are missing and the venv; instant when nothing is
	@tools/setup.sh

setup-test:
	@tools/setup.sh test

setup-bench:
	@tools/setup.sh bench

demo: setup ## the main job on a throw-away node: pods found, led through the proxy, measured, proved
	@.venv/bin/headgate demo

check: setup ## format, lint, types, who may import whom
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports

# Quick ones first; TESTS= and PYTEST= narrow it: make test TESTS=tests/unit PYTEST='-k zds'
TESTS ?= tests/unit tests/property tests/golden tests/kube tests/apiserver tests/netns tests/e2e
test: setup-test check ## check, then all tests: values, real kernel, real peers (root)
	$(PYTHON) -m pytest $(PYTEST) $(TESTS)

test-nightly: setup-test ## 10,000 random rulesets and packets: explained, sent, compared; tally in build/: PAIRS= (root)
	$(PYTHON) -m tests.netns.explain.tally $(or $(PAIRS),10000)

test-apiserver: setup-test ## the suite of the stand-in API server against a real kube-apiserver, built here, and etcd
	@tools/setup.sh apiserver
	@tools/apiserver.sh
	HEADGATE_APISERVER=build/apiserver/kube-apiserver $(PYTHON) -m pytest -q $(PYTEST) tests/apiserver

bench: setup-bench ## requests/s, latency, CPU beside the peers: ROUNDS= SECONDS_EACH= SECONDS= ROWS=
	$(PYTHON) -m tests.bench $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS_EACH),--seconds-each $(SECONDS_EACH)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(ROWS),--rows "$(ROWS)")

soak: setup-test ## a day's churn of pods in SECONDS= (300): what grows is told, and fails (root)
	$(PYTHON) -m tests.bench.soak $(if $(SECONDS),--seconds $(SECONDS))

profile: setup-bench ## flame graphs of a worker under load, in build/profile-*.svg: ROWS= SECONDS=
	$(PYTHON) -m tests.bench.flame $(if $(SECONDS),--seconds $(SECONDS)) $(if $(ROWS),--rows "$(ROWS)")

reliability: setup-test ## every fault under load, 100,000 requests an upgrade; writes docs/reliability.md (root)
	rm -f build/reliability.json
	HEADGATE_FAULT_REQUESTS=$(or $(REQUESTS),100000) $(PYTHON) -m pytest -q tests/netns/faults tests/netns/policy_stream tests/netns/lifecycle
	$(PYTHON) -m tests.netns.faults.report

golden: setup ## write the golden files anew (read the diff before you commit it)
	REFRESH_GOLDEN=1 $(PYTHON) -m pytest -q tests/golden tests/netns/rules/test_show.py tests/netns/rules/test_explain.py

stories: setup-test ## make the ten stories of docs/debugging.md happen and record the page anew (root)
	$(PYTHON) -m tests.stories.page

zds: setup ## generate the ZDS module from proxy/api/zds.proto
	$(PYTHON) -m grpc_tools.protoc -I proxy/api --python_out=proxy/api --pyi_out=proxy/api zds.proto

manifests: setup ## render daemonset/ into agent/manifests, which `headgate install` prints
	$(PYTHON) tools/render_manifests.py

image: ## the container image and what it holds, in build/image: TARGET=bcc (root)
	@tools/setup.sh image
	@tools/image.sh $(TARGET)

IMAGE = build/image/headgate-$(shell sed -n 's/^version = //p' setup.cfg)$(TARGET:%=-%).tar
test-image: setup-test image ## the image: size and contents, then the life of a node that runs it: TARGET= (root)
	HEADGATE_IMAGE_TARGET=$(or $(TARGET),headgate) $(PYTHON) -m pytest -q tests/image/test_image.py $(if $(TARGET),tests/image/test_$(TARGET).py)
	HEADGATE_IMAGE=$(IMAGE) $(PYTHON) -m pytest -q tests/netns/lifecycle

lock: setup ## resolve requirements/*.in anew, with hashes
	rm -rf build/uv && $(PYTHON) -m venv build/uv && build/uv/bin/python -m pip install --quiet uv
	for name in runtime dev image; do \
	  build/uv/bin/uv pip compile --quiet --python /usr/bin/python3 --generate-hashes --no-emit-index-url --no-header \
	    --upgrade --custom-compile-command "make lock" requirements/$$name.in -o requirements/$$name.lock; \
	done
	rm -rf build/uv

clean: ## what make made: venv, caches, build
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
