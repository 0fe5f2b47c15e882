"""How a gradient becomes a step: six slots, and the published optimizers as compositions of them."""

from covector.optim.adadelta import Adadelta
from covector.optim.adago import AdaGO, AdaGradNormStep
from covector.optim.adagrad import Adagrad
from covector.optim.adam import Adam, AdamW
from covector.optim.adamax import AdaMax
from covector.optim.ademamix import AdEMAMix
from covector.optim.amsgrad import AdamNC, AMSGrad
from covector.optim.certificates import TrustRegionPlan, trust_region, trust_region_bound
from covector.optim.clip import ClipNorm
from covector.optim.composite import Lasso
from covector.optim.constraints import Box
from covector.optim.diffgrad import DiffGrad
from covector.optim.divergence import Divergence, StepGrowth, adam_divergence, effective_step_monotone
from covector.optim.grafting import Graft
from covector.optim.lanton import LANTON, NoiseAdaptive
from covector.optim.layer_norms import Modular, auto_norms
from covector.optim.muon import AdaMuon, Muon, NorMuon
from covector.optim.nadam import NAdam
from covector.optim.noise import GradientNoise
from covector.optim.norms import RMS2RMS, BiasRMS, ColNorm, Frobenius, MaxAbs, RowNorm, Spectral
from covector.optim.optimizer import Optimizer
from covector.optim.prodigy import Prodigy
from covector.optim.regions import DualNormMonitor, Scion, TrustRegion
from covector.optim.rmsprop import RMSprop
from covector.optim.roles import Role, Roles, roles
from covector.optim.rule import Rule
from covector.optim.sgd import SGD
from covector.optim.shampoo import DistributedShampoo, Shampoo
from covector.optim.signs import Lion, Signum
from covector.optim.slots import Basis, Bucket, Constraint, Map, Scale, SkipStep, Slots, Transform
from covector.optim.soap import SOAP, SPlus
from covector.optim.steepest import SteepestDescent

__all__ = [
    "LANTON",
    "RMS2RMS",
    "SGD",
    "SOAP",
    "AMSGrad",
    "AdEMAMix",
    "AdaGO",
    "AdaGradNormStep",
    "AdaMax",
    "AdaMuon",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamNC",
    "AdamW",
    "Basis",
    "BiasRMS",
    "Box",
    "Bucket",
    "ClipNorm",
    "ColNorm",
    "Constraint",
    "DiffGrad",
    "DistributedShampoo",
    "Divergence",
    "DualNormMonitor",
    "Frobenius",
    "GradientNoise",
    "Graft",
    "Lasso",
    "Lion",
    "Map",
    "MaxAbs",
    "Modular",
    "Muon",
    "NAdam",
    "NoiseAdaptive",
    "NorMuon",
    "Optimizer",
    "Prodigy",
    "RMSprop",
    "Role",
    "Roles",
    "RowNorm",
    "Rule",
    "SPlus",
    "Scale",
    "Scion",
    "Shampoo",
    "Signum",
    "SkipStep",
    "Slots",
    "Spectral",
    "SteepestDescent",
    "StepGrowth",
    "Transform",
    "TrustRegion",
    "TrustRegionPlan",
    "adam_divergence",
    "auto_norms",
    "effective_step_monotone",
    "roles",
    "trust_region",
    "trust_region_bound",
]
