"""The manifest beside a .beton file that was written here: NAME.beton.json.

It tells class names, counts, settings, size and checksum. Files from elsewhere have none.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

MANIFEST_VERSION = 1


def manifest_path(path: Path) -> Path:
    """Where the manifest of a .beton file lies."""
    return path.with_name(path.name + ".json")


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a .beton file, or None where there is none or it can't be read."""
    try:
        manifest = json.loads(manifest_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(manifest, dict) and manifest.get("version") == MANIFEST_VERSION
    complete = ours and {"class_names", "bytes", "sha256"} <= manifest.keys()
    return manifest if complete and isinstance(manifest["class_names"], list) else None


def sha256(path: Path) -> str:
    """Checksum of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
