"""How a gradient becomes a step: six slots, and the published optimizers as compositions of them."""

from covector.optim.adadelta import Adadelta
from covector.optim.adagrad import Adagrad
from covector.optim.adam import Adam, AdamW
from covector.optim.adamax import AdaMax
from covector.optim.ademamix import AdEMAMix
from covector.optim.amsgrad import AdamNC, AMSGrad
from covector.optim.clip import ClipNorm
from covector.optim.constraints import Box
from covector.optim.diffgrad import DiffGrad
from covector.optim.divergence import Divergence, StepGrowth, adam_divergence, effective_step_monotone
from covector.optim.nadam import NAdam
from covector.optim.noise import GradientNoise
from covector.optim.optimizer import Optimizer
from covector.optim.rmsprop import RMSprop
from covector.optim.roles import Role, Roles, roles
from covector.optim.rule import Rule
from covector.optim.sgd import SGD
from covector.optim.signs import Lion, Signum
from covector.optim.slots import Basis, Bucket, Constraint, Map, Scale, SkipStep, Slots, Transform

__all__ = [
    "SGD",
    "AMSGrad",
    "AdEMAMix",
    "AdaMax",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamNC",
    "AdamW",
    "Basis",
    "Box",
    "Bucket",
    "ClipNorm",
    "Constraint",
    "DiffGrad",
    "Divergence",
    "GradientNoise",
    "Lion",
    "Map",
    "NAdam",
    "Optimizer",
    "RMSprop",
    "Role",
    "Roles",
    "Rule",
    "Scale",
    "Signum",
    "SkipStep",
    "Slots",
    "StepGrowth",
    "Transform",
    "adam_divergence",
    "effective_step_monotone",
    "roles",
]
