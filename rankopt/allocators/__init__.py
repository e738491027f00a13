"""The allocators, by registered name."""

from __future__ import annotations

from rankopt.allocators.adalora import AdaLoRA
from rankopt.allocators.alora import ALoRA
from rankopt.allocators.annealed import Annealed
from rankopt.allocators.autolora import AutoLoRA
from rankopt.allocators.base import Allocator
from rankopt.allocators.dora_dynamic import DoRADynamic
from rankopt.allocators.dylora import DyLoRA
from rankopt.allocators.elalora import ElaLoRA
from rankopt.allocators.eva import EVA
from rankopt.allocators.fisher import Fisher
from rankopt.allocators.flexlora import FlexLoRA
from rankopt.allocators.gelora import GeLoRA
from rankopt.allocators.gora import GoRA
from rankopt.allocators.increlora import IncreLoRA
from rankopt.allocators.l0 import L0
from rankopt.allocators.loradrop import LoRADrop
from rankopt.allocators.matryoshka import Matryoshka
from rankopt.allocators.nested import Nested
from rankopt.allocators.prilora import PRILoRA
from rankopt.allocators.profile import Profile
from rankopt.allocators.ramp import Ramp
from rankopt.allocators.random import Random
from rankopt.allocators.salientlora import SalientLoRA
from rankopt.allocators.salora import SaLoRA
from rankopt.allocators.sora import SoRA
from rankopt.allocators.spectral import Spectral
from rankopt.allocators.static import Static
from rankopt.allocators.uniform import Uniform

ALLOCATORS: dict[str, type[Allocator]] = {
    "uniform": Uniform,
    "static": Static,
    "random": Random,
    "ramp": Ramp,
    "profile": Profile,
    "prilora": PRILoRA,
    "eva": EVA,
    "fisher": Fisher,
    "gelora": GeLoRA,
    "gora": GoRA,
    "loradrop": LoRADrop,
    "adalora": AdaLoRA,
    "dora_dynamic": DoRADynamic,
    "salientlora": SalientLoRA,
    "increlora": IncreLoRA,
    "elalora": ElaLoRA,
    "flexlora": FlexLoRA,
    "alora": ALoRA,
    "sora": SoRA,
    "l0": L0,
    "salora": SaLoRA,
    "autolora": AutoLoRA,
    "dylora": DyLoRA,
    "matryoshka": Matryoshka,
    "spectral": Spectral,
    "annealed": Annealed,
    "nested": Nested,
}
