"""The tuners, by registered name."""

from __future__ import annotations

from rankopt.tuners.adapter import Adapter
from rankopt.tuners.base import Tuner
from rankopt.tuners.bitfit import BitFit
from rankopt.tuners.full import Full
from rankopt.tuners.head import Head
from rankopt.tuners.lora import Lora
from rankopt.tuners.peft import Peft
from rankopt.tuners.prefix import Prefix
from rankopt.tuners.prompt import Prompt

TUNERS: dict[str, type[Tuner]] = {
    "lora": Lora,
    "full": Full,
    "bitfit": BitFit,
    "head": Head,
    "adapter": Adapter,
    "prompt": Prompt,
    "prefix": Prefix,
    "peft": Peft,
}
