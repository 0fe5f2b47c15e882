"""How a gradient becomes a step: six slots, and the published optimizers as compositions of them."""

from covector.optim.adam import Adam, AdamW
from covector.optim.layer_norms import Modular, auto_norms
from covector.optim.muon import AdaMuon, Muon, NorMuon
from covector.optim.norms import RMS2RMS, BiasRMS, ColNorm, Frobenius, MaxAbs, RowNorm, Spectral
from covector.optim.optimizer import Optimizer
from covector.optim.roles import Role, Roles, roles
from covector.optim.rule import Rule
from covector.optim.slots import Basis, Bucket, Map, Scale, Slots, Transform
from covector.optim.soap import SOAP, SPlus

__all__ = [
    "RMS2RMS",
    "SOAP",
    "AdaMuon",
    "Adam",
    "AdamW",
    "Basis",
    "BiasRMS",
    "Bucket",
    "ColNorm",
    "Frobenius",
    "Map",
    "MaxAbs",
    "Modular",
    "Muon",
    "NorMuon",
    "Optimizer",
    "Role",
    "Roles",
    "RowNorm",
    "Rule",
    "SPlus",
    "Scale",
    "Slots",
    "Spectral",
    "Transform",
    "auto_norms",
    "roles",
]
