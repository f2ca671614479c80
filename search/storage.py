"""From what `--storage` says to the place of a search."""

from __future__ import annotations

import re
from pathlib import Path

from search.place import Place


def open_place(storage: str, name: str) -> Place:
    """The search `name` in `storage`, a folder or `s3://BUCKET/FOLDER`; nothing is made yet.

    Raises:
        ConfigError: no address of a bucket, no such bucket, no credentials, or it does not answer.
    """
    if not re.match(r"\w+:/", storage):  # s3:/bucket would be a folder on this machine, which may go
        return Place(Path(storage).expanduser().absolute() / name)
    from search.bucket import Bucket  # takes pyarrow, which a folder does not need

    return Bucket.at(storage, name)
