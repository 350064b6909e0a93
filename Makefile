.PHONY: setup demo test bench lock format mcpb

setup:  ## .venv, dependencies, templates
	@scripts/setup

demo: setup  ## the main job: four languages on real input, in isolated sandboxes
	@.venv/bin/python examples/demo.py

test: setup  ## every check and every test
	@scripts/test

bench: setup  ## speed and memory, as ratios to a bare interpreter; writes benchmarks/results
	@.venv/bin/python -m benchmarks

lock:  ## resolve the dependencies anew
	@scripts/lock

format:  ## rewrite the code in the house style
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix .

mcpb: setup  ## the bundle for Claude Desktop, into dist
	@scripts/mcpb
