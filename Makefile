.PHONY: demo test clean

demo: .venv/.installed  ## search an fGRU's settings on the embedded sample
	.venv/bin/python run_search.py search_spaces/fgru.yaml

test: .venv/.installed  ## everything CI checks
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest

clean:  ## forget the environment; runs/ stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info

.venv/.installed: pyproject.toml setup.sh
	./setup.sh
