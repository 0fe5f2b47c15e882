"""Curvature as linear operators: Hessian, Gauss-Newton, Fisher, gradient covariance, Jacobian and tangent kernel."""

from covector.curvature.covariance import GradientCovariance
from covector.curvature.examples import inner_products, per_example_gradients
from covector.curvature.fisher import Fisher
from covector.curvature.gauss_newton import GaussNewton
from covector.curvature.gram import clipped_sum, gram, per_example_inner_products, per_example_norms
from covector.curvature.hessian import Hessian
from covector.curvature.jacobian import Jacobian, TangentKernel
from covector.curvature.operator import CurvatureOperator

__all__ = [
    "CurvatureOperator",
    "Fisher",
    "GaussNewton",
    "GradientCovariance",
    "Hessian",
    "Jacobian",
    "TangentKernel",
    "clipped_sum",
    "gram",
    "inner_products",
    "per_example_gradients",
    "per_example_inner_products",
    "per_example_norms",
]
