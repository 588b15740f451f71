.PHONY: demo test lint

# The main job on real data: five tasks of two digits each, at a 23rd of the dense cost, beside the dense run.
demo:
	edgecl train --data digits --device rpi --budget 23x --compare dense

test:
	python -m pytest -q -n 2 --dist loadfile

lint:
	ruff check . && ruff format --check . && mypy
