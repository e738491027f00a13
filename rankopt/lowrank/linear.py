"""The gated low-rank linear map that every allocator acts on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rankopt.core.pattern import Shape
from rankopt.lowrank.gated import gated_linear
from rankopt.lowrank.scale import Scale

if TYPE_CHECKING:
    from transformers.pytorch_utils import Conv1D

ROUNDED = "_rankopt_rounded"


class LowRankLinear(nn.Module):
    """A frozen linear map plus a gated, masked low-rank update.

        y = W x + bias + s B ((g * m) * (A dropout(x)))

    A component i is `(B[:, i], g[i], A[i, :])`. The mask `m[i] = 0` is hard: no gradient reaches the component and it
    costs no arithmetic. The gate `g[i] = 0` is soft: it still receives gradient and may revive. Tensors are never
    resized; a layer of rank 0 is its base map.

    Args:
        base: `nn.Linear` or GPT-2's `Conv1D`, with weight `(out, in)` or `(in, out)`; it is frozen.
        max_rank: R, the number of components, all masked until `open` is called.
        scale: policy and alpha of s.
        dropout: probability, on the adapter's input.
    Attributes:
        A: `(R, in)`.
        B: `(out, R)`.
        g: `(R,)`, ones and not trained unless an allocator trains it.
        m: `(R,)`, bool.
        s: the scale now.
        frozen: the first `frozen` active components act but receive no gradient (DyLoRA).
        changed: set when factors were replaced from outside the optimiser, whose moments are then void.
    Example:
        >>> layer = LowRankLinear(nn.Linear(4, 3), max_rank=2, scale=Scale("unit", 1.0))
        >>> layer.open(1)
        >>> layer.rank, tuple(layer(torch.zeros(5, 4)).shape)
        (1, (5, 3))

    Source: Hu et al. 2021 (2106.09685) eq. 3 with the gate of Zhang et al. 2023 (2303.10512) eq. 3; the mask is ours.
    """

    m: Tensor
    _index: Tensor | None

    def __init__(self, base: nn.Linear | Conv1D, max_rank: int, scale: Scale, dropout: float = 0.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.transposed = is_conv1d(base)
        fan_out, fan_in = reversed(base.weight.shape) if self.transposed else base.weight.shape
        self.shape = Shape(fan_in, fan_out)
        self.dropout = nn.Dropout(dropout)
        device = base.weight.device
        self.A = nn.Parameter(torch.zeros(max_rank, fan_in, device=device))
        self.B = nn.Parameter(torch.zeros(fan_out, max_rank, device=device))
        self.g = nn.Parameter(torch.ones(max_rank, device=device), requires_grad=False)
        self.register_buffer("m", torch.zeros(max_rank, dtype=torch.bool, device=device))
        self.register_buffer("_index", None, persistent=False)  # a buffer, so that it moves with the model
        self.scale = scale
        self.initial = 0
        self.frozen = 0
        self.changed = False
        self._unmerged: nn.Parameter | None = None
        self.train(base.training)
        self.keep(0)

    @property
    def weight(self) -> Tensor:
        """W, which some models look at for its type."""
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        return cast("Tensor | None", self.base.bias)

    @property
    def max_rank(self) -> int:
        return len(self.m)

    @property
    def rank(self) -> int:
        """The active rank, `sum(m)`."""
        return self._rank

    @property
    def prefixed(self) -> bool:
        """Whether the active components come first."""
        return self._index is None

    @property
    def s(self) -> float:
        return self.scale.value(self.initial, self._rank)

    def open(self, rank: int) -> None:
        """Begin with the first `rank` components; this is the initial rank of the scale policy."""
        if not 0 <= rank <= self.max_rank:
            raise ValueError(f"a layer's rank must be in 0..{self.max_rank} (model.max_rank), got {rank}")
        self.initial = rank
        self.keep(rank)

    def keep(self, rank: int) -> None:
        """Mask all but the first `rank` components."""
        self.mask(torch.arange(self.max_rank, device="cpu") < rank)

    def mask(self, m: Tensor) -> None:
        """Set the mask `(R,)`, on any device; the only place where it changes."""
        self.m.copy_(m)
        self._rank = int(m.sum())
        index = m.nonzero().squeeze(1)
        # none when the active components come first: then a slice will do
        self._index = None if self._rank == 0 or int(index[-1]) < self._rank else index.to(self.m.device)

    def active(self) -> tuple[Tensor, Tensor, Tensor]:
        """The active components: A `(r, in)`, B `(out, r)`, g `(r,)`; the first `frozen` of them detached."""
        A: Tensor = self.A
        B: Tensor = self.B
        g: Tensor = self.g
        if self._index is not None:
            A, B, g = A[self._index], B[:, self._index], g[self._index]
        elif self._rank < self.max_rank:
            A, B, g = A[: self._rank], B[:, : self._rank], g[: self._rank]
        if k := self.frozen:
            A = torch.cat([A[:k].detach(), A[k:]])
            B = torch.cat([B[:, :k].detach(), B[:, k:]], dim=1)
            g = torch.cat([g[:k].detach(), g[k:]])
        return A, B, g

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., in)` to `(..., out)`."""
        if self._rank == 0 or self._unmerged is not None:
            return cast(Tensor, self.base(x))
        A, B, g = self.active()
        if self.dropout.p == 0 or not self.training:
            weight: Tensor = self.base.weight
            if torch.is_autocast_enabled(x.device.type):
                x = x.to(torch.get_autocast_dtype(x.device.type))
                weight = self.rounded(x.dtype)
            if self.transposed:
                weight = weight.T
            return gated_linear(x, weight, self.base.bias, A, B, g, self.s)
        y: Tensor = self.base(x)  # W and A see different inputs
        return y + self.s * functional.linear(functional.linear(self.dropout(x), A) * g, B)

    def rounded(self, dtype: torch.dtype) -> Tensor:
        """W in autocast's type, rounded once and not at every step: W is frozen. All layers over one W share it."""
        weight: Any = self.base.weight
        version, kept = getattr(weight, ROUNDED, (None, None))
        # a version cannot be told while a graph is made
        same = kept is not None and (kept.dtype, kept.device) == (dtype, weight.device)
        if not same or not (torch.compiler.is_compiling() or version == weight._version):
            kept = weight.detach().to(dtype)
            setattr(weight, ROUNDED, (weight._version, kept))
        return cast(Tensor, kept)

    @torch.no_grad()
    def update(self) -> Tensor:
        """The update `s B diag(g * m) A` as a dense `(out, in)` matrix; for merging and tests, never in training."""
        A, B, g = self.active()
        return self.s * (B * g) @ A

    @torch.no_grad()
    def replace(self, A: Tensor, B: Tensor) -> None:
        """Put other components first: A `(k, in)`, B `(out, k)`, gates 1; the rest is zeroed."""
        k = len(A)
        self.A[:k], self.A[k:] = A, 0.0
        self.B[:, :k], self.B[:, k:] = B, 0.0
        self.g.fill_(1.0)
        self.changed = True

    @torch.no_grad()
    def permute(self, order: Tensor) -> None:
        """Re-order the components (A's rows, B's columns, gates, mask) by `order` `(R,)`."""
        self.A.copy_(self.A[order])
        self.B.copy_(self.B[:, order])
        self.g.copy_(self.g[order])
        self.mask(self.m[order])
        self.changed = True

    @torch.no_grad()
    def merge(self) -> None:
        """Add the update to the base weight: in a weight of its own, since others may share the base's."""
        if self._unmerged is None:
            weight, update = cast(nn.Parameter, self.base.weight), self.update()
            update = update.T if self.transposed else update
            self.base.weight = nn.Parameter(weight + update.to(weight.dtype), requires_grad=False)
            self._unmerged = weight

    def unmerge(self) -> None:
        """Put the base weight back: the very one that it was, not a subtraction."""
        if self._unmerged is not None:
            self.base.weight, self._unmerged = self._unmerged, None

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.mask(self.m)
        if hasattr(self.base.weight, ROUNDED):  # a compiled graph does not look at the version
            delattr(self.base.weight, ROUNDED)

    def extra_repr(self) -> str:
        return f"rank={self._rank}/{self.max_rank}, s={self.s:g}"


def is_conv1d(module: nn.Module) -> bool:
    """Whether a module is GPT-2's transposed linear map; told by name, because importing its class is slow."""
    kind = type(module)
    return (kind.__module__, kind.__qualname__) == ("transformers.pytorch_utils", "Conv1D")
