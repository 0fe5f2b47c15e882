"""Compiled kernels on disk: shared by processes, keyed by source and processor, absent where nothing can be written."""

import os
import re
import subprocess
import sys

import pytest
import torch

from covector.kernels import reference
from covector.kernels.cpu import compile as compiling

PROGRAM = """
import torch
from covector import kernels
from covector.kernels.cpu.compile import cache_folder, processor, supports
out = torch.zeros(1000)
kernels.add_field_(out, torch.tensor([5]), torch.ones(1, dtype=torch.float64), "normal", 1)
kernels.materialize_sketch_(out, out, torch.ones(100), 5, 1, 0)
half = torch.zeros(1000, dtype=torch.float16)
kernels.add_field_(half, torch.tensor([5]), torch.ones(1, dtype=torch.float64), "rademacher", 1)
print(cache_folder(), supports(torch.float16), int(out.view(torch.int32).long().sum()), int(half.sum()), sep="|")
"""


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
    reference.add_field_(out, torch.tensor([5]), one, "normal", 1)
    reference.materialize_sketch_(out, out, torch.ones(100), 5, 1, 0)
    reference.add_field_(half, torch.tensor([5]), one, "rademacher", 1)
    return [str(int(out.view(torch.int32).long().sum())), str(int(half.sum()))]


@pytest.mark.processes
def test_processes_that_compile_at_once_share_one_cache(tmp_path, expected):
    results = [finish(process) for process in [start(NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(3)]]
    assert all(result[2:] == expected for result in results)
    folder = results[0][0]
    assert all(result[0] == folder for result in results)
    compiled = sorted(path.name for path in tmp_path.rglob("*.nb?"))
    kernels = {path.parent.parent.name for path in tmp_path.rglob("*.nbc")}
    assert len(compiled) == 2 * len(kernels), "one index and one body a kernel"
    assert finish(start(NUMBA_CACHE_DIR=str(tmp_path)))[2:] == expected
    assert sorted(path.name for path in tmp_path.rglob("*.nb?")) == compiled, "the second run compiled again"


@pytest.mark.processes
def test_without_a_folder_to_write_to_each_process_compiles_for_itself(tmp_path, expected):
    taken = tmp_path / "file"
    taken.write_text("not a folder")
    result = finish(start(NUMBA_CACHE_DIR=str(taken)))
    assert result[0] == "None"
    assert result[2:] == expected


@pytest.mark.processes
def test_a_plain_processor_gives_the_same_bits(tmp_path, expected):
    """Without AVX, F16C or FMA: the vector steps are lowered to what there is."""
    result = finish(start(NUMBA_CACHE_DIR=str(tmp_path), NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES=""))
    assert result[2:] == expected


def test_numba_is_left_as_it_was(tmp_path):
    from numba import config

    before = config.CACHE_DIR
    compiling.kernel("add_one_seed", torch.float32)
    assert before == config.CACHE_DIR


def test_the_cache_is_keyed_by_the_sources(tmp_path, monkeypatch):
    before = compiling._fingerprint()
    (tmp_path / "steps.py").write_text("changed")
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "compile.py"))
    assert compiling._fingerprint() != before


@pytest.mark.parametrize(
    "kinds",
    [
        ("add_one_seed", torch.float32),
        ("sum_values", torch.float32, torch.float32, torch.float32),
        ("sum_rademacher", torch.float32, torch.float32),
    ],
    ids=lambda kinds: kinds[0],
)
def test_no_product_is_contracted_with_a_sum(kinds, monkeypatch):
    monkeypatch.setattr(compiling, "cache_folder", lambda: None)
    kernel = compiling.kernel.__wrapped__(*kinds)
    (assembly,) = kernel.inspect_asm().values()
    assert re.search(r"\bv?(add|mul|fadd|fmul)[a-z]*", assembly)
    assert not re.findall(r"\bv?f(?:n?m(?:add|sub)|ml[as])\w*", assembly)
