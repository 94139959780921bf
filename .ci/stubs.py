"""Puts the module into a wheel a second time, as its own stubs, so that type checkers see its types.

A marker ``py.typed`` counts in a package alone (PEP 561), and this is one module; the package of stubs beside it is
found by every type checker, and a module with annotations is a stub too, whatever stands in its functions.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Stubs(BuildHookInterface[BuilderConfig]):
    """Copies the module to where hatchling takes a file that it has already from."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # there a copy would grow old, and the file itself is found
            return
        self._folder = tempfile.TemporaryDirectory()
        copy = Path(self._folder.name) / "__init__.pyi"
        shutil.copyfile(Path(self.root) / "rested_emulator.py", copy)
        build_data["force_include"][str(copy)] = "rested_emulator-stubs/__init__.pyi"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._folder.cleanup()
