"""How a gradient becomes a step: six slots, and the published optimizers as compositions of them."""

from covector.optim.adadagrad import adadagrad
from covector.optim.adadelta import Adadelta
from covector.optim.adagrad import Adagrad
from covector.optim.adam import Adam, AdamW
from covector.optim.adamax import AdaMax
from covector.optim.batch_estimator import MomentsBackprop
from covector.optim.batch_sampler import DynamicBatchSampler
from covector.optim.batch_size import BatchController
from covector.optim.clip import ClipNorm
from covector.optim.constraints import Box
from covector.optim.ghost import GhostNorms
from covector.optim.moments import GradientMoments
from covector.optim.nadam import NAdam
from covector.optim.noise import GradientNoise
from covector.optim.optimizer import Optimizer
from covector.optim.per_example import inner_products, per_example_gradients
from covector.optim.rmsprop import RMSprop
from covector.optim.roles import Role, Roles, roles
from covector.optim.rule import Rule
from covector.optim.sgd import SGD
from covector.optim.signs import Lion, Signum
from covector.optim.slots import Basis, Bucket, Constraint, Map, Scale, SkipStep, Slots, Transform

__all__ = [
    "SGD",
    "AdaMax",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Basis",
    "BatchController",
    "Box",
    "Bucket",
    "ClipNorm",
    "Constraint",
    "DynamicBatchSampler",
    "GhostNorms",
    "GradientMoments",
    "GradientNoise",
    "Lion",
    "Map",
    "MomentsBackprop",
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
    "Transform",
    "adadagrad",
    "inner_products",
    "per_example_gradients",
    "roles",
]
