"""Download one package's archive with the client of its registry, and check it against the pinned SHA-256.

The clients are the ordinary ones (``pip``, ``npm``, ``apt-get``), so the user's own mirrors, proxies and
certificates apply. They only download: nothing is installed, no script of a package runs, no root is needed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from covector.data.cache import cache_folder, lock, publish, scratch
from covector.errors import DataError

__all__ = ["Package", "archive"]

log = logging.getLogger("covector.data")

_SUFFIX = {"wheel": ".whl", "sdist": ".tar.gz", "npm": ".tgz", "apt": ".deb"}
_NETWORK_SIGNS = (
    "name resolution", "failed to establish a new connection", "connection refused", "connection timed out",
    "network is unreachable", "could not resolve", "temporary failure", "could not connect", "no route",
    "enotfound", "eai_again", "etimedout", "econnrefused", "enetunreach", "max retries exceeded",
)  # fmt: skip
_TIMEOUT = 1800  # seconds a client may take for one archive


@dataclass(frozen=True)
class Package:
    """One archive in a public package registry.

    Args:
        client: ``"wheel"`` or ``"sdist"`` (pip), ``"npm"``, or ``"apt"``.
        name: the package's name there.
        version: the pinned version.
        sha256: hex SHA-256 of the archive.
        megabytes: size of the archive in MB (10^6 bytes).
        options: more arguments for the client.
    """

    client: str
    name: str
    version: str
    sha256: str
    megabytes: float
    options: tuple[str, ...] = ()

    @property
    def filename(self) -> str:
        """Name of the archive in the cache."""
        stem = self.name.lstrip("@").replace("/", "-")
        return f"{stem}-{self.version}".replace(":", "_") + _SUFFIX[self.client]


def archive(package: Package) -> Path:
    """The package's archive in the cache, downloaded first where it is not there; checked in both cases.

    Args:
        package: what to download.

    Returns:
        Path of the archive.

    Raises:
        DataError: the client program or the network is missing, the client fails, or the SHA-256 differs.
    """
    target = cache_folder() / "archives" / package.filename
    with lock(package.filename):
        if not target.exists():
            with scratch() as folder:
                log.info("fetching %s %s (%.1f MB) with %s", package.name, package.version,
                         package.megabytes, package.client)  # fmt: skip
                downloaded = _download(package, folder)
                _check(downloaded, package)
                publish(downloaded, target)
        else:
            _check(target, package)
    return target


def _download(package: Package, folder: Path) -> Path:
    if package.client in ("wheel", "sdist"):
        _pip(package, folder)
    elif package.client == "npm":
        _npm(package, folder)
    else:
        _apt(package, folder)
    files = [path for path in folder.iterdir() if path.is_file()]
    if len(files) != 1:
        raise DataError(f"{package.name}: expected one archive from {package.client}, got {len(files)}")
    return files[0]


def _pip(package: Package, folder: Path) -> None:
    if importlib.util.find_spec("pip") is not None:
        client = [sys.executable, "-m", "pip"]
    else:
        client = [_program("pip", package)]
    kind = "--only-binary" if package.client == "wheel" else "--no-binary"
    _call(
        [*client, "download", "--no-deps", kind, ":all:", "--disable-pip-version-check", "--retries", "2",
         "--dest", str(folder), *package.options, f"{package.name}=={package.version}"],
        package,
    )  # fmt: skip


def _npm(package: Package, folder: Path) -> None:
    client = _program("npm", package)
    with scratch() as npm_cache:  # the user's own npm cache stays as it is, readable or not
        _call(
            [client, "pack", f"{package.name}@{package.version}", "--ignore-scripts", "--no-update-notifier",
             "--fetch-retries", "1", "--fetch-retry-mintimeout", "1000",
             "--cache", str(npm_cache), "--pack-destination", str(folder)],
            package,
        )  # fmt: skip


def _apt(package: Package, folder: Path) -> None:
    client = _program("apt-get", package)
    hint = "run `apt-get update` if the package lists are empty or old; the version is that of Debian 12, amd64"
    _call([client, "download", f"{package.name}={package.version}"], package, cwd=folder, hint=hint)


def _program(name: str, package: Package) -> str:
    found = shutil.which(name)
    if found is None:
        raise DataError(f"{package.name}: the program {name!r} that fetches it was not found on PATH; install {name}")
    return found


def _call(command: list[str], package: Package, cwd: Path | None = None, hint: str = "") -> None:
    """Run a client; its output goes to the log, and into the error when it fails."""
    label = f"{package.name} {package.version}"
    env = {**os.environ, "LC_ALL": "C", "PIP_NO_INPUT": "1"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT,
            text=True, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{label}: {command[0]} took more than {_TIMEOUT} s; check the network") from error
    output = done.stdout + done.stderr
    log.debug("%s\n%s", " ".join(command), output)
    if done.returncode == 0:
        return
    if any(sign in output.lower() for sign in _NETWORK_SIGNS):
        hint = "the package registry cannot be reached: check the network and the client's mirror or proxy"
    tail = " | ".join(line for line in output.strip().splitlines()[-3:])
    raise DataError(f"{label}: could not be fetched (exit {done.returncode}); {hint or 'see below'}: {tail}")


def _check(path: Path, package: Package) -> None:
    with path.open("rb") as handle:
        actual = hashlib.file_digest(handle, "sha256").hexdigest()
    if actual != package.sha256:
        raise DataError(
            f"{path}: SHA-256 is {actual}, expected {package.sha256} for {package.name} {package.version}; "
            "delete the file to fetch it again"
        )
