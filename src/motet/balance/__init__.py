"""Balance: K task losses to one update. This room needs torch alone."""

from motet.balance._alignedmtl import AlignedMTL
from motet.balance._alternating import Alternating
from motet.balance._balancer import Balancer, Step, Update
from motet.balance._cagrad import CAGrad
from motet.balance._catalogue import from_name, methods, wrappers
from motet.balance._claims import LAWS, Golden
from motet.balance._config import ConFIG
from motet.balance._dbmtl import DBMTL
from motet.balance._dualproj import DualProj
from motet.balance._dwa import DWA
from motet.balance._equal import EqualWeighting
from motet.balance._excessmtl import ExcessMTL
from motet.balance._fairgrad import FairGrad
from motet.balance._famo import FAMO
from motet.balance._fuller import FULLER
from motet.balance._gcond import GCond
from motet.balance._gls import GLS
from motet.balance._go4align import Go4Align
from motet.balance._graddrop import GradDrop
from motet.balance._gradnorm import GradNorm
from motet.balance._gradvac import GradVac
from motet.balance._imtl import IMTL
from motet.balance._imtlg import IMTLG
from motet.balance._imtll import IMTLL
from motet.balance._mgda import MGDA
from motet.balance._moco import MoCo
from motet.balance._modo import MoDo
from motet.balance._momentum_config import MomentumConFIG
from motet.balance._nashmtl import NashMTL
from motet.balance._ntkmtl import NTKMTL, NTKMTLSR
from motet.balance._pcgrad import PCGrad
from motet.balance._random import RandomLossWeighting
from motet.balance._samgs import SAMGS
from motet.balance._scale_invariant import ScaleInvariant
from motet.balance._sdmgrad import SDMGrad
from motet.balance._stch import STCH
from motet.balance._uncertainty import UncertaintyWeighting
from motet.balance._upgrad import UPGrad
from motet.balance.around._accumulation import Accumulation
from motet.balance.around._elementwise_clipping import ElementwiseClipping
from motet.balance.around._fmtl import FMTL
from motet.balance.around._gradient_noise import GradientNoise
from motet.balance.around._normalised_descent import NormalisedDescent
from motet.balance.around._repmtl import RepMTL
from motet.balance.around._sam import SAM
from motet.balance.around._samo import SAMO
from motet.balance.around._wrapper import Wrapper
from motet.balance.diagnosis._diagnosis import Diagnosis
from motet.balance.engine._conflict import cosines, gradient_gramian
from motet.balance.engine._ranks import Ranks
from motet.balance.engine._sketch import Sketch, SketchError, sketch_error
from motet.balance.engine._view import View

__all__ = [
    "DBMTL",
    "DWA",
    "FAMO",
    "FMTL",
    "FULLER",
    "GLS",
    "IMTL",
    "IMTLG",
    "IMTLL",
    "LAWS",
    "MGDA",
    "NTKMTL",
    "NTKMTLSR",
    "SAM",
    "SAMGS",
    "SAMO",
    "STCH",
    "Accumulation",
    "AlignedMTL",
    "Alternating",
    "Balancer",
    "CAGrad",
    "ConFIG",
    "Diagnosis",
    "DualProj",
    "ElementwiseClipping",
    "EqualWeighting",
    "ExcessMTL",
    "FairGrad",
    "GCond",
    "Go4Align",
    "Golden",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "GradientNoise",
    "MoCo",
    "MoDo",
    "MomentumConFIG",
    "NashMTL",
    "NormalisedDescent",
    "PCGrad",
    "RandomLossWeighting",
    "Ranks",
    "RepMTL",
    "SDMGrad",
    "ScaleInvariant",
    "Sketch",
    "SketchError",
    "Step",
    "UPGrad",
    "UncertaintyWeighting",
    "Update",
    "View",
    "Wrapper",
    "cosines",
    "from_name",
    "gradient_gramian",
    "methods",
    "sketch_error",
    "wrappers",
]
