"""A folder in an S3 bucket: whole objects, written at once. The one file that knows pyarrow's file systems.

An object appears whole or not at all, whenever its writer is killed, and who reads after a write sees it.
There is no append, no rename and no lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import pyarrow.fs as arrow

from trainable.atomic import StorageError
from trainable.errors import ConfigError

PATIENT = 8
"""Attempts at a request, with growing pauses: a server that is away for 50 s is waited for."""

HASTY = 3
"""Attempts where somebody waits for an answer."""

ONCE = 1
"""For a write that must not arrive late: it has, or has failed, after ten seconds at most."""

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_OPTIONS = {"endpoint_override", "scheme", "region"}
_AT_ONCE = 16  # small requests are nearly all waiting
_CHUNK = 16 << 20


@dataclass(frozen=True)
class Entry:
    """One object."""

    size: int
    """Bytes."""

    changed: float
    """When it was written, by the server's clock, in seconds since 1970."""


class Remote:
    """The objects below `s3://bucket/folder`; names are relative to it, with slashes.

    Credentials come from the environment, ~/.aws or the machine's role, as in every AWS tool. Other servers
    than Amazon's are named by AWS_ENDPOINT_URL, or by `?endpoint_override=HOST:PORT&scheme=http` in the URI.
    """

    def __init__(self, uri: str, attempts: int = PATIENT) -> None:
        """Contact nobody yet.

        Args:
            uri: Where the folder is.
            attempts: How often a request is tried before it is an error.

        Raises:
            ConfigError: not the address of a folder in S3.
        """
        self._bucket, self._path, self._options = _parse(uri)
        self._attempts = attempts
        self._system: arrow.S3FileSystem | None = None

    def __str__(self) -> str:
        """The address as people write it."""
        return f"s3://{self._path}"

    @property
    def uri(self) -> str:
        """The address with everything another machine needs to know, but for credentials."""
        options = f"?{urlencode(self._options)}" if self._options else ""
        return f"s3://{quote(self._path)}{options}"

    def child(self, name: str) -> Remote:
        """The folder `name` below this one."""
        child = Remote(self.uri, self._attempts)
        child._path, child._system = f"{self._path}/{name}", self._system
        return child

    def trying(self, attempts: int) -> Remote:
        """The same folder with another patience."""
        return Remote(self.uri, attempts)

    def check(self) -> None:
        """Raise ConfigError, in one line, where there is no such bucket, or it cannot be asked."""
        try:
            kind = self._files().get_file_info(self._bucket).type
        except OSError as error:
            raise ConfigError([f"{self}: cannot be reached: {_line(error)}"]) from None
        if kind != arrow.FileType.Directory:
            raise ConfigError([f"{self}: there is no bucket {self._bucket}"])

    def entries(self, folder: str = "") -> dict[str, Entry]:
        """All objects below `folder`, by name; empty where there is nothing."""
        base = f"{self._path}/{folder}".rstrip("/")
        selector = arrow.FileSelector(base, recursive=True, allow_not_found=True)
        try:
            infos = self._files().get_file_info(selector)
        except OSError as error:
            raise self._error("listed", folder, error) from error
        return {
            info.path[len(self._path) + 1 :]: Entry(info.size, info.mtime_ns / 1e9)
            for info in infos
            if info.type == arrow.FileType.File
        }

    def entry(self, name: str) -> Entry | None:
        """One object; None where there is none."""
        try:
            info = self._files().get_file_info(f"{self._path}/{name}")
        except OSError as error:
            raise self._error("read", name, error) from error
        return Entry(info.size, info.mtime_ns / 1e9) if info.type == arrow.FileType.File else None

    def read(self, name: str) -> bytes | None:
        """An object's content; None where there is none."""
        try:
            with self._files().open_input_stream(f"{self._path}/{name}") as stream:
                content: bytes = stream.read()
                return content
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error("read", name, error) from error

    def read_all(self, names: Iterable[str]) -> list[bytes | None]:
        """Contents of many objects, in their order, several at a time."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return [*pool.map(self.read, names)]

    def write(self, name: str, content: bytes) -> None:
        """Make `content` the object; it is in storage when this returns."""
        try:
            with self._files().open_output_stream(f"{self._path}/{name}") as stream:
                stream.write(content)
        except OSError as error:
            raise self._error("written", name, error) from error

    def upload(self, name: str, file: Path) -> None:
        """Make a local file the object."""
        with file.open("rb") as source:
            first = source.read(_CHUNK)
            try:
                with self._files().open_output_stream(f"{self._path}/{name}") as stream:
                    stream.write(first)
                    while chunk := source.read(_CHUNK):
                        stream.write(chunk)
            except OSError as error:
                raise self._error("written", name, error) from error

    def download(self, name: str, file: Path) -> bool:
        """Make the object a local file; False where there is no object."""
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f".{file.name}.part")
        try:
            with (
                self._files().open_input_stream(f"{self._path}/{name}") as stream,
                aside.open("wb") as target,
            ):
                while chunk := stream.read(_CHUNK):
                    target.write(chunk)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._error("read", name, error) from error
        aside.replace(file)
        return True

    def delete(self, name: str) -> None:
        """Delete an object, where there is one."""
        try:
            self._files().delete_file(f"{self._path}/{name}")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._error("deleted", name, error) from error

    def delete_all(self, names: Iterable[str]) -> None:
        """Delete many objects, several at a time."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(self.delete, names):
                pass

    def _files(self) -> arrow.S3FileSystem:
        if self._system is None:
            options = dict(self._options)
            if not options:  # Amazon itself: every bucket has its region
                try:
                    options["region"] = arrow.resolve_s3_region(self._bucket)
                except OSError as error:
                    raise ConfigError([f"{self}: cannot be reached: {_line(error)}"]) from None
            self._system = arrow.S3FileSystem(
                **options,
                allow_delayed_open=True,  # a small object is one request instead of three
                retry_strategy=arrow.AwsStandardS3RetryStrategy(max_attempts=self._attempts),
            )
        return self._system

    def _error(self, what: str, name: str, error: OSError) -> StorageError:
        place = f"{self}/{name}".rstrip("/")
        return StorageError(f"{place}: cannot be {what}: {_line(error)}")


def _parse(uri: str) -> tuple[str, str, dict[str, str]]:
    """Bucket, bucket/folder, and options for pyarrow's file system, those of the environment included."""
    parts = urlsplit(uri)
    bucket = parts.netloc
    if parts.scheme != "s3" or not bucket:
        raise ConfigError([f"{uri}: must be a folder, or s3://BUCKET/FOLDER"])
    if "@" in bucket:
        raise ConfigError([f"s3://{bucket.split('@')[1]}: credentials come from the environment or ~/.aws"])
    options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    if unknown := options.keys() - _OPTIONS:
        raise ConfigError([f"{uri}: unknown option {', '.join(sorted(unknown))}"])
    endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
    if endpoint and "endpoint_override" not in options:
        where = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        options |= {"endpoint_override": where.netloc, "scheme": where.scheme}
    region = next((os.environ[name] for name in _REGIONS if os.environ.get(name)), None)
    if region and "region" not in options:
        options["region"] = region
    return bucket, "/".join([bucket, *unquote(parts.path).strip("/").split("/")]).rstrip("/"), options


def _line(error: OSError) -> str:
    return " ".join(str(error).split())
