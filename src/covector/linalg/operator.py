"""LinearOperator: a matrix known by its products. Every Krylov method and every trace estimator is a function of one.

Vectors come flat ``[n]``, as a block of columns ``[n, k]``, or as ``Params`` where the operator knows their names.
Inside, a block is kept as rows ``[k, n]``, so that each vector is contiguous: an operator implements :meth:`rows`, and
an algorithm whose vectors are rows writes ``(op @ rows.mT).mT``, which copies nothing and counts the products.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor

from covector.errors import ArgumentError, MismatchError, require_extra
from covector.linalg.checks import check_matrix
from covector.trees import Params, check_same, flatten, unflatten

__all__ = ["DenseOperator", "FunctionOperator", "LinearOperator"]


class LinearOperator(ABC):
    """A linear map ``R^n -> R^m`` known by its products with vectors.

    Args:
        shape: ``(m, n)``.
        dtype: of vectors and products.
        device: of vectors and products.
        symmetric: whether it equals its transpose; then ``T`` is itself.
        positive: whether no eigenvalue is negative.
        like: for an operator on parameters, their names and shapes: then ``op @ params`` works.

    >>> op = DenseOperator(torch.diag(torch.tensor([2.0, 3.0])))
    >>> op @ torch.ones(2), (op @ torch.ones(2, 4)).shape, op.products
    (tensor([2., 3.]), torch.Size([2, 4]), 5)
    """

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        *,
        symmetric: bool = False,
        positive: bool = False,
        like: Params | None = None,
    ) -> None:
        self.shape, self.dtype, self.device = shape, dtype, torch.device(device)
        self.symmetric, self.positive, self.like = symmetric, positive, like
        self.products = 0  # vectors multiplied so far: the unit in which methods are compared

    @abstractmethod
    def rows(self, block: Tensor) -> Tensor:
        """The products of the vectors in the rows of ``block`` ``[k, n]``, as rows ``[k, m]``."""

    def transposed_rows(self, block: Tensor) -> Tensor:
        """As :meth:`rows` for the transpose: ``[k, m]`` to ``[k, n]``."""
        if self.symmetric:
            return self.rows(block)
        raise ArgumentError("T", type(self).__name__, "an operator that defines transposed_rows")

    @overload
    def __matmul__(self, other: LinearOperator) -> LinearOperator: ...
    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...
    @overload
    def __matmul__(self, other: Params) -> Params: ...
    def __matmul__(self, other: LinearOperator | Tensor | Params) -> LinearOperator | Tensor | Params:
        if isinstance(other, LinearOperator):
            return _Product(self, other)
        if isinstance(other, dict):
            if self.like is None:
                raise ArgumentError("vector", "Params", "a flat tensor: this operator knows no parameter names")
            check_same(other, self.like, ("vector", "the operator"))
            return unflatten(self @ flatten(other).to(self.dtype), self.like)
        if other.ndim not in (1, 2) or other.shape[0] != self.shape[1]:
            raise MismatchError(
                f"the operator has shape {self.shape}, the vector {tuple(other.shape)}: "
                f"expected [{self.shape[1]}] or [{self.shape[1]}, k]"
            )
        block = other.to(self.dtype).reshape(self.shape[1], -1).mT.contiguous()
        self.products += len(block)
        image = self.rows(block).mT
        return image[:, 0] if other.ndim == 1 else image

    @property
    def T(self) -> LinearOperator:  # the name users of matrices look for
        """The transpose."""
        return self if self.symmetric else _Transpose(self)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        return _Sum(self, other, 1.0)

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return _Sum(self, other, -1.0)

    def __mul__(self, scalar: float) -> LinearOperator:
        return _Affine(self, float(scalar), 0.0)

    __rmul__ = __mul__

    def __neg__(self) -> LinearOperator:
        return self * -1.0

    def shift(self, amount: float) -> LinearOperator:
        """``self + amount * I``.

        >>> DenseOperator(torch.zeros(2, 2)).shift(3.0).dense().diagonal()
        tensor([3., 3.])
        """
        return _Affine(self, 1.0, float(amount))

    def dense(self, chunk: int = 256) -> Tensor:
        """The matrix ``[m, n]``, by products with the unit vectors, ``chunk`` of them at once.

        >>> DenseOperator(torch.eye(2)).dense()
        tensor([[1., 0.],
                [0., 1.]])
        """
        columns = []
        for start in range(0, self.shape[1], chunk):
            size = min(chunk, self.shape[1] - start)
            block = torch.zeros(size, self.shape[1], dtype=self.dtype, device=self.device)
            block[torch.arange(size), torch.arange(start, start + size)] = 1.0
            self.products += size
            columns.append(self.rows(block))
        return torch.cat(columns).mT.contiguous()

    def to_scipy(self) -> Any:
        """A ``scipy.sparse.linalg.LinearOperator`` with the same products, on NumPy arrays.

        Raises:
            MissingExtraError: SciPy is not installed.

        >>> DenseOperator(torch.eye(2)).to_scipy().matvec([1.0, 2.0])
        array([1., 2.], dtype=float32)
        """
        require_extra("scipy", "scipy")
        from scipy.sparse.linalg import LinearOperator as ScipyOperator

        def product(operator: LinearOperator) -> Callable[[Any], Any]:
            return lambda v: (operator @ torch.as_tensor(v, device=self.device)).cpu().numpy()

        kind = torch.empty((), dtype=self.dtype).numpy().dtype
        forward = product(self)
        try:
            backward = product(self.T)
        except ArgumentError:
            backward = None
        return ScipyOperator(self.shape, matvec=forward, rmatvec=backward, matmat=forward, dtype=kind)

    def __repr__(self) -> str:
        kind = "positive" if self.positive else "symmetric" if self.symmetric else "general"
        return f"{type(self).__name__}({self.shape[0]} x {self.shape[1]}, {kind}, {self.dtype}, {self.device})"


class DenseOperator(LinearOperator):
    """A matrix as an operator.

    Args:
        matrix: ``[m, n]``.
        symmetric: default: whether the matrix equals its transpose.
        positive: whether no eigenvalue is negative.

    Raises:
        UnsupportedError: not a dense real floating tensor.

    >>> DenseOperator(torch.eye(2)).shift(1.0) @ torch.ones(2)
    tensor([2., 2.])
    """

    def __init__(self, matrix: Tensor, *, symmetric: bool | None = None, positive: bool = False) -> None:
        check_matrix(matrix)
        if symmetric is None:
            symmetric = matrix.shape[-2] == matrix.shape[-1] and bool(torch.equal(matrix, matrix.mT))
        rows, columns = matrix.shape
        super().__init__((rows, columns), matrix.dtype, matrix.device, symmetric=symmetric, positive=positive)
        self.matrix = matrix

    def rows(self, block: Tensor) -> Tensor:
        return block @ self.matrix.mT

    def transposed_rows(self, block: Tensor) -> Tensor:
        return block @ self.matrix


class FunctionOperator(LinearOperator):
    """A function ``[n] -> [m]`` that is linear, as an operator.

    Args:
        function: of one flat vector.
        shape: ``(m, n)``.
        transposed: of one flat vector ``[m]``, for ``T``.
        options: as of :class:`LinearOperator`.

    >>> FunctionOperator(lambda v: v.cumsum(0), (3, 3)) @ torch.ones(3)
    tensor([1., 2., 3.])
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        shape: tuple[int, int],
        *,
        transposed: Callable[[Tensor], Tensor] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(shape, **options)
        self.function, self.transposed = function, transposed

    def rows(self, block: Tensor) -> Tensor:
        return torch.stack([self.function(vector) for vector in block])

    def transposed_rows(self, block: Tensor) -> Tensor:
        if self.transposed is None:
            return super().transposed_rows(block)
        return torch.stack([self.transposed(vector) for vector in block])


