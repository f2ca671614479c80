"""Where the weights of one or several configurations go: what `--out` means."""

from __future__ import annotations

import os
from pathlib import Path

from trainable.errors import ConfigError
from trainable.run_folder import check_writable
from trainable.weights import described

NAME = "{name}"


def out_files(out: str | None, sources: list[str]) -> list[Path | None]:
    """The file each configuration's weights go to.

    `out` is a file for one configuration; for any number it is a folder (an existing one, or ending with a
    slash), which gets `NAME.weights` each, or a path with `{name}` in it. NAME is the configuration file's,
    without its ending.

    Raises:
        ConfigError: two configurations would share a file, the folder cannot be written, or what is there
            is a configuration itself or no file.
    """
    if out is None:
        return [None] * len(sources)
    if not out:
        raise ConfigError(["--out: is empty; give a file or a folder"])
    out = os.path.expanduser(out)
    if NAME in out:
        pattern = out
    elif out.endswith(os.sep) or Path(out).is_dir():
        pattern = os.path.join(out, f"{NAME}.weights")
    elif len(sources) == 1:
        pattern = out
    else:
        raise ConfigError(
            [
                f"--out {out}: one file for {len(sources)} configs; give a folder (ending with /), "
                f"or a name with {NAME} in it"
            ]
        )
    files = [Path(pattern.replace(NAME, Path(source).stem)).absolute() for source in sources]
    problems = [
        f"--out: {sources[files.index(file)]} and {source} would both be written to {file}"
        for place, (file, source) in enumerate(zip(files, sources, strict=True))
        if file in files[:place]
    ]
    for folder in {file.parent for file in files}:
        # A folder with a slash may be new; where it should lie must be there: a typo is not a new tree.
        if not folder.is_dir() and not folder.parent.is_dir():
            problems.append(f"--out: no folder {folder}")
    for file in files:
        if file.exists() and not file.is_file():
            problems.append(f"--out: {file} is {'a folder' if file.is_dir() else 'no file to write over'}")
        for written in (file, described(file)):
            if written in {Path(source).absolute() for source in sources}:
                problems.append(f"--out: {written} is a configuration, which would be written over")
    if problems:
        raise ConfigError(problems)
    for folder in {file.parent for file in files}:
        check_writable(folder, "--out")
    return list(files)
