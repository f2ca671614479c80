.PHONY: demo demo-analysis test test-ray test-rest clean

demo: .venv/.installed  ## search an fGRU's settings on the embedded sample
	.venv/bin/python run_search.py search_spaces/fgru.yaml

demo-analysis: .venv/.installed  ## stimuli, RSA and a report of what `make demo` found (or of one quick model)
	@ls runs/fgru/best.weights >/dev/null 2>&1 || { mkdir -p runs/quick && \
	    .venv/bin/python run_train.py experiments/quick.yaml --out runs/quick/best.weights; }
	@set -e; weights="runs/fgru/trial_*/model.weights"; \
	[ -e runs/fgru/best.weights ] || weights="runs/quick/best.weights"; \
	for analysis in "stimuli --dataset digits" "rsa --dataset digits" accuracy; do \
	    .venv/bin/python -m experiments.$$analysis --weights "$$weights" --out runs/analysis; \
	done; \
	.venv/bin/python -m experiments.report runs/analysis

test: .venv/.installed  ## everything CI checks
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	$(MAKE) -j 2 --keep-going test-ray test-rest

# Side by side: what starts Ray waits much of its time.
test-ray: .venv/.installed
	.venv/bin/python -m pytest -m ray --durations 12

test-rest: .venv/.installed
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m "not ray" --durations 12

clean:  ## forget the environment; runs/ stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info

.venv/.installed: pyproject.toml setup.sh
	./setup.sh
