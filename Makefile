# make demo: everything from a bare machine to the report.   make test: the same set-up, then all tests.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

build:            ## compile the C core in place
	$(BIN)/python rsp_hpc/kernels/build.py
.PHONY: build
