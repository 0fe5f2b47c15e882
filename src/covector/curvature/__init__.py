"""Curvature as linear operators: Hessian, Gauss-Newton, Fisher, gradient covariance, Jacobian and tangent kernel."""

from covector.curvature.gauss_newton import GaussNewton
from covector.curvature.hessian import Hessian
from covector.curvature.operator import CurvatureOperator

__all__ = ["CurvatureOperator", "GaussNewton", "Hessian"]
