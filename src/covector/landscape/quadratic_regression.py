"""Second-order regression: models quadratic in their parameters, the simplest whose tangent kernel moves.

Residuals ``z(theta) = z_0 + J_0 theta + Q(theta, theta) / 2`` under ``|z|^2 / 2``. Gradient descent is then a closed
recursion in z and J, without theta, and already shows progressive sharpening and the edge of stability.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import jvp

from covector import random
from covector.curvature.frozen import differentiable
from covector.errors import ArgumentError, CompositionError, MismatchError, UnsupportedError
from covector.objective import Batch, Objective
from covector.trees import Params, clone

__all__ = ["QuadraticRegression", "Trajectory", "taylor", "two_parameter"]


class Trajectory(NamedTuple):
    """A run of gradient descent.

    Attributes:
        losses: float64 ``[steps + 1]``; infinite from where it diverged.
        eigenvalues: the largest of ``J J^T``, the tangent kernel, float64 ``[steps + 1]``.
        model: the model at the end.
    """

    losses: Tensor
    eigenvalues: Tensor
    model: QuadraticRegression


class QuadraticRegression:
    """A model of D residuals, quadratic in P parameters, seen from its present point.

    Args:
        z: residuals, ``[D]``.
        jacobian: ``[D, P]``.
        q: second derivatives, ``[D, P, P]``, symmetric in the last two.

    Raises:
        MismatchError: shapes that do not belong together, or a second derivative that is not symmetric.

    Source: Agarwala, Pedregosa, Pennington, "Second-order regression models exhibit progressive sharpening to the edge
    of stability" (ICML 2023).

    >>> model = QuadraticRegression(torch.tensor([1.0]), torch.tensor([[2.0]]), torch.tensor([[[1.0]]]))
    >>> model.residuals(torch.tensor([1.0])), model.step(0.5).z  # theta = -0.5 * 2 * 1
    (tensor([3.5000]), tensor([-0.5000]))
    """

    def __init__(self, z: Tensor, jacobian: Tensor, q: Tensor) -> None:
        d, p = jacobian.shape if jacobian.ndim == 2 else (-1, -1)
        if z.shape != (d,) or q.shape != (d, p, p):
            raise MismatchError(
                f"z {tuple(z.shape)}, jacobian {tuple(jacobian.shape)}, q {tuple(q.shape)}: "
                "expected [D], [D, P] and [D, P, P]"
            )
        if not torch.allclose(q, q.mT):
            raise MismatchError("q is not symmetric in its last two dimensions; use (q + q.mT) / 2")
        self.z, self.jacobian, self.q = z, jacobian, q

    @classmethod
    def random(
        cls, residuals: int, parameters: int, *, sigma_z: float = 1.0, sigma_q: float = 1.0, seed: int = 0
    ) -> QuadraticRegression:
        """A random model in float64: z of variance ``sigma_z^2``, J of ``1 / P``, Q of ``(sigma_q / P)^2``.

        Args:
            residuals: D.
            parameters: P.
            sigma_z: size of the residuals (default 1).
            sigma_q: size of the curvature (default 1); 0 is a linear model.
            seed: of the draw.

        >>> QuadraticRegression.random(3, 5).jacobian.shape
        torch.Size([3, 5])
        """

        def normal(name: str, *shape: int) -> Tensor:
            count = int(torch.Size(shape).numel())
            return random.draw(seed, name, count, "normal", dtype=torch.float64).reshape(shape)

        q = normal("q", residuals, parameters, parameters) * (sigma_q / parameters)
        jacobian = normal("jacobian", residuals, parameters) / parameters**0.5
        return cls(normal("z", residuals) * sigma_z, jacobian, (q + q.mT) / 2)

    def residuals(self, theta: Tensor) -> Tensor:
        """The residuals ``[D]`` at a displacement ``theta`` ``[P]`` from here; differentiable."""
        return self.z + self.jacobian @ theta + 0.5 * (self.q @ theta) @ theta

    @property
    def loss(self) -> float:
        """``|z|^2 / 2``."""
        return 0.5 * float(self.z.double().square().sum())

    def eigenvalue(self) -> float:
        """The largest eigenvalue of ``J J^T``."""
        return float(torch.linalg.matrix_norm(self.jacobian, 2)) ** 2

    def step(self, lr: float) -> QuadraticRegression:
        """The model after one step of gradient descent: ``z - lr J J^T z + lr^2 Q(J^T z, J^T z) / 2``, exactly."""
        slope = self.jacobian.mT @ self.z
        bend = self.q @ slope
        moved = object.__new__(QuadraticRegression)  # q, the only thing that is checked at length, stays the same
        moved.z = self.z - lr * (self.jacobian @ slope) + 0.5 * lr**2 * (bend @ slope)
        moved.jacobian, moved.q = self.jacobian - lr * bend, self.q
        return moved

    def simulate(self, lr: float, steps: int) -> Trajectory:
        """Gradient descent with loss and tangent kernel after each step.

        Args:
            lr: learning rate, positive; stability of a linear model ends at two over the eigenvalue.
            steps: at least 1.

        Raises:
            ArgumentError: an argument out of range.
        """
        if lr <= 0 or steps < 1:
            raise ArgumentError("lr, steps", (lr, steps), "a positive number and a whole number of at least 1")
        model, losses, eigenvalues = self, [self.loss], [self.eigenvalue()]
        for _ in range(steps):
            moved = model.step(lr)
            if not moved.loss < 1e30:
                break
            model = moved
            losses.append(model.loss)
            eigenvalues.append(model.eigenvalue())
        missing = [float("inf")] * (steps + 1 - len(losses))
        series = [torch.tensor([*found, *missing], dtype=torch.float64) for found in (losses, eigenvalues)]
        return Trajectory(series[0], series[1], model)


def two_parameter(epsilon: float, z: float, t: float, steps: int, energy: float = 0.0) -> tuple[Tensor, Tensor]:
    """The model with one residual and ``Q = diag(1, -epsilon)`` under a learning rate of 1, as a map of two numbers.

    ``z = Q(theta, theta) / 2 - energy``. From near (0, 2), z goes to 0 and the eigenvalue t of the tangent kernel to
    ``2 - epsilon / 2 + O(epsilon^2)`` for ``energy = 0``: to the edge of stability, but not quite to 2.

    Args:
        epsilon: the smaller curvature, in (0, 1].
        z: the first residual.
        t: the first eigenvalue.
        steps: how many.
        energy: see above (default 0).

    Returns:
        z and t, float64 ``[steps + 1]`` each.

    Raises:
        ArgumentError: ``epsilon`` outside of (0, 1], ``steps`` below 1.

    >>> zs, ts = two_parameter(0.01, -0.05, 2.1, 4000)
    >>> round(abs(zs[-1].item()), 6), round((2 - ts[-1].item()) / 0.01, 1)
    (0.0, 0.5)
    """
    if not 0 < epsilon <= 1 or steps < 1:
        raise ArgumentError("epsilon, steps", (epsilon, steps), "a number in (0, 1] and a whole number of at least 1")
    zs, ts = [z], [t]
    for _ in range(steps):
        once = (1 - epsilon) * t + 2 * epsilon * (z + energy)
        twice = (1 - epsilon) * once + epsilon * t
        z, t = z - z * t + 0.5 * z * z * once, t - 2 * z * once + z * z * twice
        zs.append(z)
        ts.append(t)
    return torch.tensor(zs, dtype=torch.float64), torch.tensor(ts, dtype=torch.float64)


def taylor(objective: Objective, batch: Batch, order: int = 2) -> Objective:
    """The objective whose *outputs* are their Taylor polynomial around the present parameters; the loss stays itself.

    Order 1 is the network at a constant tangent kernel, order 2 its second-order regression model: does it follow the
    sharpness of the network? Training and every curvature operator work on it, on the same batch.

    Args:
        objective: made from a module whose outputs are a tensor.
        batch: the data.
        order: 1 or 2 (default 2).

    Returns:
        An objective with parameters of its own, at the present point.

    Raises:
        ArgumentError: another order.
        CompositionError: the objective is a plain function, without outputs or loss.
        UnsupportedError: the outputs are not a tensor.

    >>> from torch import nn
    >>> net = Objective(nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 1)), nn.functional.mse_loss)
    >>> batch = (torch.ones(3, 1), torch.zeros(3, 1))
    >>> bool(torch.isclose(taylor(net, batch)(batch), net(batch)))
    True
    """
    if order not in (1, 2):
        raise ArgumentError("order", order, "1 or 2")
    if objective.module is None or objective.loss is None:
        raise CompositionError("taylor expands the outputs of a module under a loss; use Objective(module, loss)")
    loss, origin = objective.loss, clone(objective.params)
    if not isinstance(objective.outputs(batch, origin), Tensor):
        raise UnsupportedError("the outputs are not a tensor; wrap the module so that it returns one")

    def outputs(params: Params) -> Tensor:
        found = objective.outputs(batch, params)
        assert isinstance(found, Tensor)
        return found

    def polynomial(params: Params, data: Batch) -> Tensor:
        away = {name: params[name] - origin[name] for name in origin}
        slope: Callable[[Params], Any] = lambda point: jvp(outputs, (point,), (away,))[1]  # noqa: E731
        with differentiable():
            found: Any = jvp(outputs, (origin,), (away,)) if order == 1 else jvp(slope, (origin,), (away,))
        moved = found[0] + found[1] if order == 1 else outputs(origin) + found[0] + 0.5 * found[1]
        return loss(moved, data if isinstance(data, dict) else data[1])

    own = {name: p.requires_grad_() for name, p in clone(origin).items()}
    return Objective.from_function(polynomial, own)
