"""Layers, parametrizations and penalties that keep signals and gradients in bounds.

``condition`` scales the rows of weights, ``DecorrelatedBatchNorm`` whitens activations, ``VanishingGradientPenalty``
and ``clip_norm_`` keep the gradients of recurrent networks from vanishing and from exploding.
"""

from covector.nn.conditioning import Equilibrated, condition, condition_numbers, strip
from covector.nn.decorrelated import DecorrelatedBatchNorm
from covector.nn.vanishing import VanishingGradientPenalty, explicit_penalty, jacobian_norm_profile
from covector.optim.clip import clip_norm_

__all__ = [
    "DecorrelatedBatchNorm",
    "Equilibrated",
    "VanishingGradientPenalty",
    "clip_norm_",
    "condition",
    "condition_numbers",
    "explicit_penalty",
    "jacobian_norm_profile",
    "strip",
]
