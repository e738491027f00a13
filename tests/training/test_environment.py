"""What a result records about the software and the machine."""

from __future__ import annotations

from importlib import metadata

from rankopt.training.environment import PACKAGES, environment


def test_versions_device_and_code() -> None:
    """Installed versions, the device, the number of threads and the code revision are present."""
    found = environment("cpu")
    assert found["device"] == "cpu"
    assert {name: found[name] for name in PACKAGES} == {name: metadata.version(name) for name in PACKAGES}
    assert {"python", "platform", "device", "threads", "code"} <= found.keys()
    assert all(found.values())
