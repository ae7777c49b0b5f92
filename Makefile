# make demo   trains a small code model from nothing, 10 to 15 minutes on two cores
# make test   proves the parts
PYTHON ?= python3
START := $(shell date +%s)

demo: .venv/installed
	.venv/bin/python recipe.py configs/demo.toml --started=$(START)

test: .venv/installed
	.venv/bin/python -m pytest

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3")'
	@echo "installing PyTorch and the few other packages into .venv (a minute or two)"
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q --disable-pip-version-check -r requirements.txt
	touch $@

clean:
	rm -rf .venv data out

.PHONY: demo test clean
