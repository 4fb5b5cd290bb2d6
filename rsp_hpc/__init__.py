"""rsp_hpc: reduces imaging surveys on HPC clusters. See README.md for the flow, CONTRIBUTING.md for the layers."""

__version__ = "0.1.0"
