# make help lists the targets. .ci/run, and so CI, is make test.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory

# Go needs a place for its caches; accounts such as nobody have none.
export HOME := $(shell scripts/home)

# Git refuses to read a clone that belongs to somebody else, and go build then fails. Outside a
# repository, without tags and in such a clone the version is what can be known.
VERSION := $(or $(shell git describe --tags --always --dirty 2>/dev/null),devel)
ifeq ($(shell git rev-parse HEAD 2>/dev/null),)
export GOFLAGS := $(strip $(shell go env GOFLAGS) -buildvcs=false)
endif

FUZZTIME ?= 30s
BENCH    ?= .
COUNT    ?= 10

# Tests of the built program and of the network namespaces; all other packages have unit tests.
END_TO_END := /(integration|internal/nstest)(/|$$)

.PHONY: help build check lint unit compile-elsewhere test tools integration race readme fuzz bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/srcproxy
	go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/ ./cmd/srcproxy

check: lint compile-elsewhere unit ## formatting, linters and unit tests with the race detector

lint: ## gofumpt, go vet, go fix, go mod tidy, the generated files, golangci-lint
	@scripts/lint

compile-elsewhere: ## the public packages on other systems
	@for os in darwin windows; do echo "GOOS=$$os go build ./dialer ./pktinfo"; GOOS=$$os go build ./dialer ./pktinfo; done

unit: ## unit tests with the race detector
	scripts/go-test -race -timeout 10m $$(go list ./... | grep -Ev '$(END_TO_END)')

test: tools check integration readme ## check, and the tests of the built program: all that CI runs

tools: ## install the programs that the tests use (as root, by apt-get)
	@scripts/install-test-tools

integration: tools ## the tests of the built program
	PROGRESS=1 scripts/go-test -count 1 -p 1 -timeout 40m $$(go list ./... | grep -E '$(END_TO_END)')

race: tools ## integration with the race detector in the tests and in the program, some 20 minutes
	RACE=1 PROGRESS=1 scripts/go-test -race -count 1 -timeout 60m ./integration

readme: tools ## the first command of README.md, in a clean clone
	scripts/readme-commands

fuzz: ## each fuzz target for FUZZTIME (30s)
	scripts/fuzz $(FUZZTIME)

bench: ## all benchmarks matching BENCH (.), COUNT (10) times, into bench.txt
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) -timeout 2h ./... | tee bench.txt
	@"$$(scripts/go-tools)/benchstat" bench.txt

clean: ## remove what the other targets wrote
	rm -rf bin bench.txt integration/node/node_modules
