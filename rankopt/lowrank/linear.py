"""The gated low-rank linear map, the layer that all allocators control."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rankopt.core.pattern import Shape
from rankopt.lowrank.gated import gated_linear
from rankopt.lowrank.quantized import dequantized, quantization_of
from rankopt.lowrank.scale import Scale

if TYPE_CHECKING:
    from transformers.pytorch_utils import Conv1D

ROUNDED = "_rankopt_rounded"
"""Attribute of a weight that caches its rounded copy."""


class LowRankLinear(nn.Module):
    """A frozen linear map plus a gated, masked low-rank update.

        y = W x + bias + s B ((g * m) * (A dropout(x)))

    Component i is `(B[:, i], g[i], A[i, :])`. A masked component (`m[i] = 0`) gets no gradient and is not computed. A
    component with a closed gate (`g[i] = 0`) still gets the gate's gradient and can reopen. Tensors are never resized.
    A layer of rank 0 is its base map.

    Args:
        base: `nn.Linear` or GPT-2's `Conv1D`, with weight `(out, in)` or `(in, out)`; frozen. A map that bitsandbytes
            quantised runs its own product, to which the update is added, as in QLoRA.
        max_rank: R, the number of components, all masked until `open` is called.
        scale: policy and alpha of s.
        dropout: probability, on the adapter's input.
    Attributes:
        A: `(R, in)`.
        B: `(out, R)`.
        g: `(R,)`, ones; not trained unless an allocator enables it.
        m: `(R,)`, bool.
        s: the current scale.
        frozen: number of leading active components that are computed but get no gradient (DyLoRA).
        changed: set if factors were replaced outside the optimiser, which invalidates its moments.
        renewed: the components replaced since the optimiser's last step; their moments are reset.
        statistics: what is collected of its passes, if anything, see `statistics.py`.
    Example:
        >>> layer = LowRankLinear(nn.Linear(4, 3), max_rank=2, scale=Scale("unit", 1.0))
        >>> layer.open(1)
        >>> layer.rank, tuple(layer(torch.zeros(5, 4)).shape)
        (1, (5, 3))

    Source: Hu et al. 2021 (2106.09685) eq. 3, with the gate of Zhang et al. 2023 (2303.10512) eq. 3. The mask is ours.
    """

    m: Tensor
    _index: Tensor | None

    def __init__(self, base: nn.Linear | Conv1D, max_rank: int, scale: Scale, dropout: float = 0.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.transposed = is_conv1d(base)
        self.quantization = quantization_of(base)
        self.shape = self.shape_of(base)
        fan_in, fan_out = self.shape
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
        self.renewed: list[int] = []
        self.statistics: Any = None
        self._unmerged: nn.Parameter | None = None
        self.train(base.training)
        self.keep(0)

    @staticmethod
    def shape_of(base: Any) -> Shape:
        """The shape of a map."""
        # a quantised weight has another shape
        return Shape(*base.weight.shape) if is_conv1d(base) else Shape(base.in_features, base.out_features)

    def as_weight(self, update: Tensor) -> Tensor:
        """An update `(out, in)` in the layout of the base's weight."""
        return update.T if self.transposed else update

    @property
    def weight(self) -> Tensor:
        """W; some models read its dtype."""
        return self.base.weight

    @torch.no_grad()
    def dense(self) -> Tensor:
        """W as a dense `(out, in)` matrix."""
        if self.quantization:
            return dequantized(self.base)
        return self.weight.T if self.transposed else self.weight.flatten(1)

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
        """Start with the first `rank` components; sets the initial rank of the scale policy."""
        if not 0 <= rank <= self.max_rank:
            raise ValueError(f"a layer's rank must be in 0..{self.max_rank} (model.max_rank), got {rank}")
        self.initial = rank
        self.keep(rank)

    def keep(self, rank: int) -> None:
        """Mask all but the first `rank` components."""
        self.mask(torch.arange(self.max_rank, device="cpu") < rank)

    def mask(self, m: Tensor) -> None:
        """Set the mask `(R,)`, given on any device; all other methods change the mask through this one."""
        self.m.copy_(m)
        self._rank = int(m.sum())
        index = m.nonzero().squeeze(1)
        # None if the active components come first: then a slice suffices
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
        if not self.quantization and (self.dropout.p == 0 or not self.training):
            weight: Tensor = self.base.weight
            if torch.is_autocast_enabled(x.device.type):
                x = x.to(torch.get_autocast_dtype(x.device.type))
                weight = self.rounded(x.dtype)
            if self.transposed:
                weight = weight.T
            return gated_linear(x, weight, self.base.bias, A, B, g, self.s)
        y: Tensor = self.base(x)  # W and A see different inputs, or W is quantised
        A, B = A.to(y.dtype), B.to(y.dtype)  # the base model may have been loaded in a shorter dtype
        return y + self.s * functional.linear((functional.linear(self.dropout(x), A) * g).to(y.dtype), B)

    def rounded(self, dtype: torch.dtype) -> Tensor:
        """W in autocast's dtype, cached on W because W is frozen; layers with the same W share it."""
        weight: Any = self.base.weight
        version, kept = getattr(weight, ROUNDED, (None, None))
        # a tensor has no version while a graph is compiled
        same = kept is not None and (kept.dtype, kept.device) == (dtype, weight.device)
        if not same or not (torch.compiler.is_compiling() or version == weight._version):
            kept = weight.detach().to(dtype)
            setattr(weight, ROUNDED, (weight._version, kept))
        return cast(Tensor, kept)

    @torch.no_grad()
    def update(self) -> Tensor:
        """The update `s B diag(g * m) A` as a dense `(out, in)` matrix, for merging and tests."""
        A, B, g = self.active()
        return self.s * (B * g) @ A

    @torch.no_grad()
    def replace(self, A: Tensor, B: Tensor) -> None:
        """Replace the components by A `(k, in)`, B `(out, k)` with gates 1; the remaining ones become zero."""
        k = len(A)
        self.A[:k], self.A[k:] = A, 0.0
        self.B[:, :k], self.B[:, k:] = B, 0.0
        self.g.fill_(1.0)
        self.changed = True

    @torch.no_grad()
    def renew(self, index: int, a: Tensor, b: Tensor, gate: float) -> None:
        """Replace component `index` by a `(in,)`, b `(out,)` and a gate, and open it."""
        self.A[index], self.B[:, index], self.g[index] = a, b, gate
        self.renewed.append(index)
        self.mask(self.m | (torch.arange(self.max_rank, device=self.m.device) == index))

    @torch.no_grad()
    def permute(self, order: Tensor) -> None:
        """Reorder the components (rows of A, columns of B, gates, mask) by `order` `(R,)`."""
        self.A.copy_(self.A[order])
        self.B.copy_(self.B[:, order])
        self.g.copy_(self.g[order])
        self.mask(self.m[order])
        self.changed = True

    @torch.no_grad()
    def merge(self, dtype: torch.dtype | None = None) -> None:
        """Add the update to a copy of the base weight, which other layers may share.

        Args:
            dtype: of the copy (default: the weight's).
        Raises:
            ValueError: the base weight is quantised.
        """
        if self.quantization:
            raise ValueError(
                f"an update cannot be merged into weights of model.quantization {self.quantization!r}, which would "
                "round it: export the adapter and merge it into the model without quantization"
            )
        if self._unmerged is None:
            weight, update = cast(nn.Parameter, self.base.weight), self.as_weight(self.update())
            total = weight + update.to(weight.dtype)
            self.base.weight = nn.Parameter(total.to(dtype or weight.dtype), requires_grad=False)
            self._unmerged = weight

    def unmerge(self) -> None:
        """Restore the original base weight."""
        if self._unmerged is not None:
            self.base.weight, self._unmerged = self._unmerged, None

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.mask(self.m)
        if hasattr(self.base.weight, ROUNDED):  # a compiled graph does not check the version
            delattr(self.base.weight, ROUNDED)

    def extra_repr(self) -> str:
        return f"rank={self._rank}/{self.max_rank}, s={self.s:g}"


def is_conv1d(module: nn.Module) -> bool:
    """Whether a module is GPT-2's transposed linear map; compares names, because importing its class is slow."""
    kind = type(module)
    return (kind.__module__, kind.__qualname__) == ("transformers.pytorch_utils", "Conv1D")
