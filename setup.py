"""Only what setup.cfg cannot say: cffi builds the C core."""

from setuptools import setup

setup(cffi_modules=["rsp_hpc/kernels/build.py:builder"])
