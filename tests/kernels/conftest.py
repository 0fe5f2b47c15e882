"""Where Triton is not to be had (it is for Linux only), its kernels are not collected."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("triton") else ["interpreted_cuda.py"]
