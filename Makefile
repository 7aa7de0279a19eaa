# `make help` lists what there is. Everything needed is installed by the targets themselves.

PROFILE ?= release
PYTHON ?= python3
MODELS_VENV := target/models-venv
CRASH = $(PYTHON) tests/system/crash

# The official ONNX Runtime collects telemetry unless this is set.
export ORT_DISABLE_TELEMETRY = 1

# A snapshot that is missing or different fails its test, and is not written, unless it is asked for.
export INSTA_UPDATE ?= no

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: onnxruntime ## Serve the models in models/ at http://127.0.0.1:8000
	cargo run --quiet --locked --profile $(PROFILE) -- serve

.PHONY: test
test: onnxruntime ## Run the whole test suite
	@if command -v cargo-nextest >/dev/null; then cargo nextest run --locked --workspace; else cargo test --locked --workspace; fi
	$(PYTHON) -m unittest discover -s tests -p 'test_*.py'

.PHONY: lint
lint: ## Check formatting, imports, lints and documentation
	cargo fmt --all --check
	$(PYTHON) .ci/import_circles.py
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items --quiet

.PHONY: e2e
e2e: onnxruntime ## Run the slower checks of the real server: generated requests, all of BANKING77, parity
	.ci/e2e

.PHONY: fuzz
fuzz: ## Fuzz what reads foreign bytes, FUZZ_SECONDS (60) per target
	.ci/fuzz

.PHONY: nightly
nightly: bench crash-nightly ## Run what takes longer still: all benchmarks, kills at every call, an hour of fuzzing (about two and a half hours)
	for name in overload stuck_clients stop hostile watching; do cargo bench --locked --bench serving -- $$name || exit 1; done
	cargo build --locked --release
	cargo bench --locked --bench overlap
	python3 benches/experiments.py
	python3 benches/drift.py
	python3 benches/nginx.py --rounds 3 --seconds 1
	PREDICTD_MADE_UP_NAMES=100000 cargo test --locked --release --test it -- ops::metrics::metrics_client_names_create_no_series
	$(MAKE) float-accuracy
	FUZZ_SECONDS=900 .ci/fuzz
	$(MAKE) check-dist CHECK_DIST=--rebuild
	$(MAKE) docker docker-test

.PHONY: deny-tool
deny-tool: # Installs cargo-deny if it is not there
	command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny

.PHONY: deny
deny: deny-tool ## Check licences and sources of the dependencies
	cargo deny --locked check bans licenses sources

.PHONY: deny-advisories
deny-advisories: deny-tool ## Check the dependencies for known vulnerabilities
	cargo deny --locked check advisories

.PHONY: bench
bench: onnxruntime ## Measure start, memory, latency and mixed load of the release build
	cargo bench --locked --bench serving

.PHONY: float-twin
float-twin: ## Write the shipped MiniLM in float32 to target/float-twin
	test -x target/float-venv/bin/pip || $(PYTHON) -m venv target/float-venv
	target/float-venv/bin/pip install --quiet -r benches/requirements.txt
	target/float-venv/bin/python benches/float_twin.py target/float-twin

.PHONY: float-accuracy
float-accuracy: float-twin onnxruntime ## Ask the float32 MiniLM the test questions of BANKING77 through the server
	cargo build --quiet --locked --release
	$(PYTHON) tests/system/parity/float_accuracy.py --predictd target/release/predictd target/float-twin

TOOLS := PYTHONPATH=models target/tools-venv/bin/python

.PHONY: tools
tools: ## Install what `python -m tools` needs (export, optimise, golden, from-sklearn, log-mlflow) into target/tools-venv
	test -x target/tools-venv/bin/pip || $(PYTHON) -m venv target/tools-venv
	target/tools-venv/bin/pip install --quiet -r models/tools/requirements.txt

.PHONY: test-tools
test-tools: tools ## Test the tools
	$(TOOLS) -m unittest discover -s tests/system/tools -p 'test_*.py'

