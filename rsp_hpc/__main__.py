"""`python -m rsp_hpc` is the command `rsp-hpc`."""

from .cli import main

main(prog_name="rsp-hpc")
