"""Compare the Triton programs with the definition on CPU tensors; run with ``TRITON_INTERPRET=1``.

Prints one line a comparison that failed, and how many were made.
"""

import sys

import torch

from covector.kernels import reference
from covector.kernels.cuda import operations as cuda
from covector.kernels.operands import Place, Terms

BITS = {torch.float32: torch.int32, torch.float64: torch.int64, torch.bfloat16: torch.int16, torch.float16: torch.int16}
# the last count and start put a program's edge inside the range
RANGES = [(0, 3), (130, 5), (2100, 2**33 + 2000)]
SEED = -5

made = 0


def compare(expected, found, *what):
    global made
    made += 1
    kind = BITS[expected.dtype]
    if not torch.equal(expected.view(kind), found.view(kind)):
        print("differs:", *what)


def sums(dtype, count, start):
    base = torch.randn(count, generator=torch.Generator().manual_seed(count)).to(dtype)
    seeds = torch.tensor([SEED, 12345])
    for distribution in ("rademacher", "binomial", "normal"):
        scales = torch.tensor([0.3, -1.7], dtype=torch.float64)
        expected, found = base.clone(), base.clone()
        for kernel, out in ((reference, expected), (cuda, found)):
            kernel.add_field_(out, Terms(seeds, scales, distribution), Place(0xFFFFFFFF, start, 1, 9))
        compare(expected, found, "add", dtype, count, start, distribution)
    for distribution in ("rademacher", "binomial"):
        for units in ([3, -50], [2**40 + 1, -5]):
            expected, found = torch.empty_like(base), torch.empty_like(base)
            terms = Terms(seeds, torch.tensor(units), distribution)
            for kernel, out in ((reference, expected), (cuda, found)):
                kernel.materialize_seeded_(out, base, terms, 6, Place(7, start))
            compare(expected, found, "materialize", dtype, count, start, distribution, units)


def sketches(dtype, count, start):
    base = torch.randn(count, generator=torch.Generator().manual_seed(count)).to(dtype)
    for size, shift in ((64, 0), (75, 3**20)):
        table = torch.randn(size, dtype=reference.work_dtype(dtype))
        totals = torch.randn(size, dtype=torch.float64)
        place, rest = Place(7, start, 1, 2), shift % size
        expected, found = torch.empty_like(base), torch.empty_like(base)
        projected, projected_too = totals.clone(), totals.clone()
        for kernel, out, into in ((reference, expected, projected), (cuda, found, projected_too)):
            kernel.materialize_sketch_(out, base, table, SEED, rest, place)
            # the interpreter walks one period of the table at a time, so the gradient is kept short
            kernel.project_sketch_(into, base[:300], SEED, rest, place)
        compare(expected, found, "sketch", dtype, count, start, size, shift)
        compare(projected, projected_too, "project", dtype, count, start, size, shift)


def main():
    torch.manual_seed(0)
    for dtype in BITS:
        for count, start in RANGES:
            sums(dtype, count, start)
            sketches(dtype, count, start)
    print("compared:", made)


if __name__ == "__main__":
    sys.exit(main())
