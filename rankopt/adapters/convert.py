"""Converting an adapter to a plain LoRA adapter in safetensors."""

from __future__ import annotations

import pickle
import shutil
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor

from rankopt.adapters.adapter import Adapter, Factors, read_adapter
from rankopt.adapters.compress import refuse_base_changes
from rankopt.adapters.source import PICKLED, safe_file
from rankopt.adapters.truncate import difference
from rankopt.adapters.write import Update, Written, carried_tensors, verify, write_adapter, write_summary
from rankopt.core.folders import new_folder
from rankopt.core.problems import first_line
from rankopt.importance.spectral import one_thread
from rankopt.lowrank.files import CONFIG, WEIGHTS, write_weights

PLAIN = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
"""What a pickled tensor may hold."""


def convert(adapter: str | Path, out: str | Path) -> Written:
    """Write an adapter as plain LoRA: every module its rank, `alpha / r` its scale, safetensors.

        AdaLoRA: A' = diag(E) A without the components whose E is 0, alpha' = r' alpha / (init_r + 1e-5)
        rsLoRA:  alpha' = alpha sqrt(r)

    A pickled `adapter_model.bin` is read with `weights_only`, so that nothing in it can run, and only here, where that
    was asked for. A pickled LoRA adapter keeps its config as it is.

    Args:
        adapter: a folder, or a hub id.
        out: the folder to make; must not exist.
    Raises:
        ValueError: nothing to convert, or an adapter that cannot be.
        OSError: it cannot be written.
    """
    folder = Path(adapter)
    if not (folder / PICKLED).exists() or (folder / WEIGHTS).exists():
        return _plain(read_adapter(adapter), Path(out))
    with tempfile.TemporaryDirectory() as scratch:
        unpickled = Path(scratch, folder.name or "adapter")
        unpickled.mkdir()
        shutil.copyfile(safe_file(folder, CONFIG), unpickled / CONFIG)
        tensors = _unpickled(safe_file(folder, PICKLED))
        write_weights({key: value.clone() for key, value in tensors.items()}, unpickled)
        try:
            source = read_adapter(unpickled)
            if source.config.kind in ("AdaLoRA", "rsLoRA"):
                return _plain(source, Path(out))
            for name in source.modules:
                source.factors(name)  # finite
        except ValueError as error:  # names the adapter that was given, not the copy
            raise ValueError(str(error).replace(str(unpickled), str(folder))) from None
        with new_folder(Path(out)) as draft:
            for name in (CONFIG, WEIGHTS):
                shutil.copyfile(unpickled / name, draft / name)
            copied = read_adapter(draft)
            if not all(torch.equal(copied.tensor(key), value) for key, value in tensors.items()):
                raise OSError(f"what was written to {draft} differs from {folder / PICKLED}")
    return Written(Path(out), f"{source.config.kind} from {PICKLED}, {source.parameters:,} parameters", 0.0, 0.0)


@one_thread()
def _plain(source: Adapter, out: Path) -> Written:
    if source.config.kind not in ("AdaLoRA", "rsLoRA"):
        raise ValueError(
            f"{source.folder}: must be AdaLoRA, rsLoRA or pickled to be converted, it is plain {source.config.kind}"
        )
    refuse_base_changes(source)
    updates = [
        Update(source.modules[name], factors, source.modules[name].scale).rounded()
        for name in source.modules
        if len((factors := _nonzero(source, name)).A)
    ]
    if not updates:  # PEFT knows no adapter without a target
        module = min(source.modules.values(), key=lambda module: module.shape.cost)
        zeros = Factors(torch.zeros(1, module.shape.fan_in), torch.zeros(module.shape.fan_out, 1))
        updates = [Update(module, zeros, module.scale).rounded()]
    with new_folder(out) as draft:
        carried = carried_tensors(source, updates)
        write_adapter(draft, source, updates, carried)
        written = verify(draft, updates, carried)
        meant = ((name, module.scale, source.factors(name)) for name, module in source.modules.items())
        error, relative_error = difference(meant, written)
        done = Written(
            out,
            f"LoRA from {source.config.kind}, {len(updates)} of {len(source.modules)} modules, "
            f"{written.parameters:,} parameters",
            error,
            relative_error,
        )
        write_summary(draft, {"converted": done.what, "error": done.error, "relative_error": done.relative_error})
    return done


def _nonzero(source: Adapter, name: str) -> Factors:
    """The factors without the components that AdaLoRA has suppressed; one stays where tensors are attached."""
    A, B = source.factors(name)
    module = source.modules[name]
    if "E" not in module.keys:
        return Factors(A, B)
    kept = source.tensor(module.keys["E"]).flatten() != 0
    if not kept.any() and module.floor:
        kept[0] = True
    return Factors(A[kept], B[:, kept])


def _unpickled(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's, of kinds of tensors that are refused below
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        reason = first_line(error)[:120]
        raise ValueError(f"{path}: must hold tensors and nothing else, and whole; it was not read ({reason})") from None
    if not isinstance(tensors, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()
    ):
        raise ValueError(f"{path}: must hold a mapping from names to tensors")
    for key, value in tensors.items():
        if problem := _odd(value):
            raise ValueError(f"{path}: {key[:80]!r} must be a plain tensor of finite numbers, it {problem}")
    return tensors


def _odd(tensor: Tensor) -> str | None:
    """Why a tensor is no plain array: a few bytes of a pickle can stand for one that no memory holds."""
    if tensor.is_quantized or tensor.dtype not in PLAIN:
        return f"holds {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return f"is {str(tensor.layout).removeprefix('torch.')} on {tensor.device.type}"
    if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        return f"has {tensor.numel():,} entries in {tensor.untyped_storage().nbytes():,} bytes"
    return None if torch.isfinite(tensor).all() else "holds NaN or infinity"
