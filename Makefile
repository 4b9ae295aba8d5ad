GO      ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

# How long `make fuzz` spends on each target.
FUZZTIME ?= 10s

# What `make bench` passes on, such as BENCH="-rounds 1 -scenarios 'on/*'".
BENCH ?=

SCRIPTS := scripts/checkunit scripts/demo scripts/dnsbench scripts/setup scripts/topology scripts/undersystemd .ci/run

.PHONY: help setup build docs demo test check fuzz bench clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

setup: ## check Go, install the missing Debian packages (as root)
	@scripts/setup

# The version is stamped here, so Go need not ask git again.
build: ## build bin/sixgate, static
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false \
		-ldflags '-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)' \
		-o bin/sixgate ./cmd/sixgate

docs: ## write manual pages and shell completions to bin/
	mkdir -p bin/man bin/completions
	$(GO) run -tags man ./cmd/sixgate bin/man
	@for shell in bash zsh fish; do $(GO) run ./cmd/sixgate completion $$shell >bin/completions/sixgate.$$shell; done

demo: setup build ## show the gateway at work, in network namespaces (as root)
	@scripts/demo

test: setup check ## run everything that can fail (namespace tests: as root)
	@mkdir -p bin
	$(GO) run gotest.tools/gotestsum@v1.13.0 --format pkgname-and-test-fails --jsonfile bin/test.json \
		--rerun-fails=1 --rerun-fails-max-failures=3 --packages ./... -- -race -timeout 15m
	@if grep -q 'WARNING: DATA RACE' bin/test.json; then echo "a data race fails the run, however the second try went"; exit 1; fi

check: setup ## formatting, vet, staticcheck, shellcheck, the unit, the rules of the tree
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "gofmt would change: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags man ./cmd/sixgate
	GOARCH=mips $(GO) vet ./... # routers: 32 bits, the high octet first
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	shellcheck $(SCRIPTS)
	$(GO) test ./scripts
	scripts/checkunit

fuzz: ## run each fuzz target for FUZZTIME
	@set -e; for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

bench: setup build ## measure beside other gateways, in namespaces (as root)
	$(GO) build -o bin/bench ./scripts/bench
	bin/bench $(BENCH)

clean: ## remove what was built
	rm -rf bin
