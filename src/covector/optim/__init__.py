"""How a gradient becomes a step: six slots, and the published optimizers as compositions of them."""

from covector.optim.adam import Adam, AdamW
from covector.optim.grasswalk import GaLore, GrassJump, GrassWalk, SubspaceAdam
from covector.optim.optimizer import Optimizer
from covector.optim.riemannian_presets import RiemannianAdagrad, RiemannianAdam, RiemannianAMSGrad, RiemannianSGD
from covector.optim.roles import Role, Roles, roles
from covector.optim.rule import Rule
from covector.optim.slots import Basis, Bucket, Map, Scale, Slots, Transform
from covector.optim.subspace import GradientSubspace

__all__ = [
    "Adam",
    "AdamW",
    "Basis",
    "Bucket",
    "GaLore",
    "GradientSubspace",
    "GrassJump",
    "GrassWalk",
    "Map",
    "Optimizer",
    "RiemannianAMSGrad",
    "RiemannianAdagrad",
    "RiemannianAdam",
    "RiemannianSGD",
    "Role",
    "Roles",
    "Rule",
    "Scale",
    "Slots",
    "SubspaceAdam",
    "Transform",
    "roles",
]