class _Transpose(LinearOperator):
    def __init__(self, of: LinearOperator) -> None:
        super().__init__((of.shape[1], of.shape[0]), of.dtype, of.device)
        self.of = of

    def rows(self, block: Tensor) -> Tensor:
        return self.of.transposed_rows(block)

    def transposed_rows(self, block: Tensor) -> Tensor:
        return self.of.rows(block)


class _Affine(LinearOperator):
    def __init__(self, of: LinearOperator, scale: float, shift: float) -> None:
        if shift and of.shape[0] != of.shape[1]:
            raise MismatchError(f"an operator of shape {of.shape} has no identity to add; expected a square one")
        positive = of.positive and scale >= 0 and shift >= 0
        super().__init__(of.shape, of.dtype, of.device, symmetric=of.symmetric, positive=positive, like=of.like)
        self.of, self.scale, self.amount = of, scale, shift

    def rows(self, block: Tensor) -> Tensor:
        image = self.of.rows(block) * self.scale
        return image.add_(block, alpha=self.amount) if self.amount else image

    def transposed_rows(self, block: Tensor) -> Tensor:
        image = self.of.transposed_rows(block) * self.scale
        return image.add_(block, alpha=self.amount) if self.amount else image


class _Sum(LinearOperator):
    def __init__(self, a: LinearOperator, b: LinearOperator, sign: float) -> None:
        if a.shape != b.shape:
            raise MismatchError(f"operators of shapes {a.shape} and {b.shape} cannot be added")
        positive = a.positive and b.positive and sign > 0
        symmetric = a.symmetric and b.symmetric
        super().__init__(a.shape, a.dtype, a.device, symmetric=symmetric, positive=positive, like=a.like or b.like)
        self.a, self.b, self.sign = a, b, sign

    def rows(self, block: Tensor) -> Tensor:
        return self.a.rows(block).add(self.b.rows(block), alpha=self.sign)

    def transposed_rows(self, block: Tensor) -> Tensor:
        return self.a.transposed_rows(block).add(self.b.transposed_rows(block), alpha=self.sign)


class _Product(LinearOperator):
    def __init__(self, a: LinearOperator, b: LinearOperator) -> None:
        if a.shape[1] != b.shape[0]:
            raise MismatchError(f"operators of shapes {a.shape} and {b.shape} cannot be multiplied")
        super().__init__((a.shape[0], b.shape[1]), a.dtype, a.device)
        self.a, self.b = a, b

    def rows(self, block: Tensor) -> Tensor:
        return self.a.rows(self.b.rows(block))

    def transposed_rows(self, block: Tensor) -> Tensor:
        return self.b.transposed_rows(self.a.transposed_rows(block))
