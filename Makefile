# make demo   trains a small code model from nothing, 15 to 20 minutes on two cores with bf16 units, else over an hour
# make test   proves the parts, in five to twelve minutes
# make faults goes on looking for what breaks: kills, damaged files, full disks, fuzzed input; 50 minutes
PYTHON ?= python3
START := $(shell date +%s)

demo: .venv/installed
	.venv/bin/python recipe.py configs/demo.toml --started=$(START)

# Files in the order of their names: by the number of their tests, the longest would come last, one after the other.
test: .venv/installed
	.venv/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

faults: .venv/installed
	.venv/bin/python -m tests.faults

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3")'
	@echo "installing PyTorch and the few other packages into .venv (a minute or two)"
	@$(PYTHON) -m venv .venv || { echo "error: on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@.venv/bin/python -m pip install -q --disable-pip-version-check -r requirements.txt \
	    || { echo "error: the packages could not be installed; without a network, see docs/faq.md"; exit 1; }
	touch $@

# The same and every optional package: a second environment that sees the first, so that PyTorch is there once.
.venv/optional/installed: .venv/installed requirements-optional.txt
	$(PYTHON) -m venv .venv/optional
	.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    > `.venv/optional/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'`/first.pth
	.venv/optional/bin/python -m pip install -q --disable-pip-version-check -r requirements-optional.txt
	touch $@

clean:
	rm -rf .venv data out rehearsal

.PHONY: demo test faults clean