.PHONY: alerts
alerts: onnxruntime ## Test the alert rules, and have them fire in a Prometheus that scrapes a loaded server
	promtool check rules deploy/prometheus/alerts.yml
	promtool test rules deploy/prometheus/alerts_test.yml
	cargo build --quiet --locked
	$(PYTHON) tests/system/prometheus/alerts.py --predictd target/debug/predictd

.PHONY: test-postgres
test-postgres: onnxruntime ## Test the registry in a PostgreSQL of its own (Debian's package)
	tests/with-postgres cargo test --locked --test it -- registry::database:: registry::feedback_store:: stored_formats::
	@# These stop the database's processes: others in the same process would wait for it in vain.
	tests/with-postgres cargo test --locked --test it -- registry::replicas::
	tests/with-postgres $(CRASH)/outage.py --seconds 5
	tests/with-postgres $(CRASH)/feedback.py --postgres --kills 30

.PHONY: crash
crash: onnxruntime ## Kill and disturb servers that change their registry: nothing acknowledged is lost
	cargo build --quiet --locked
	$(CRASH)/every_system_call.py --stride 11
	$(CRASH)/random_kills.py --kills 60
	$(CRASH)/random_kills.py --signal TERM --kills 30
	$(CRASH)/feedback.py --kills 40
	$(CRASH)/database_faults.py --only calls,disk-full,damaged
	$(CRASH)/brought_to_disk.py
	$(CRASH)/switching.py --switches 200
	$(CRASH)/contention.py --operators 6 --changes 100

.PHONY: crash-nightly
crash-nightly: onnxruntime # All of it (about 15 minutes)
	cargo build --quiet --locked
	$(CRASH)/every_system_call.py
	$(CRASH)/random_kills.py --kills 1000
	$(CRASH)/random_kills.py --signal TERM --kills 200
	$(CRASH)/feedback.py --kills 1000
	$(CRASH)/database_faults.py
	$(CRASH)/brought_to_disk.py
	$(CRASH)/switching.py --switches 5000
	$(CRASH)/contention.py --changes 1000
	tests/with-postgres $(CRASH)/random_kills.py --postgres --kills 300
	tests/with-postgres $(CRASH)/outage.py --seconds 60
	tests/with-postgres $(CRASH)/feedback.py --postgres --kills 300

.PHONY: dist
dist: ## Build and pack what is given away into target/dist (about ten minutes on two cores the first time)
	$(PYTHON) deploy/onnxruntime.py --licences
	$(if $(BINARY),,$(PYTHON) deploy/build.py)
	rm -rf target/dist
	$(PYTHON) deploy/dist.py $(if $(BINARY),--binary $(BINARY))

.PHONY: check-dist
check-dist: dist ## Check the archive: checksums, SBOM, the server in it, its hardening
	test -x target/dist-venv/bin/pip || $(PYTHON) -m venv target/dist-venv
	target/dist-venv/bin/pip install --quiet -r tests/system/dist/requirements.txt
	target/dist-venv/bin/python tests/system/dist/check.py $(if $(BINARY),--binary $(BINARY)) $(CHECK_DIST)

.PHONY: docker
docker: ## Build the image predictd:latest (about ten minutes on two cores the first time)
	docker build --tag predictd:latest --tag predictd:$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1) --build-arg PROFILE=$(PROFILE) --build-arg REVISION=$$(git rev-parse --short HEAD) .

.PHONY: docker-test
docker-test: ## Run the image and the compose files: limits, replicas replaced and killed under load (needs root, a Docker engine, port 80)
	$(PYTHON) tests/system/docker/hardened.py
	$(PYTHON) tests/system/docker/single.py
	$(PYTHON) tests/system/docker/replicas.py --requests $(or $(REQUESTS),100000)

.PHONY: nginx
nginx: onnxruntime ## Test nginx in front of the server (Debian's packages nginx-light, openssl, curl)
	cargo build --quiet --locked
	$(PYTHON) -m unittest discover -s tests/system/nginx -p 'test_*.py'

