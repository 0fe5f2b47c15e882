"""Compiled kernels on disk: shared by processes, keyed by source and processor, absent where nothing can be written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from covector.kernels import reference
from covector.kernels.cpu import cache, native
from covector.kernels.cpu import compile as compiling
from covector.kernels.cpu.compile import assembly
from covector.kernels.operands import Place, Terms

PROGRAM = """
import sys
import torch
from covector import kernels
from covector.kernels.cpu.cache import cache_folder
from covector.kernels.cpu.native import supports
out = torch.zeros(1000)
kernels.add_field_(out, torch.tensor([5]), torch.ones(1, dtype=torch.float64), "normal", 1)
kernels.materialize_sketch_(out, out, torch.ones(100), 5, 1, 0)
half = torch.zeros(1000, dtype=torch.float16)
kernels.add_field_(half, torch.tensor([5]), torch.ones(1, dtype=torch.float64), "rademacher", 1)
print(cache_folder(), supports(torch.float16), int(out.view(torch.int32).long().sum()), int(half.sum()), sep="|", end="|")
print("numba" in sys.modules)
"""


LOOPS = [
    ("add_one_seed", torch.float32),
    ("sum_values", torch.float32, torch.float32, torch.float32),
    ("sum_rademacher", torch.float32, torch.float32),
    ("materialize_sketch", torch.float32, torch.bfloat16),
    ("project_sketch", torch.float16),
]
NORMAL = "sum_values-float32-float32-float32"


def start(**environment):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output.strip().split("|")


@pytest.fixture(scope="module")
def expected():
    out, half = torch.zeros(1000), torch.zeros(1000, dtype=torch.float16)
    one = torch.ones(1, dtype=torch.float64)
    reference.add_field_(out, Terms(torch.tensor([5]), one, "normal"), Place(1))
    reference.materialize_sketch_(out, out, torch.ones(100), 5, 0, Place(1))
    reference.add_field_(half, Terms(torch.tensor([5]), one, "rademacher"), Place(1))
    return [str(int(out.view(torch.int32).long().sum())), str(int(half.sum()))]


@pytest.mark.processes
def test_processes_that_compile_at_once_share_one_cache(tmp_path, expected):
    results = [finish(process) for process in [start(NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(3)]]
    assert all(result[2:4] == expected for result in results)
    folder = results[0][0]
    assert all(result[0] == folder for result in results)
    compiled = sorted(path.name for path in Path(folder).iterdir())
    assert compiled == ["add_one_seed-float16", "materialize_sketch-float32-float32", NORMAL]
    assert finish(start(NUMBA_CACHE_DIR=str(tmp_path)))[2:] == [*expected, "False"], (
        "the second run loaded the compiler"
    )
    (Path(folder) / NORMAL).write_bytes(b"damaged")
    assert finish(start(NUMBA_CACHE_DIR=str(tmp_path)))[2:] == [*expected, "True"]


@pytest.mark.processes
def test_without_a_folder_to_write_to_each_process_compiles_for_itself(tmp_path, expected):
    taken = tmp_path / "file"
    taken.write_text("not a folder")
    result = finish(start(NUMBA_CACHE_DIR=str(taken)))
    assert result[0] == "None"
    assert result[2:4] == expected


@pytest.mark.processes
def test_a_plain_processor_gives_the_same_bits(tmp_path, expected):
    """Without AVX, F16C or FMA: the vector steps are lowered to what there is."""
    result = finish(start(NUMBA_CACHE_DIR=str(tmp_path), NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES=""))
    assert result[2:4] == expected


def test_the_cache_is_keyed_by_the_sources(tmp_path, monkeypatch):
    before = cache._fingerprint()
    (tmp_path / "steps.py").write_text("changed")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache.py"))
    assert cache._fingerprint() != before


def test_code_of_another_digest_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path)
    cache.write("loop", b"code")
    assert cache.read("loop") == b"code"
    assert cache.read("another") is None
    (tmp_path / "loop").write_bytes((tmp_path / "loop").read_bytes()[:-1])
    assert cache.read("loop") is None


def test_object_code_runs_without_what_compiled_it(monkeypatch):
    monkeypatch.setattr(cache, "read", lambda name: None)
    monkeypatch.setattr(cache, "write", lambda name, code: None)
    loop = native.kernel.__wrapped__("add_one_seed", torch.float32)
    expected, found = torch.zeros(100), torch.zeros(100)
    loop(found.data_ptr(), 0, 100, 5, 1, 0, 0, 0.5)
    reference.add_field_(expected, Terms(torch.tensor([5]), torch.tensor([0.5]), "rademacher"), Place(1))
    assert torch.equal(expected, found)


@pytest.mark.parametrize("kinds", LOOPS[:3], ids=lambda kinds: kinds[0])
def test_no_product_is_contracted_with_a_sum(kinds):
    code = assembly(*kinds)
    assert re.search(r"\bv?(add|mul|fadd|fmul)[a-z]*", code)
    assert not re.findall(r"\bv?f(?:n?m(?:add|sub)|ml[as])\w*", code)


@pytest.mark.parametrize("kinds", LOOPS, ids=lambda kinds: kinds[0])
def test_compiled_code_calls_nothing_but_memory_functions(kinds):
    """What it called of numba's would not be there in a process without numba."""
    module, _ = compiling._compiled(kinds[0], kinds[1:])
    called = {function.name for function in module.functions if function.is_declaration}
    assert all(name.startswith("llvm.") for name in called)
