"""What inference servers read of an adapter, and what to type there: one table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from rankopt.adapters.adapter import Adapter
from rankopt.adapters.module import DTYPES
from rankopt.core.errors import nearest


@dataclass(frozen=True)
class Server:
    """The rules of one server.

    Attributes:
        name: as on the command line.
        mixed: whether modules may have different ranks.
        by_module: whether a module's scale is `lora_alpha / its own rank`. Otherwise it is `lora_alpha / r` for all
            modules, with the `r` of the config. `rank_pattern` and `alpha_pattern` are read by neither.
        ranks: the allowed limits of ranks; empty if any rank is allowed.
        lines: what to type, with {base}, {folder} and {limit}.
        source: where the rules were read.
    """

    name: str
    mixed: bool
    by_module: bool
    ranks: tuple[int, ...]
    lines: tuple[str, ...]
    source: str

    def limit(self, rank: int) -> int:
        """The smallest allowed limit for a rank.

        Raises:
            ValueError: there is none.
        """
        if not self.ranks:
            return rank
        found = next((limit for limit in self.ranks if limit >= rank), None)
        if found is None:
            raise ValueError(f"{self.name} serves ranks up to {self.ranks[-1]}, got {rank}: choose a smaller adapter")
        return found

    def scale(self, alpha: float, r: int, rank: int) -> float:
        """The scale that the server gives a module, from `lora_alpha` and `r` of the config and the module's rank.

        Example:
            >>> SERVERS["vllm"].scale(16, 8, 2), SERVERS["llama.cpp"].scale(16, 8, 2)
            (2.0, 8.0)
        """
        return alpha / (rank if self.by_module else r)

    def command(self, source: Adapter, folder: Path, rank: int) -> tuple[str, ...]:
        """What to type there."""
        base = source.config.base_model_name_or_path or "BASE"
        return tuple(line.format(base=base, folder=folder, limit=self.limit(rank)) for line in self.lines)


SERVERS = {
    server.name: server
    for server in (
        Server(
            "vllm",
            mixed=True,
            by_module=False,
            ranks=(8, 16, 32, 64, 128, 256, 320, 512),
            lines=("vllm serve {base} --enable-lora --lora-modules small={folder} --max-lora-rank {limit}",),
            source="vllm-project/vllm: config/lora.py (01230b4), lora/peft_helper.py (e745baf), lora/lora_model.py "
            "(0306474)",
        ),
        Server(
            "sglang",
            mixed=False,
            by_module=False,
            ranks=(),
            lines=(
                "python -m sglang.launch_server --model-path {base} --enable-lora --lora-paths small={folder} "
                "--max-lora-rank {limit}",
            ),
            source="sgl-project/sglang: srt/lora/lora_config.py (0ceb81f), srt/lora/mem_pool.py (00639c4)",
        ),
        Server(
            "llama.cpp",
            mixed=True,
            by_module=True,
            ranks=(),
            lines=(
                "python convert_lora_to_gguf.py --base {base} --outfile small.gguf {folder}",
                "llama-server -m BASE.gguf --lora small.gguf",
            ),
            source="ggml-org/llama.cpp: convert_lora_to_gguf.py (0b03ada), src/llama-adapter.h (get_scale)",
        ),
    )
}
"""By name. Rules as documented in these sources; no server runs in the tests."""


def server_of(name: str) -> Server:
    """The rules of a server.

    Raises:
        ValueError: it is not in the table.
    """
    if name not in SERVERS:
        raise ValueError(f"--for must be one of {', '.join(SERVERS)}, got {name!r}{nearest(name, SERVERS)}")
    return SERVERS[name]


HALF_OR_SINGLE = (torch.float32, torch.float16, torch.bfloat16)


def served_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype to write: that of the adapter, but single for double precision, which no server reads."""
    return dtype if dtype in HALF_OR_SINGLE else torch.float32


def refuse_unserved(source: Adapter, server: Server) -> None:
    """Refuse an adapter with parts that the server does not read.

    Raises:
        ValueError: DoRA, a trained bias, a convolution, or saved modules such as a classifier's head; one line.
    """
    config = source.config
    kinds = sorted({module.kind for module in source.modules.values()} - {"linear", "embedding"})
    problem = ""
    if config.use_dora:
        problem = "DoRA"
    elif config.lora_bias or getattr(config, "bias", "none") != "none":
        problem = "a trained bias"
    elif kinds:
        problem = "an adapted convolution"
    elif source.carried:
        problem = f"{source.carried[0]}, which was trained in full beside LoRA, as a classifier's head is"
    if problem:
        raise ValueError(
            f"{source.folder}: {server.name} does not read {problem}. It reads LoRA of linear maps and embeddings; "
            "merge the adapter into its model and serve that: rankopt merge ADAPTER --model BASE --out MODEL"
        )


def check_as_read(written: Adapter, server: Server) -> None:
    """Check that the server's rules give every module of a written adapter the scale and the rank that PEFT gives it.

    Raises:
        ValueError: they do not; one line.
    """
    config, ranks = written.config, {module.rank for module in written.modules.values()}
    server.limit(config.r)
    if config.r != max(ranks) or (len(ranks) > 1 and not server.mixed):
        raise ValueError(f"{written.folder}: r must be the largest rank {max(ranks)} for {server.name}, got {config.r}")
    for name, module in written.modules.items():
        read = server.scale(config.lora_alpha, config.r, module.rank)
        if abs(read - module.scale) > 1e-9 * abs(module.scale):
            raise ValueError(
                f"{written.folder}: {server.name} would read {name} with the scale {read:g}, not {module.scale:g}"
            )
        if module.dtype not in HALF_OR_SINGLE:
            names = {dtype: name for name, dtype in DTYPES.items()}
            raise ValueError(f"{written.folder}: {name} must be stored in 16 or 32 bits, got {names[module.dtype]}")
