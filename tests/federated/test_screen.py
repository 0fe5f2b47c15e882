"""Screening: what one hostile or broken client can do is bounded, honest scalars pass untouched."""

import math

import pytest
import torch

from covector.errors import ArgumentError
from covector.federated import Grads, Screen, Verdict, run
from covector.federated.commit import Settings, units_of
from covector.federated.kseed import rewritten, scalars
from covector.federated.payloads import SKIPPED, Kind, Payload
from covector.federated.screen import RunningMedian, finite_part, is_step, screened


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_scalars_within_the_bound_are_untouched():
    rho = {0: numbers(1.0, -63.9), 1: numbers(0.5)}
    for values, changed in screened(Screen(), 1.0, rho).values():
        assert not bool(changed.any())
        assert any(torch.equal(values, r) for r in rho.values())


def test_clip_and_drop():
    rho = {0: numbers(1.0, -900.0)}
    clipped, _ = screened(Screen(bound=10.0), 1.0, rho)[0]
    assert clipped.tolist() == [1.0, -10.0]
    dropped, changed = screened(Screen(bound=10.0, policy="drop"), 1.0, rho)[0]
    assert math.isnan(dropped[1])
    assert changed.tolist() == [False, True]


def test_without_history_the_rounds_own_median_is_the_scale():
    rho = {0: numbers(1.0, 1.0, -1.0), 1: numbers(1e9)}
    assert screened(Screen(bound=10.0), None, rho)[1][0].tolist() == [10.0]


def test_trimming_pulls_the_tails_to_the_quantiles():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1000, generator=generator, dtype=torch.float64)
    pulled, changed = screened(Screen(bound=None, trim=0.1), None, {0: values})[0]
    low, high = torch.quantile(values, numbers(0.1, 0.9)).tolist()
    assert (float(pulled.min()), float(pulled.max())) == (low, high)
    assert 150 < int(changed.sum()) <= 200


def test_the_running_median_survives_one_bad_round():
    median = RunningMedian()
    for scale in (1.0, 1.1, 1e9, 0.9, 1.0):
        median.observe(numbers(scale, -scale, scale))
    assert median.value == 1.0


@pytest.mark.parametrize("step_units", [1 << 8, 1 << 20, 1 << 30])
def test_a_bounded_byte_is_the_largest_code_within_the_bound(federation, step_units):
    header = federation("compact").header
    settings = Settings(1, header.lr, step_units)
    payload = Payload(Kind.BYTES, torch.arange(256).to(torch.uint8))
    rho = scalars(header, settings, payload)
    bound = float(rho.abs().median()) * 3
    values, changed = Screen(bound=3.0).limit(rho, -bound, bound)
    seen = rewritten(header, settings, payload, values, changed)
    units, limit = units_of(header, settings, seen), bound * header.lr * 2.0**header.quantum
    assert int(units.abs().max()) <= limit * (1 + 1e-12) < int(units.abs().max()) * 2 ** (1 / 8) + 2
    kept = ~changed
    assert torch.equal(units[kept], units_of(header, settings, payload)[kept])
    assert torch.equal(units.sign(), units_of(header, settings, payload).sign())


def test_dropped_scalars_become_skipped_steps(federation):
    header = federation("compact").header
    for payload in (
        Payload(Kind.BYTES, torch.tensor([1, 127], dtype=torch.uint8)),
        Payload(Kind.SCALARS, torch.tensor([1.0, 9.0])),
    ):
        settings = Settings(1, 0.1, 1 << 20)
        seen = rewritten(header, settings, payload, numbers(1.0, math.nan), torch.tensor([False, True]))
        assert is_step(seen).tolist() == [True, False]
        assert units_of(header, settings, seen)[1] == 0
    assert SKIPPED == 128


def test_non_finite_numbers_are_left_out():
    payload, bad = finite_part(Payload(Kind.SCALARS, torch.tensor([1.0, math.nan, -math.inf])))
    assert bad == 2
    assert is_step(payload).tolist() == [True, False, False]
    assert finite_part(Payload(Kind.COORDINATES, torch.tensor([1.0, math.nan]))) == (None, 2)


@pytest.mark.parametrize("wire", ["faithful", "compact"])
@pytest.mark.parametrize("policy", ["clip", "drop"])
def test_an_absurd_client_moves_the_model_no_more_than_the_bound(federation, wire, policy):
    options = {"server": {"screen": Screen(bound=8.0, policy=policy)}, "clients": 2, "weighting": "equal"}
    made = federation(wire, **options)
    run(made.server, made.clients, 2)
    before, median = made.server.ledger.values(), made.server.history.median.value

    def faults(way, round, client, data):
        if way == "down" or client == "client-0":
            return [data]
        grads = Grads.from_bytes(data, made.header)
        absurd = torch.full_like(grads.payload.numbers, 1e30 if wire == "faithful" else 127)
        payload = Payload(grads.payload.kind, absurd, grads.payload.ids)
        return [Grads(grads.round, grads.client, 0, 1, 0.0, payload).to_bytes(made.header)]

    run(made.server, made.clients, 3, faults=faults)
    moved = (made.server.ledger.values() - before).abs().sum()
    assert 0 < float(moved) <= made.header.lr * 8.0 * median * made.header.local_steps * 1.001
    (event,) = [event for event in made.server.report if (event.round, event.client) == (3, "client-1")]
    assert event.verdict is Verdict.ABSURD
    assert event.detail == "4 of 4"


@pytest.mark.parametrize("options", [{"bound": 1.0}, {"policy": "keep"}, {"trim": 0.5}, {"bound": math.nan}])
def test_policies_that_cannot_work_are_refused(options):
    with pytest.raises(ArgumentError):
        Screen(**options)
