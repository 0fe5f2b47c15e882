"""Curvature as linear operators: Hessian, Gauss-Newton, Fisher, tangent kernel and gradient covariance."""

__all__: list[str] = []
