"""Looking at folders that others write to and remove from meanwhile."""

import os
from pathlib import Path


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, at any depth. What goes away while it looks is left out, where `rglob` would
    raise."""
    return [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
