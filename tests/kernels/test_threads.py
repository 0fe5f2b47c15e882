"""The number of threads changes nothing but the time; a forked child works."""

import itertools
import multiprocessing
import os
import threading

import pytest
import torch

from covector import kernels
from covector.kernels.cpu.threads import split

COUNT = 300_001


@pytest.fixture(autouse=True)
def threads_put_back():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def everything():
    base = torch.randn(COUNT, generator=torch.Generator().manual_seed(0))
    seeds, units = torch.arange(20), torch.arange(20) - 7
    one, many, exact, sketched = base.clone(), base.clone(), base.clone(), base.clone()
    totals = torch.zeros(5000, dtype=torch.float64)
    kernels.add_field_(one, seeds[:1], torch.ones(1, dtype=torch.float64), "rademacher", 1, 77)
    kernels.add_field_(many, seeds, units / 3, "normal", 1, 77)
    kernels.materialize_seeded_(exact, base, seeds, units, "rademacher", 10, 1, 77)
    kernels.materialize_sketch_(sketched, base, base[:5000].clone(), 3, 1, 9, 77)
    kernels.project_sketch_(totals, base, 3, 1, 9, 77)
    return torch.cat([t.double() for t in (one, many, exact, sketched, totals)])


def test_results_do_not_depend_on_the_number_of_threads():
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(everything())
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2047, 2048, 2049, 100_000])
def test_pieces_cover_the_range_once(threads, count):
    torch.set_num_threads(threads)
    seen, lock = [], threading.Lock()

    def work(begin, end):
        with lock:
            seen.append((begin, end))

    split(work, count, 2048, cost=1e9)
    seen.sort()
    assert seen[0][0] == 0
    assert seen[-1][1] == count
    assert all(left[1] == right[0] and right[0] % 2048 == 0 for left, right in itertools.pairwise(seen))
    assert len(seen) <= threads


def test_a_small_range_stays_on_the_calling_thread():
    torch.set_num_threads(3)
    names = []
    split(lambda begin, end: names.append(threading.current_thread()), 10_000, 2048, cost=1e4)
    assert names == [threading.current_thread()]


def test_an_error_in_a_piece_comes_out():
    torch.set_num_threads(2)

    def work(begin, end):
        if begin:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        split(work, 100_000, 2048, cost=1e9)


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_wait_for_its_parents_threads():
    torch.set_num_threads(2)
    seeds, scales = torch.arange(20), torch.ones(20, dtype=torch.float64)
    expected, found = torch.zeros(COUNT), torch.zeros(COUNT).share_memory_()
    kernels.add_field_(expected, seeds, scales, "rademacher", 1)  # starts the threads

    def child():
        kernels.add_field_(found, seeds, scales, "rademacher", 1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(120)
    finished = process.exitcode
    process.kill()
    assert finished == 0
    assert torch.equal(expected, found)


def test_several_python_threads_at_once():
    expected = everything()
    results = []
    workers = [threading.Thread(target=lambda: results.append(everything())) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 3
    assert all(torch.equal(expected, result) for result in results)
