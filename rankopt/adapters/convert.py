"""Convert an adapter to a plain LoRA adapter in safetensors."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from pathlib import Path

import torch

from rankopt.adapters.adapter import Adapter, read_adapter
from rankopt.adapters.compress import refuse_base_changes
from rankopt.adapters.foreign_formats import read_foreign
from rankopt.adapters.foreign_hints import PICKLED
from rankopt.adapters.module import Factors
from rankopt.adapters.peft_check import readable_targets
from rankopt.adapters.source import safe_file
from rankopt.adapters.truncate import difference
from rankopt.adapters.unpickle import unpickled
from rankopt.adapters.write import (
    Update,
    Written,
    carried_tensors,
    copy_model_config,
    verify,
    write_adapter,
    write_summary,
)
from rankopt.core.folders import new_folder
from rankopt.importance.spectral import one_thread
from rankopt.lowrank.files import CONFIG, WEIGHTS, write_config, write_weights


def convert(
    adapter: str | Path, out: str | Path, *, model: str | None = None, component: str | None = None,
    alpha: float | None = None,
) -> Written:  # fmt: skip
    """Write an adapter as plain LoRA in safetensors: every module with its own rank and the scale `alpha / r`.

        AdaLoRA: A' = diag(E) A without components whose E is 0, alpha' = r' alpha / (init_r + 1e-5)
        rsLoRA:  alpha' = alpha sqrt(r)

    A pickled `adapter_model.bin` is read with `weights_only`, so that no code in it can run; no other tool reads it. A
    plain LoRA adapter that is pickled or has repaired tensor names keeps its tensors and its config. Files of MLX,
    torchtune, Megatron, kohya's scripts and diffusers are read by `rankopt.adapters.foreign_formats`.

    Args:
        adapter: a folder, a safetensors file of Megatron's, kohya's or diffusers', or a hub id.
        out: the folder to make; must not exist.
        model: the base model's folder: kohya's files need its names, torchtune's and Megatron's its heads.
        component: the part of a diffusion model, where a file has several.
        alpha: numerator of the scale `alpha / r` of Megatron's files, which do not hold it.
    Raises:
        ValueError: there is nothing to convert, or the adapter is unsupported.
        OSError: the result cannot be written.
    """
    folder = Path(adapter)
    foreign = read_foreign(folder, model, component, alpha) if folder.exists() else None
    if foreign:
        with tempfile.TemporaryDirectory() as scratch:
            write_config(foreign.fields, Path(scratch))
            write_weights(foreign.tensors, Path(scratch))
            try:
                return _converted(read_adapter(scratch), Path(out), f"{foreign.form}'s layout")
            except ValueError as error:  # name the given file, not the copy
                raise ValueError(str(error).replace(scratch, str(folder))) from None
    if not (folder / PICKLED).exists() or (folder / WEIGHTS).exists():
        return _converted(read_adapter(adapter), Path(out), None)
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch, folder.name or "adapter")
        plain.mkdir()
        shutil.copyfile(safe_file(folder, CONFIG), plain / CONFIG)
        copy_model_config(folder, plain)
        tensors = unpickled(safe_file(folder, PICKLED))
        write_weights({key: value.clone() for key, value in tensors.items()}, plain)
        try:
            return _converted(read_adapter(plain), Path(out), PICKLED)
        except ValueError as error:  # name the given folder, not the copy
            raise ValueError(str(error).replace(str(plain), str(folder))) from None


def _converted(source: Adapter, out: Path, pickled: str | None) -> Written:
    if source.config.kind in ("AdaLoRA", "rsLoRA"):
        return _plain(source, out)
    if not pickled and not source.repairs:
        raise ValueError(
            f"{source.folder}: nothing to convert, it is a plain {source.config.kind} adapter in safetensors"
        )
    return _copied(source, out, pickled or "a file with other tensor names")


@one_thread()
def _plain(source: Adapter, out: Path) -> Written:
    refuse_base_changes(source)
    updates = [
        Update(source.modules[name], factors, source.modules[name].scale).rounded()
        for name in source.modules
        if len((factors := _nonzero(source, name)).A)
    ]
    if not updates:  # PEFT cannot load an adapter without a target
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
            source.repairs,
        )
        write_summary(draft, {"converted": done.what, "error": done.error, "relative_error": done.relative_error})
    return done


def _copied(source: Adapter, out: Path, origin: str) -> Written:
    """Write the same tensors under PEFT's names, with the same config."""
    for name in source.modules:
        source.factors(name)  # raises if a value is not finite
    fields = json.loads((source.folder / CONFIG).read_text(encoding="utf-8"))
    fields |= readable_targets(source, source.modules, source.stored, fields)
    with new_folder(out) as draft:
        write_config(fields, draft)
        write_weights({name: source.tensor(name) for name in source.stored}, draft)
        copy_model_config(source.folder, draft)
        copied = read_adapter(draft)
        same = set(copied.stored) == set(source.stored) and not copied.repairs
        if not same or not all(torch.equal(copied.tensor(name), source.tensor(name)) for name in source.stored):
            raise OSError(errno.EIO, f"the written adapter differs from {source.folder}", str(draft))
    what = f"{source.config.kind} from {origin}, {source.parameters:,} parameters"
    return Written(out, what, 0.0, 0.0, source.repairs)


def _nonzero(source: Adapter, name: str) -> Factors:
    """The factors without components that AdaLoRA has suppressed; one is kept if tensors are attached to the module."""
    A, B = source.factors(name)
    module = source.modules[name]
    if "E" not in module.keys:
        return Factors(A, B)
    kept = source.tensor(module.keys["E"]).flatten() != 0
    if not kept.any() and module.floor:
        kept[0] = True
    return Factors(A[kept], B[:, kept])
