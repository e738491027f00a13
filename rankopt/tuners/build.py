"""Build the tuners of a trial, and attach them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rankopt.core.errors import nearest, shown
from rankopt.core.spec import decode
from rankopt.core.trial_spec import TrialSpec
from rankopt.tuners import TUNERS
from rankopt.tuners.base import Attached, Host, Tuner


def build_tuners(spec: TrialSpec) -> dict[str, Tuner]:
    """The tuners of a trial, in the order of the table: LoRA first, what wraps the model last.

    Raises:
        ValueError: an unknown name, or tuners that do not go together.
        pydantic.ValidationError: a wrong option.
    """
    names = [one.name for one in spec.tuners]
    for name in names:
        if name not in TUNERS:
            raise ValueError(f"tuner.name must be a known tuner, got {shown(name)}{nearest(name, TUNERS)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"tuner must list at least one tuner and none twice, got {', '.join(names) or 'none'}")
    partners = [name for name, kind in TUNERS.items() if kind.partner]
    if len(names) > 1 and (alone := [name for name in names if name not in partners]):
        raise ValueError(f"tuner must list only {', '.join(partners)} beside one another, got {alone[0]!r} in a list")
    if len(wrapping := [name for name in names if TUNERS[name].wraps]) > 1:
        raise ValueError(f"tuner must list at most one of {' and '.join(wrapping)}")
    options = {one.name: one.options for one in spec.tuners}
    return {name: decode(kind, options[name]) for name, kind in TUNERS.items() if name in options}


def attach_all(tuners: Mapping[str, Tuner], host: Host) -> dict[str, Attached]:
    """Attach tuners to one model, in order; the last one's `net` is the model to run.

    Raises:
        ValueError: this model cannot be tuned in this way.
    """
    host = replace(host, alone=len(tuners) == 1)
    return {name: tuner.attach(host) for name, tuner in tuners.items()}
