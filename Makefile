.PHONY: demo test slow lint wheels sanitize arm soak bundles device

# The main job on real data: five tasks of two digits each, at a 23rd of the dense cost, beside the dense run.
demo:
	edgecl train --data digits --device rpi --budget 23x --compare dense

test:
	python -m pytest -q -n 2 --dist loadfile

# Servers, browsers, kills and lines that stall: what `make test` leaves out.
slow:
	python -m pytest -q -n 2 --dist loadfile -m slow

lint:
	ruff check . && ruff format --check . && mypy

# For x86-64 and 64-bit Arm, into dist/; then as a user installs them.
wheels:
	PYTHON=python tools/wheels && PYTHON=python tools/test_wheel

# The kernel tests under the address and undefined-behaviour sanitizers.
sanitize:
	PYTHON=python tools/sanitize

# The kernel tests on emulated Arm processors.
arm:
	PYTHON=python tools/arm

# Ten minutes each of damaged and forged bundles and updates, which the readers have to refuse; the records go to build/.
soak:
	mkdir -p build && python tools/fuzz_bundle --seconds 600 -o build/soak-bundle.json
	python tools/fuzz_update --seconds 600 -o build/soak-update.json
	python tools/fuzz_hub.py --kills 1000 --seconds 600 -o build/soak-hub.json

# Installs without network: here, and on emulated Arm processors. Takes the wheels of `make wheels`.
bundles:
	PYTHON=python tools/test_bundle

# From a snapshot to an emulated Raspberry Pi, which predicts and learns. Takes the wheels of `make wheels`.
device:
	PYTHON=python tools/test_device
