"""Muon and its relatives against equations written out, torch's own, and each other in their limits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from covector.errors import ArgumentError, NonFiniteError
from covector.linalg import msign
from covector.optim import AdaMuon, Muon, NorMuon, roles
from covector.optim.lmo import WIDTHS, shape
from covector.optim.matrices import as_matrices, from_matrices, map_matrices, stacks

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def run(make: Any, shape: tuple[int, ...] = (6, 4), steps: int = 5, dtype: torch.dtype = F64, **options: Any) -> Tensor:
    """A parameter after steps with gradients that do not depend on it."""
    p = nn.Parameter(draw(*shape, seed=99).to(dtype))
    optimizer = make([p], **options)
    for step in range(steps):
        p.grad = draw(*shape, seed=step).to(dtype)
        optimizer.step()
    return p.detach()


def test_muon_is_momentum_orthogonalized_and_scaled() -> None:
    w, m = draw(6, 4, seed=99), torch.zeros(6, 4, dtype=F64)
    for step in range(5):
        g = draw(6, 4, seed=step)
        m = 0.9 * m + 0.1 * g
        w = w - 0.02 * (0.3 * w + (6 / 4) ** 0.5 * msign(0.1 * g + 0.9 * m, "svd"))
    ours = run(Muon, momentum=0.9, weight_decay=0.3, method="svd")
    torch.testing.assert_close(ours, w)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(("scale", "theirs"), [("spectral", "original"), ("rms", "match_rms_adamw")])
def test_muon_agrees_with_torch(nesterov: bool, scale: str, theirs: str) -> None:
    ours = run(Muon, (8, 5), dtype=torch.float32, weight_decay=0.1, nesterov=nesterov, scale=scale)
    reference = run(
        torch.optim.Muon, (8, 5), dtype=torch.float32, lr=0.02, weight_decay=0.1, nesterov=nesterov, adjust_lr_fn=theirs
    )
    # torch iterates in bfloat16
    torch.testing.assert_close(ours, reference, rtol=0.0, atol=0.02 * 5 * 0.03 * (1 if scale == "spectral" else 0.6))


def test_the_momentum_of_a_bfloat16_matrix_is_its_average() -> None:
    def buffer(make: Any) -> Tensor:
        p = nn.Parameter(torch.zeros(8, 8, dtype=torch.bfloat16))
        optimizer = make([p], lr=0.01, momentum=0.9, nesterov=False)
        for step in range(6):
            p.grad = draw(8, 8, seed=step).bfloat16()
            optimizer.step()
        return optimizer.state[p]["momentum_buffer"].double()

    expected = torch.zeros(8, 8, dtype=F64)
    for step in range(6):
        expected = 0.9 * expected + 0.1 * draw(8, 8, seed=step).bfloat16().double()
    torch.testing.assert_close(buffer(Muon), expected, rtol=1e-5, atol=1e-6)
    # torch 2.13 normalizes its buffer in place there: the defect that this guards against
    if torch.__version__.startswith("2.13"):
        assert not torch.allclose(buffer(torch.optim.Muon), expected, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("kind", ["full", "rows", "lowrank"])
def test_the_variance_is_an_average_of_squares_at_its_granularity(kind: str) -> None:
    w, m = draw(6, 4, seed=99), torch.zeros(6, 4, dtype=F64)
    full, rows, columns = torch.zeros(6, 4, dtype=F64), torch.zeros(6, 1, dtype=F64), torch.zeros(1, 4, dtype=F64)
    for step in range(5):
        g = draw(6, 4, seed=step)
        m = 0.95 * m + 0.05 * g
        o = msign(0.05 * g + 0.95 * m, "svd")
        full = 0.9 * full + 0.1 * o**2
        rows = 0.9 * rows + 0.1 * (o**2).mean(1, keepdim=True)
        columns = 0.9 * columns + 0.1 * (o**2).mean(0, keepdim=True)
        v = {"full": full, "rows": rows, "lowrank": rows * columns / rows.mean()}[kind]
        w = w - 0.01 * o / ((v / (1 - 0.9 ** (step + 1))).sqrt() + 1e-8)
    torch.testing.assert_close(run(AdaMuon, lr=0.01, variance=kind, beta2=0.9, method="svd"), w)


def test_low_rank_variance_is_the_full_one_where_squares_have_rank_one() -> None:
    p = {kind: nn.Parameter(torch.zeros(5, 1, dtype=F64)) for kind in ("full", "lowrank")}
    for kind, param in p.items():
        optimizer = AdaMuon([param], variance=kind, method="svd")
        for step in range(4):
            param.grad = draw(5, 1, seed=step)
            optimizer.step()
    torch.testing.assert_close(p["full"], p["lowrank"])


def test_normuon_keeps_the_length_of_the_orthogonal_factor() -> None:
    p = nn.Parameter(torch.zeros(6, 4, dtype=F64))
    optimizer = NorMuon([p], lr=1.0, scale="none", method="svd")
    for step in range(3):
        p.grad = draw(6, 4, seed=step)
        update = optimizer.update()[p]
        torch.testing.assert_close(update.norm(), torch.tensor(2.0, dtype=F64))  # four singular values of 1


def test_adamuon_as_first_published_has_adams_root_mean_square() -> None:
    p = nn.Parameter(torch.zeros(6, 4, dtype=F64))
    p.grad = draw(6, 4)
    update = AdaMuon([p], lr=1.0, rescale="rms").update()[p]
    torch.testing.assert_close(update.square().mean().sqrt(), torch.tensor(0.2, dtype=F64))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.conv = nn.Conv2d(3, 4, 3)
        self.up = nn.ConvTranspose1d(5, 2, 3)
        self.cell = nn.LSTM(6, 7)
        self.attention = nn.MultiheadAttention(8, 2)
        self.hidden = nn.Linear(7, 8)
        self.head = nn.Linear(8, 11)


def test_a_module_is_split_by_roles_and_each_layout_orthogonalized_as_it_is() -> None:
    net = Net().double()
    optimizer = Muon(net, lr=1.0, scale="none", method="svd", adam_lr=0.5)
    names = {id(p): name for name, p in net.named_parameters()}
    matrices = {names[id(p)] for g in optimizer.param_groups if g["slots"] == "matrix" for p in g["params"]}
    hidden = {"cell.weight_ih_l0", "cell.weight_hh_l0", "attention.in_proj_weight", "attention.out_proj.weight"}
    assert matrices == {"conv.weight", "up.weight", "hidden.weight", *hidden}
    others = [g for g in optimizer.param_groups if g["slots"] != "matrix"]
    assert [g["lr"] for g in others] == [0.5]
    for i, p in enumerate(net.parameters()):
        p.grad = draw(*p.shape, seed=i)
    updates = optimizer.update()

    def check(name: str, blocks: int = 1, transposed: bool = False) -> None:
        p = dict(net.named_parameters())[name]
        for step, grad in zip(
            as_matrices(updates[p], blocks, transposed), as_matrices(p.grad, blocks, transposed), strict=True
        ):
            torch.testing.assert_close(-step, msign(grad, "svd"))

    check("conv.weight")
    check("up.weight", transposed=True)
    check("cell.weight_ih_l0", blocks=4)
    check("attention.in_proj_weight", blocks=3)
    check("hidden.weight")
    head = net.head.weight
    torch.testing.assert_close(updates[head], -0.5 * head.grad.sign())  # Adam's first step


def test_the_width_of_every_layout_is_that_of_its_matrices() -> None:
    for p, group in [
        (draw(6, 4, 3), {"transposed": True}),
        (draw(12, 5), {"blocks": 4}),
        (draw(8, 3, 2), {}),
        (draw(5), {}),
    ]:
        matrices = as_matrices(p, group.get("blocks", 1), group.get("transposed", False))
        assert shape(p, group) == tuple(matrices.shape[1:])
    tall = nn.Parameter(torch.zeros(8, 2, dtype=F64))
    tall.grad = draw(8, 2)
    lengths = {kind: float(Muon([tall], lr=1.0, scale=kind, method="svd").update()[tall].norm()) for kind in WIDTHS}
    assert lengths["spectral"] == pytest.approx(2 * lengths["none"])
    assert lengths["rms"] == pytest.approx(0.2 * 8**0.5 * lengths["none"])
    assert lengths["splus"] == pytest.approx(0.2 * lengths["none"])


def test_roles_can_be_overridden() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    optimizer = Muon(roles(net, override={"1.weight": "other"}))
    assert [len(g["params"]) for g in optimizer.param_groups] == [1, 5]


def test_groups_keep_their_hyperparameters_when_they_are_split() -> None:
    a, b = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))
    optimizer = Muon(
        [{"params": [a, b], "weight_decay": 0.3}, {"params": [nn.Parameter(torch.zeros(3, 3))], "lr": 1.0}]
    )
    assert [(g["slots"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        ("matrix", 0.02, 0.3),
        ("adamw", 3e-4, 0.3),
        ("matrix", 1.0, 0.0),
    ]
    vector = nn.Parameter(torch.zeros(4))
    optimizer.add_param_group({"params": [vector], "slots": "matrix", "lr": 1.0, "scale": "none"})
    vector.grad = torch.tensor([3.0, 0.0, 4.0, 0.0])
    torch.testing.assert_close(optimizer.update()[vector].norm(), torch.tensor(1.0), rtol=0.4, atol=0.0)


def test_equal_matrices_are_stacked_and_each_mapped_as_if_alone() -> None:
    tensors = [draw(3, 4), draw(3, 4, seed=1), draw(8, 4, seed=2), draw(3, 2, 2, seed=3)]
    calls: list[int] = []

    def function(stack: Any) -> Tensor:
        calls.append(len(stack.matrices))
        return msign(stack.matrices, "svd")

    out = map_matrices(function, tensors, {})
    assert sorted(calls) == [1, 3]
    for tensor, mapped in zip(tensors, out, strict=True):
        torch.testing.assert_close(mapped, msign(tensor.flatten(1), "svd").reshape(tensor.shape))


@pytest.mark.parametrize("tile", [1, 2, 3, 10])
def test_tiles_are_put_back_where_they_were(tile: int) -> None:
    tensors = [draw(5, 7), draw(4, 3, 2)]
    out = map_matrices(lambda stack: 2.0 * stack.matrices, tensors, {"transposed": True}, tile=tile)
    for tensor, mapped in zip(tensors, out, strict=True):
        torch.testing.assert_close(mapped, 2.0 * tensor)
    assert all(max(s.matrices.shape[1:]) <= tile for s in stacks(tensors, {}, tile))


def test_layouts_come_back_as_they_were() -> None:
    x = draw(6, 4, 3)
    assert torch.equal(from_matrices(as_matrices(x, 3), x), x)
    assert torch.equal(from_matrices(as_matrices(x, 2, True), x, True), x)
    with pytest.raises(ArgumentError, match="blocks"):
        as_matrices(x, 4)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    optimizer = Muon(net)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    before = [p.detach().clone() for p in net.parameters()]
    state = str(optimizer.state_dict())
    net[1].weight.grad[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"\(3, 3\)"):
        optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))
    assert str(optimizer.state_dict()) == state


@pytest.mark.parametrize(
    "options", [{"scale": "wide"}, {"variance": "half"}, {"variance": "full", "rescale": "x"}, {"momentum": 1.0}, {"adam_betas": (1.0, 0.9)}], ids=str
)  # fmt: skip
def test_what_cannot_work_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=list(options)[-1].removeprefix("adam_")):
        Muon(nn.Linear(2, 2), **options)
