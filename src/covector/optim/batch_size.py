"""BatchController: a batch that grows when the noise of its gradient is too large; Lau, Liu and Kolar 2024."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, get_args

from covector.errors import ArgumentError, CompositionError
from covector.objective import Batch, Objective
from covector.optim.batch_estimator import Measure, MomentsBackprop
from covector.optim.batch_sampler import DynamicBatchSampler
from covector.optim.batch_tests import coordinate_test, inner_product_test, norm_test, orthogonality_test
from covector.optim.moments import GradientMoments
from covector.training.callbacks import Callback

if TYPE_CHECKING:
    from covector.training.run import Run

__all__ = ["BatchController", "NoiseTest"]

NoiseTest = Literal["norm", "inner", "augmented", "coordinate"]


class BatchController(Callback):
    """Test the noise of the gradient after each step, and set the batch size of the next.

    The batch never shrinks: ``b <- min(max, ceil(max(b, test)))``. The learning rate is left alone, which suits
    AdaGrad's. With :func:`covector.train` pass it twice: ``estimator=controller.estimator, callbacks=[controller]``. In
    a loop of your own, call :meth:`backward` and, after the optimizer's step, :meth:`step`.

    Args:
        sampler: what draws the batches, or the size of the first batch where you draw them yourself.
        test: ``"norm"``, ``"inner"`` (inner products), ``"augmented"`` (inner products and orthogonality, whichever
            asks for more) or ``"coordinate"``.
        eta: tolerance of the norm and the coordinate-wise test; published values 0.1 to 0.5.
        theta: tolerance of the inner-product test.
        nu: tolerance of the orthogonality test.
        estimator: how the noise is measured, see :class:`MomentsBackprop`.
        max: largest batch; default: the sampler's whole data.
        interval: steps between tests; steps without a test are plain backpropagation.
        micro: examples that are backpropagated at a time: larger batches are accumulated.
        quantile: of the coordinates in the coordinate-wise test. 1.0, the test for all of them, is decided by the one
            whose mean happens to be nearest to zero; the default 0.9 is not.
        by_tensor: leave out the covariances between tensors in the inner-product test, as the published code does.

    Attributes:
        estimator: a :class:`MomentsBackprop`, which measures while it differentiates.
        batch_size: what the next batch should have.
        moments: of the last test, or None.
        statistic: the batch size that the last test asked for.

    Raises:
        ArgumentError: a value out of range.

    Source: "AdAdaGrad: adaptive batch size schemes for adaptive gradient methods", arXiv:2402.11215, Algorithm 1.

    >>> import torch
    >>> controller = BatchController(8, test="norm", eta=0.5, max=1000)
    >>> noisy = GradientMoments.from_examples({"x": torch.tensor([[1.0, 3.0], [1.0, -3.0]])})
    >>> controller.observe(noisy)
    72
    """

    def __init__(
        self,
        sampler: DynamicBatchSampler | int,
        test: NoiseTest = "norm",
        *,
        eta: float = 0.5,
        theta: float = 0.5,
        nu: float = 1.0,
        estimator: Measure = "per_sample",
        max: int | None = None,
        interval: int = 1,
        micro: int | None = None,
        quantile: float = 0.9,
        by_tensor: bool = False,
    ) -> None:
        if test not in get_args(NoiseTest):
            raise ArgumentError("test", test, f"one of {get_args(NoiseTest)}")
        for name, value in (("eta", eta), ("theta", theta), ("nu", nu)):
            if not 0.0 < value < math.inf:
                raise ArgumentError(name, value, "a finite number above 0")
        if not 0.0 < quantile <= 1.0:
            raise ArgumentError("quantile", quantile, "a number in (0, 1]")
        if by_tensor and micro is not None and estimator != "micro" and test in ("inner", "augmented"):
            raise CompositionError("by_tensor=True needs the whole batch at a time: leave micro=None")
        self.sampler = sampler if isinstance(sampler, DynamicBatchSampler) else None
        self.batch_size = sampler.batch_size if isinstance(sampler, DynamicBatchSampler) else sampler
        self.max = max if max is not None or self.sampler is None else self.sampler.examples
        for name, count in (("sampler", self.batch_size), ("interval", interval), ("max", self.max)):
            if count is not None and count < 1:
                raise ArgumentError(name, count, "a whole number of at least 1")
        self.test: NoiseTest = test
        self.eta, self.theta, self.nu, self.quantile, self.by_tensor = eta, theta, nu, quantile, by_tensor
        self.interval = interval
        self.estimator = MomentsBackprop(estimator, micro, test in ("inner", "augmented"), test == "coordinate")
        self.moments: GradientMoments | None = None
        self.statistic = math.nan
        self.steps = 0
        self._arm()

    def required(self, moments: GradientMoments) -> float:
        """The batch size at which the test would hold with equality; infinite where the gradient is zero."""
        if self.test == "norm":
            return norm_test(moments, self.eta)
        if self.test == "coordinate":
            return coordinate_test(moments, self.eta, self.quantile)
        asked = inner_product_test(moments, self.theta, self.by_tensor)
        return asked if self.test == "inner" else max(asked, orthogonality_test(moments, self.nu))

    def observe(self, moments: GradientMoments) -> int:
        """Test; returns the batch size for the next step and sets the sampler's."""
        if moments.count > 1:
            self.moments, self.statistic = moments, self.required(moments)
            asked = max(float(self.batch_size), self.statistic)
            limit = math.inf if self.max is None else float(max(self.max, self.batch_size))
            # without a limit, a gradient of zero asks for no size at all
            self.batch_size = math.ceil(min(asked, limit)) if min(asked, limit) < math.inf else self.batch_size
        if self.sampler is not None:
            self.sampler.batch_size = self.batch_size
        return self.batch_size

    def backward(self, objective: Objective, batch: Batch) -> float:
        """Add the gradient to ``.grad`` and measure its noise; returns the loss."""
        return self.estimator.backward(objective, batch)

    def step(self) -> int:
        """After the optimizer's step: test if one is due; returns the next batch size."""
        _, moments = self.estimator.take()
        self.steps += 1
        if moments is not None:
            self.observe(moments)
        self._arm()
        return self.batch_size

    def on_start(self, run: Run) -> None:
        """Refuse a run whose estimator measures nothing."""
        if run.estimator is not self.estimator:
            raise CompositionError("pass train(..., estimator=controller.estimator, callbacks=[controller])")

    def on_step(self, run: Run, record: dict[str, float]) -> None:
        """Test, and record ``batch_size``: the examples of this step."""
        record["batch_size"] = float(self.estimator.examples)
        self.step()

    def state_dict(self) -> dict[str, Any]:
        """Size, and steps since the start."""
        return {"batch_size": self.batch_size, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the size of :meth:`state_dict`, the sampler's too."""
        self.batch_size, self.steps = int(state["batch_size"]), int(state["steps"])
        if self.sampler is not None:
            self.sampler.batch_size = self.batch_size
        self._arm()

    def _arm(self) -> None:
        # the test comes after the step: it is due in every interval-th
        self.estimator.active = (self.steps + 1) % self.interval == 0
