# make demo   from a bare machine (Python >= 3.11, gcc, make, a package index) to the report
# make test   the same set-up, then all tests: C under ASan and UBSan, unit, MPI
# make help   the other targets

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
MPI    ?= mpich==5.0.2
CSRC   := $(wildcard csrc/*.c csrc/*.h)
RANKS  ?= 2
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export RSP_DATA ?= $(abspath ../shared/data)

.PHONY: help setup build demo test test-c test-python test-kill match-trials pulls bench bench-peers compare-piff clean

help:             ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 16

$(VENV)/.ready: requirements.txt setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -r requirements.txt $(MPI)
	touch $@

$(VENV)/.built: $(VENV)/.ready $(CSRC) rsp_hpc/kernels/build.py setup.py
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.tests: requirements-test.txt $(VENV)/.built
	$(BIN)/pip install -q --disable-pip-version-check -r requirements-test.txt
	touch $@

setup: $(VENV)/.built   ## .venv with the pinned required set, an MPI, and the C core

build: $(VENV)/.ready   ## the C core, in place
	$(BIN)/python rsp_hpc/kernels/build.py

demo: $(VENV)/.built    ## simulate a small survey, reduce it on RANKS ranks, print where the report is
	rm -rf demo
	$(BIN)/mpirun -n $(RANKS) $(BIN)/rsp-hpc simulate configs/demo.yaml
	$(BIN)/mpirun -n $(RANKS) $(BIN)/rsp-hpc run configs/demo.yaml

test: test-c test-python  ## all tests

test-c:           ## the C core's own tests under ASan and UBSan
	@mkdir -p build
	gcc -std=gnu11 -g -O1 -fopenmp-simd -Wall -Wextra -fsanitize=address,undefined -fno-sanitize-recover=undefined -DRSP_NO_DISPATCH \
	    -Icsrc csrc/*.c csrc/test/*.c -lm -o build/test-c
	./build/test-c

test-python: $(VENV)/.tests  ## unit, MPI and real-data tests
	$(BIN)/python -m pytest -q --durations=15

match-trials: $(VENV)/.tests  ## 500 random fields against the reference catalogue: right or refused, and the seconds
	$(BIN)/python -m pytest -q -s tests/algorithms/match_trials.py

pulls: $(VENV)/.tests  ## 30 simulated visits: fluxes, positions, shapes, empty positions against truth, in units of their errors
	$(BIN)/python tests/algorithms/pulls.py 30

test-kill: $(VENV)/.tests  ## 20 random kill -9 of a rank or the whole job, each resumed and compared (RSP_KILLS=n)
	RSP_KILLS=$${RSP_KILLS:-20} $(BIN)/python -m pytest -q tests/mpi/test_kill.py

bench: $(VENV)/.built   ## ours / bound / peer, interleaved in one run, pinned to one core
	$(BIN)/python -m benchmarks

bench-peers: $(VENV)/.tests  ## installs the peers that the benchmarks know (needs root for apt)
	apt-get install -y -q source-extractor swarp
	$(BIN)/pip install -q --disable-pip-version-check numba astroscrappy sep

compare-piff: $(VENV)/.tests  ## our PSF fit against Piff on the same stamps: time, prediction, truth (installs Piff)
	$(BIN)/pip install -q --disable-pip-version-check piff
	taskset -c 1 $(BIN)/python benchmarks/compare_piff.py 12 3

clean:            ## what was built and what the demo wrote
	rm -rf build demo $(VENV)/.built rsp_hpc/kernels/_rsp.c rsp_hpc/kernels/*.so rsp_hpc/kernels/*.o csrc/*.o
