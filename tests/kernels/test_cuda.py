"""The Triton programs without a GPU: through Triton's interpreter against the definition, and compiled to machine code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the CUDA kernels are written in Triton, which this system has no package of")

SCRIPT = Path(__file__).with_name("interpreted_cuda.py")


@pytest.mark.slow
@pytest.mark.processes
def test_the_interpreted_programs_give_the_bits_of_the_definition():
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "compared: 132\n"


ADDRESSES = {
    "out": "*{storage}",
    "base": "*{storage}",
    "gradient": "*{storage}",
    "table": "*{work}",
    "coefficients": "*{total}",
    "seeds": "*i64",
    "factor": "*fp64",
    "totals": "*fp64",
    "seed": "i64",
    "start": "i64",
    "count": "i64",
    "field": "i64",
}
CASES = [
    ("sum_rademacher", "fp32", "fp32", {}),
    ("sum_rademacher", "bf16", "i32", {}),
    ("sum_values", "fp32", "fp32", {"NORMAL": True, "EXACT": False}),
    ("sum_values", "fp16", "i64", {"NORMAL": False, "EXACT": True}),
    ("materialize_sketch", "fp64", "fp64", {}),
    ("project_sketch", "bf16", "fp32", {"BUCKETS": 32, "UNROLL": 8}),
]


@pytest.mark.parametrize(("name", "storage", "total", "constants"), CASES)
def test_programs_compile_without_contraction(name, storage, total, constants, tmp_path, monkeypatch):
    """For a GPU that need not be there; ``fma`` in the code would be a product contracted with a sum."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from covector.kernels.cuda import programs

    program = getattr(programs, name)
    work = "fp64" if storage == "fp64" else "fp32"
    if "WORK" in program.arg_names:
        constants = constants | {"WORK": tl.float64 if work == "fp64" else tl.float32}
    kinds = {
        argument: "constexpr"
        if argument in constants
        else ADDRESSES.get(argument, "i32").format(storage=storage, work=work, total=total)
        for argument in program.arg_names
    }
    compiled = triton.compile(
        ASTSource(fn=program, signature=kinds, constexprs=constants),
        target=GPUTarget("cuda", 80, 32),
        options={"enable_fp_fusion": False},
    )
    assert "cubin" in compiled.asm
    code = compiled.asm["ptx"]
    assert not re.search(r"\bfma\.", code)
    assert not re.search(r"\b(atom|red)\.", code), "an atomic sum has no fixed order"
    if constants.get("NORMAL"):
        assert "sqrt.rn.f32" in code
        assert "div.rn.f32" in code