.PHONY: kubernetes
kubernetes: ## Build what is in deploy/kubernetes and check it, without a cluster
	test -x target/kubernetes-venv/bin/pip || $(PYTHON) -m venv target/kubernetes-venv
	target/kubernetes-venv/bin/pip install --quiet -r tests/system/kubernetes/requirements.txt
	cargo build --quiet --locked
	target/kubernetes-venv/bin/python tests/system/kubernetes/check.py --predictd target/debug/predictd

.PHONY: mlflow
mlflow: onnxruntime ## Follow an alias of a real MLflow server, under load
	test -x target/mlflow-venv/bin/pip || $(PYTHON) -m venv target/mlflow-venv
	target/mlflow-venv/bin/pip install --quiet -r tests/system/mlflow/requirements.txt
	cargo build --quiet --locked
	target/mlflow-venv/bin/python tests/system/mlflow/follow.py --predictd target/debug/predictd

.PHONY: parity
parity: tools onnxruntime ## Compare the server's answers with transformers and scikit-learn
	cargo build --quiet --locked
	$(TOOLS) tests/system/parity/transformers_parity.py --predictd target/debug/predictd
	$(TOOLS) tests/system/parity/tasks_parity.py --predictd target/debug/predictd
	$(TOOLS) tests/system/parity/tokenizer_parity.py --predictd target/debug/predictd
	$(TOOLS) tests/system/parity/hostile_texts.py --predictd target/debug/predictd --requests $(or $(HOSTILE),60) models
	$(TOOLS) tests/system/parity/sklearn_parity.py --predictd target/debug/predictd \
	  || { test $$? = 3 && printf '\n!! SKIPPED: parity with scikit-learn: there is no data to train on\n'; }

PEERS := fastapi flask litserve mlserver bentoml

.PHONY: bench-peers
bench-peers: onnxruntime ## Compare with other servers of the same model, all workloads (about an hour)
	for peer in $(PEERS); do \
	  { test -x target/peers/$$peer/bin/pip || $(PYTHON) -m venv target/peers/$$peer; } \
	  && target/peers/$$peer/bin/pip install --quiet -r benches/peers/requirements-$$peer.txt || exit 1; \
	done
	cargo build --locked --release
	cargo bench --locked --bench serving --no-run
	target/peers/fastapi/bin/python benches/peers/compare.py $(COMPARE)

.PHONY: models
models: ## Train the shipped models again (about 20 minutes on two cores)
	test -d $(MODELS_VENV) || $(PYTHON) -m venv $(MODELS_VENV)
	$(MODELS_VENV)/bin/pip install --quiet -r models/requirements.txt
	$(MODELS_VENV)/bin/python models/train.py

.PHONY: onnxruntime
onnxruntime: ## Get the pinned ONNX Runtime library into target/onnxruntime
	@$(PYTHON) deploy/onnxruntime.py

.PHONY: onnxruntime-cuda
onnxruntime-cuda: ## Get the library for NVIDIA GPUs into target/onnxruntime-cuda (310 MB; CUDA 13 and cuDNN 9 are not in it)
	@$(PYTHON) deploy/onnxruntime.py --variant cuda --directory target/onnxruntime-cuda

# A CSV file with a column `text`, or a text a line.
GPU_TEXTS ?= benches/gpu/texts.txt

.PHONY: bench-gpu-smoke
bench-gpu-smoke: onnxruntime float-twin tools ## Show on the cores that the benchmark for GPUs works (benches/gpu)
	cargo build --quiet --locked
	mkdir -p target/gpu-models && ln -sfn ../float-twin/banking77-minilm-float target/gpu-models/float
	test -d target/gpu-models/half || target/tools-venv/bin/python benches/gpu/half.py target/gpu-models/float/1 target/gpu-models/half/1
	target/tools-venv/bin/python benches/gpu/measure.py --smoke --device cpu --predictd target/debug/predictd --onnxruntime target/onnxruntime \
	  --models target/gpu-models --fp32 float --fp16 half --texts $(GPU_TEXTS) $(GPU_OPTIONS)
