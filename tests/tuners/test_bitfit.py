"""BitFit."""

from __future__ import annotations

import pytest
from torch import nn

from rankopt.core.trial_spec import ModelSpec
from rankopt.tuners.base import Host
from rankopt.tuners.bitfit import BitFit


def test_a_model_without_biases_is_refused() -> None:
    net = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "head": nn.Linear(2, 1)})
    with pytest.raises(ValueError, match="must not be 'bitfit'"):
        BitFit().attach(Host(net, ("head",), ModelSpec(name="tiny")))
