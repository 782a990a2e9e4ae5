# Set-up, tests, linter, demo. `make setup PYTHON=python3.12 VENV=folder` selects the interpreter and the environment.
VENV ?= .venv
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
PIP = $(VENV)/bin/python -m pip install --only-binary :all:

# The puppets' small weights, in the published layout, and the flags of their detector.
PUPPET = pretrained_weights/puppet
PUPPET_DETECTOR = --yolox_config configs/puppet/yolox.py --yolox_ckpt $(PUPPET)/dwpose/yolox.pth \
	--dwpose_config configs/puppet/dwpose.py --dwpose_ckpt $(PUPPET)/dwpose/dwpose.pth
# Training on a CPU: one thread a process, and two processes that train different models.
TRAIN = OMP_NUM_THREADS=1 $(VENV)/bin/python

.PHONY: setup test test-kernels test-app lint format demo app gradio demo-weights

setup:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10 to 3.13 on the path: install one, or give its path: make setup PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt -r requirements-dev.txt -c constraints.txt
	$(PIP) --no-deps -r requirements-mmpose.txt
	@$(VENV)/bin/python download_weights.py --only blazepose || echo "set up, but without BlazePose's networks: \
	run $(VENV)/bin/python download_weights.py --only blazepose when there is a network"

# One worker per core (tests/conftest.py); idle workers take over tests from others.
test:
	$(VENV)/bin/python -m pytest -n auto --dist worksteal

# The tests whose bounds follow from rounding, under the kernels of other processors.
KERNELS = MKL_CBWR=COMPATIBLE ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 ATEN_CPU_CAPABILITY=avx512 \
	ONEDNN_MAX_CPU_ISA=SSE41 ONEDNN_MAX_CPU_ISA=AVX2 ONEDNN_MAX_CPU_ISA=AVX512_CORE OMP_NUM_THREADS=2
NUMERIC = $(shell grep -lE 'tolerance import|import.*(rounding|POINTS|EXACT)' tests/test_*.py) tests/test_golden_pipeline.py
test-kernels:
	@failed=; for kernels in $(KERNELS); do echo "== $$kernels"; \
		env $$kernels $(VENV)/bin/python -m pytest -q -n auto --dist worksteal $(NUMERIC) || failed="$$failed $$kernels"; \
	done; test -z "$$failed" || { echo "failed under:$$failed" >&2; exit 1; }

lint:
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format:
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

demo:
	@$(VENV)/bin/python -c "import diffusers, mmpose" 2>/dev/null || $(MAKE) setup
	$(VENV)/bin/python pose_align.py $(PUPPET_DETECTOR)
	$(VENV)/bin/python test_stage_2.py --config configs/puppet/demo.yaml --output output/demo --overwrite
	@echo "the aligned pose video:  assets/poses/align/img_ref_video_dance.mp4"
	@ls output/demo/*.mp4 | sed "/_cmp/! s/^/the result:              /; /_cmp/ s/^/side by side:            /"

# The page. `make app APP="--port 8000"` passes options to app.py.
app: gradio
	$(VENV)/bin/python app.py $(APP)

gradio:
	@$(VENV)/bin/python -c "import diffusers, mmpose" 2>/dev/null || $(MAKE) setup
	@$(VENV)/bin/python -c "import gradio" 2>/dev/null || $(PIP) -r requirements-app.txt -c constraints.txt

# In a real browser: a Chromium of the system, or $$CHROMIUM. Fails where there is none; `make test` then leaves these out.
test-app: gradio
	@$(VENV)/bin/python -c "import playwright" 2>/dev/null || $(PIP) playwright -c constraints.txt
	MUSEPOSE_BROWSER=required $(VENV)/bin/python -m pytest -n 0 tests/test_app_page.py tests/test_app_browser.py \
		tests/test_segments_browser.py

# Train $(PUPPET) from scratch, in hours on two cores; after an interruption, run it again to resume.
demo-weights:
	$(VENV)/bin/python -m puppet.make_models --folder $(PUPPET)
	$(VENV)/bin/python -m puppet.make_dataset --output output/puppet/data/stills --scenes 9600 --frames 6 --spread
	$(VENV)/bin/python -m puppet.make_dataset --output output/puppet/data/clips --first 500000 --scenes 120 --frames 32
	$(VENV)/bin/python pose_align.py --keypoints assets/keypoints/img_ref_video_dance.npz
	{ $(TRAIN) -m puppet.train_vae --resume latest \
		&& $(TRAIN) train_stage_1.py --config configs/puppet/train_stage_1.yaml --resume latest \
		&& $(TRAIN) train_stage_2.py --config configs/puppet/train_stage_2.yaml --resume latest; } & \
	for part in yolox dwpose; do $(TRAIN) -m puppet.train_pose --part $$part --resume latest || exit; done && wait $$!
