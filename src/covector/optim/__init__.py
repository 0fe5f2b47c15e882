"""How a gradient becomes a step: six slots, and the published optimizers as compositions of them."""

from covector.curvature.examples import inner_products, per_example_gradients
from covector.optim.adadelta import Adadelta
from covector.optim.adago import AdaGO, AdaGOStep
from covector.optim.adagrad import Adagrad
from covector.optim.adagrad_norm import AdaGradNorm, AdaGradNormStep, Certificate
from covector.optim.adam import Adam, AdamW
from covector.optim.adamax import AdaMax
from covector.optim.ademamix import AdEMAMix
from covector.optim.adgd import AdGDStep
from covector.optim.aegd import AEGD, AEPG, EnergyStep
from covector.optim.amsgrad import AdamNC, AMSGrad
from covector.optim.averaging import Averaged
from covector.optim.batch_estimator import MomentsBackprop
from covector.optim.batch_sampler import DynamicBatchSampler
from covector.optim.batch_size import BatchController
from covector.optim.certificates import TrustRegionPlan, trust_region, trust_region_bound
from covector.optim.clip import ClipNorm
from covector.optim.composite import Lasso
from covector.optim.constraints import Box
from covector.optim.damping import LevenbergMarquardt
from covector.optim.diagonals import DiagonalMetric, HutchinsonDiagonal, SquaredGradients, UnitDiagonal
from covector.optim.diffgrad import DiffGrad
from covector.optim.displaced import RandomState, displaced
from covector.optim.displaced_gradient import DisplacedGradient
from covector.optim.divergence import Divergence, StepGrowth, adam_divergence, effective_step_monotone
from covector.optim.egn import EGN
from covector.optim.gam import GAM
from covector.optim.ghost import GhostNorms
from covector.optim.gradient_regularization import GradientRegularization, flooding
from covector.optim.grafting import Graft
from covector.optim.grasswalk import GaLore, GrassJump, GrassWalk, SubspaceAdam
from covector.optim.growing_batch import adadagrad, adadagrad_norm
from covector.optim.hessian_fitter import FitReport, HessianFitter
from covector.optim.induced_metric import InducedMetric, InducedMetricStep
from covector.optim.lanton import LANTON, NoiseAdaptive
from covector.optim.layer_norms import Modular, auto_norms
from covector.optim.line_search import Armijo
from covector.optim.lookahead import Lookahead
from covector.optim.metrics import Affine, BoxMetric, Euclidean, Metric, Natural, Orthant, Simplex
from covector.optim.moments import GradientMoments
from covector.optim.muon import AdaMuon, Muon, NorMuon
from covector.optim.nadam import NAdam
from covector.optim.noise import GradientNoise
from covector.optim.norms import RMS2RMS, BiasRMS, ColNorm, Frobenius, MaxAbs, RowNorm, Spectral
from covector.optim.oasis import OASIS, AdGD
from covector.optim.objective_optimizer import ObjectiveOptimizer
from covector.optim.optimizer import Optimizer
from covector.optim.polyak import PolyakStep
from covector.optim.prodigy import Prodigy
from covector.optim.psgd import PSGD
from covector.optim.random_scaling import FadingMirrorDescent, RandomScaling
from covector.optim.regions import DualNormMonitor, Scion, TrustRegion
from covector.optim.riemannian_presets import RiemannianAdagrad, RiemannianAdam, RiemannianAMSGrad, RiemannianSGD
from covector.optim.rmsprop import RMSprop
from covector.optim.roles import Role, Roles, roles
from covector.optim.rule import Rule
from covector.optim.saddle_free_newton import SaddleFreeNewton
from covector.optim.sam import ASAM, SAM
from covector.optim.sania import SANIA
from covector.optim.schedule_free import ScheduleFree
from covector.optim.schedules import warmup_cosine, warmup_linear, warmup_stable_decay
from covector.optim.sgd import SGD
from covector.optim.shampoo import DistributedShampoo, Shampoo
from covector.optim.signs import Lion, Signum
from covector.optim.slots import Basis, Bucket, Constraint, Map, Scale, SkipStep, Slots, Transform
from covector.optim.soap import SOAP, SPlus
from covector.optim.steepest import SteepestDescent
from covector.optim.subspace import GradientSubspace
from covector.optim.update_schedule import fading_updates
from covector.optim.wrapper import Wrapper

__all__ = [
    "AEGD",
    "AEPG",
    "ASAM",
    "EGN",
    "GAM",
    "LANTON",
    "OASIS",
    "PSGD",
    "RMS2RMS",
    "SAM",
    "SANIA",
    "SGD",
    "SOAP",
    "AMSGrad",
    "AdEMAMix",
    "AdGD",
    "AdGDStep",
    "AdaGO",
    "AdaGOStep",
    "AdaGradNorm",
    "AdaGradNormStep",
    "AdaMax",
    "AdaMuon",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamNC",
    "AdamW",
    "Affine",
    "Armijo",
    "Averaged",
    "Basis",
    "BatchController",
    "BiasRMS",
    "Box",
    "BoxMetric",
    "Bucket",
    "Certificate",
    "ClipNorm",
    "ColNorm",
    "Constraint",
    "DiagonalMetric",
    "DiffGrad",
    "DisplacedGradient",
    "DistributedShampoo",
    "Divergence",
    "DualNormMonitor",
    "DynamicBatchSampler",
    "EnergyStep",
    "Euclidean",
    "FadingMirrorDescent",
    "FitReport",
    "Frobenius",
    "GaLore",
    "GhostNorms",
    "GradientMoments",
    "GradientNoise",
    "GradientRegularization",
    "GradientSubspace",
    "Graft",
    "GrassJump",
    "GrassWalk",
    "HessianFitter",
    "HutchinsonDiagonal",
    "InducedMetric",
    "InducedMetricStep",
    "Lasso",
    "LevenbergMarquardt",
    "Lion",
    "Lookahead",
    "Map",
    "MaxAbs",
    "Metric",
    "Modular",
    "MomentsBackprop",
    "Muon",
    "NAdam",
    "Natural",
    "NoiseAdaptive",
    "NorMuon",
    "ObjectiveOptimizer",
    "Optimizer",
    "Orthant",
    "PolyakStep",
    "Prodigy",
    "RMSprop",
    "RandomScaling",
    "RandomState",
    "RiemannianAMSGrad",
    "RiemannianAdagrad",
    "RiemannianAdam",
    "RiemannianSGD",
    "Role",
    "Roles",
    "RowNorm",
    "Rule",
    "SPlus",
    "SaddleFreeNewton",
    "Scale",
    "ScheduleFree",
    "Scion",
    "Shampoo",
    "Signum",
    "Simplex",
    "SkipStep",
    "Slots",
    "Spectral",
    "SquaredGradients",
    "SteepestDescent",
    "StepGrowth",
    "SubspaceAdam",
    "Transform",
    "TrustRegion",
    "TrustRegionPlan",
    "UnitDiagonal",
    "Wrapper",
    "adadagrad",
    "adadagrad_norm",
    "adam_divergence",
    "auto_norms",
    "displaced",
    "effective_step_monotone",
    "fading_updates",
    "flooding",
    "inner_products",
    "per_example_gradients",
    "roles",
    "trust_region",
    "trust_region_bound",
    "warmup_cosine",
    "warmup_linear",
    "warmup_stable_decay",
]
