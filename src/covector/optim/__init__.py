"""How a gradient becomes a step: six slots, and the published optimizers as compositions of them."""

from covector.optim.adadelta import Adadelta
from covector.optim.adagrad import Adagrad
from covector.optim.adagrad_norm import AdaGradNorm, AdaGradNormStep, Certificate
from covector.optim.adam import Adam, AdamW
from covector.optim.adamax import AdaMax
from covector.optim.ademamix import AdEMAMix
from covector.optim.aegd import AEGD, AEPG, EnergyStep
from covector.optim.amsgrad import AdamNC, AMSGrad
from covector.optim.averaging import Averaged
from covector.optim.batch_estimator import MomentsBackprop
from covector.optim.batch_sampler import DynamicBatchSampler
from covector.optim.batch_size import BatchController
from covector.optim.clip import ClipNorm
from covector.optim.constraints import Box
from covector.optim.diffgrad import DiffGrad
from covector.optim.divergence import Divergence, StepGrowth, adam_divergence, effective_step_monotone
from covector.optim.ghost import GhostNorms
from covector.optim.growing_batch import adadagrad, adadagrad_norm
from covector.optim.induced_metric import InducedMetric, InducedMetricStep
from covector.optim.lookahead import Lookahead
from covector.optim.metrics import Affine, BoxMetric, Euclidean, Metric, Natural, Orthant, Simplex
from covector.optim.moments import GradientMoments
from covector.optim.nadam import NAdam
from covector.optim.noise import GradientNoise
from covector.optim.optimizer import Optimizer
from covector.optim.per_example import inner_products, per_example_gradients
from covector.optim.random_scaling import FadingMirrorDescent, RandomScaling
from covector.optim.rmsprop import RMSprop
from covector.optim.roles import Role, Roles, roles
from covector.optim.rule import Rule
from covector.optim.schedule_free import ScheduleFree
from covector.optim.schedules import warmup_cosine, warmup_linear, warmup_stable_decay
from covector.optim.sgd import SGD
from covector.optim.signs import Lion, Signum
from covector.optim.slots import Basis, Bucket, Constraint, Map, Scale, SkipStep, Slots, Transform
from covector.optim.wrapper import Wrapper

__all__ = [
    "AEGD",
    "AEPG",
    "SGD",
    "AMSGrad",
    "AdEMAMix",
    "AdaGradNorm",
    "AdaGradNormStep",
    "AdaMax",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamNC",
    "AdamW",
    "Affine",
    "Averaged",
    "Basis",
    "BatchController",
    "Box",
    "BoxMetric",
    "Bucket",
    "Certificate",
    "ClipNorm",
    "Constraint",
    "DiffGrad",
    "Divergence",
    "DynamicBatchSampler",
    "EnergyStep",
    "Euclidean",
    "FadingMirrorDescent",
    "GhostNorms",
    "GradientMoments",
    "GradientNoise",
    "InducedMetric",
    "InducedMetricStep",
    "Lion",
    "Lookahead",
    "Map",
    "Metric",
    "MomentsBackprop",
    "NAdam",
    "Natural",
    "Optimizer",
    "Orthant",
    "RMSprop",
    "RandomScaling",
    "Role",
    "Roles",
    "Rule",
    "Scale",
    "ScheduleFree",
    "Signum",
    "Simplex",
    "SkipStep",
    "Slots",
    "StepGrowth",
    "Transform",
    "Wrapper",
    "adadagrad",
    "adadagrad_norm",
    "adam_divergence",
    "effective_step_monotone",
    "inner_products",
    "per_example_gradients",
    "roles",
    "warmup_cosine",
    "warmup_linear",
    "warmup_stable_decay",
]
