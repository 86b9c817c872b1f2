"""CIFAR's archives from the official site or a mirror, whole and verified, or not at all.

The part that has come is kept in a ``.part`` file and gone on with by the next try, from whichever mirror
answers. Only what has the official SHA-256 gets the archive's name.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tenfold import paths
from tenfold.data import cifar_files
from tenfold.data.cifar import Found, find
from tenfold.data.lock import locked
from tenfold.data.progress import Progress, Report
from tenfold.errors import DataError, DownloadError

if TYPE_CHECKING:
    from tenfold.data.cifar import Variant

TIMEOUT = 20.0
CHUNK = 256 * 1024

# Of one address: a connection that breaks is taken up again so often before the next one is tried.
TRIES = 3


@dataclass(frozen=True)
class Remote:
    """An archive of a known size in bytes and SHA-256, and the addresses that have it, the official one
    first."""

    file: str
    size: int
    sha256: str
    urls: tuple[str, ...]


_OFFICIAL = "https://www.cs.toronto.edu/~kriz"
_S4TF = "https://storage.googleapis.com/s4tf-hosted-binaries/datasets"
_BAIDU = "https://dataset.bj.bcebos.com/cifar"

# Sizes and hashes as in TensorFlow Datasets and Keras. The binary archive first: it takes no unpickling.
REMOTES: dict[str, tuple[Remote, ...]] = {
    "cifar10": (
        Remote(
            "cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            (f"{_OFFICIAL}/cifar-10-binary.tar.gz", f"{_S4TF}/CIFAR10/cifar-10-binary.tar.gz"),
        ),
        Remote(
            "cifar-10-python.tar.gz",
            170_498_071,
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            (f"{_BAIDU}/cifar-10-python.tar.gz", f"{_OFFICIAL}/cifar-10-python.tar.gz"),
        ),
    ),
    "cifar100": (
        Remote(
            "cifar-100-binary.tar.gz",
            168_513_733,
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            (f"{_OFFICIAL}/cifar-100-binary.tar.gz", f"{_S4TF}/CIFAR100/cifar-100-binary.tar.gz"),
        ),
        Remote(
            "cifar-100-python.tar.gz",
            169_001_437,
            "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            (f"{_BAIDU}/cifar-100-python.tar.gz", f"{_OFFICIAL}/cifar-100-python.tar.gz"),
        ),
    ),
}


def archive(variant: Variant, folder: Path, report: Report) -> Found:
    """The variant's archive, downloaded and unpacked in ``folder``. Raises DownloadError with how to do it by hand.

    Unpacked, since unpacking takes a second or more that every later run would wait for. Of two processes at once the
    second waits and takes what the first has brought.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f".{variant.name}.lock", lambda: report(Progress("wait", 0, 0, "bytes"))):
            return find(variant, [folder]) or _unpacked(variant, folder, report)
    except OSError as error:
        raise DataError(
            f"{variant.title} can't be kept in {folder}: {error.strerror or error}.",
            "Make room there, or set TENFOLD_CACHE to a folder on another disk.",
        ) from None


def _unpacked(variant: Variant, folder: Path, report: Report) -> Found:
    file = fetch(variant.title, REMOTES[variant.name], folder, report)
    layout = next(layout for layout in variant.layouts if layout.archive == file.name)
    files = cifar_files.Source(file, layout.folder, packed=True).read(
        [layout.meta, *layout.files], layout.size_of, report
    )
    with paths.folder_whole(folder / layout.folder) as new:
        for name, content in files.items():
            content.tofile(new / name)
    file.unlink()
    return Found(folder / layout.folder, layout)


def fetch(title: str, remotes: Sequence[Remote], folder: Path, report: Report) -> Path:
    """The first of ``remotes`` that can be had, as a file of its name in ``folder``.

    Raises DownloadError, and OSError where the folder can't be written.
    """
    failures: list[str] = []
    for remote in remotes:
        if any(_try(url, remote, folder, report, failures) for url in remote.urls):
            return folder / remote.file
    raise DownloadError(
        f"{title} could not be downloaded: {'; '.join(dict.fromkeys(failures))}.",
        f"Get {remotes[0].urls[0]} by another way and put it into {folder}, or into a folder that TENFOLD_DATA names.",
    )


class _Broken(Exception):
    """The transfer ended early or was refused; ``again`` where the same address may do better."""

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


def _try(url: str, remote: Remote, folder: Path, report: Report, failures: list[str]) -> bool:
    """Whether ``url`` gave the whole archive; else a line is added to ``failures``."""
    part = folder / f"{remote.file}.part"
    host = url.split("/")[2]
    reason = ""
    for _ in range(TRIES):
        begun = part.exists()
        try:
            _transfer(url, remote, part, report)
        except _Broken as broken:
            reason = str(broken)
            if broken.again:
                continue
            break
        if _sha256(part) == remote.sha256:
            _keep(part, folder / remote.file)
            return True
        part.unlink()
        reason = f"{remote.file} is not the official archive (its SHA-256 differs)"
        if not begun:  # what came before may be at fault, from this address or another
            break
    failures.append(f"{host}: {reason}")
    return False


def _transfer(url: str, remote: Remote, part: Path, report: Report) -> None:
    """Bring ``part`` to the archive's size, going on where it ends. Raises _Broken; OSError where it can't be
    written."""
    have = part.stat().st_size if part.exists() else 0
    if have > remote.size:
        part.unlink()
        have = 0
    if have == remote.size:
        return
    headers = {"User-Agent": "tenfold", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            part.unlink()
            raise _Broken("the part that had come did not fit", again=True) from None
        raise _Broken(f"HTTP {error.code} {error.reason}", again=error.code >= 500) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(_why(error), again=False) from None
    with response:
        resumed = response.status == 206 and _begins_at(response.headers.get("Content-Range", ""), have)
        with part.open("ab" if resumed else "wb") as file:
            done = have if resumed else 0
            while data := _read(response, min(CHUNK, remote.size - done + 1)):
                done += len(data)
                if done > remote.size:
                    break
                file.write(data)
                report(Progress("download", done, remote.size, "bytes"))
    if done > remote.size:
        part.unlink()
        raise _Broken(f"{remote.file} is longer than the official archive", again=False)
    if done < remote.size:
        raise _Broken(f"the connection ended after {done:,} of {remote.size:,} bytes", again=True)


def _read(response: http.client.HTTPResponse, size: int) -> bytes:
    """Up to ``size`` bytes; none where the connection breaks, which the caller sees by what is missing."""
    try:
        return response.read(size)
    except (OSError, http.client.HTTPException):
        return b""


def _begins_at(content_range: str, have: int) -> bool:
    """Whether ``bytes 100-199/200`` begins where our part ends."""
    return content_range.removeprefix("bytes ").split("-")[0].strip() == str(have)


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"no answer within {TIMEOUT:.0f} s"
    if isinstance(reason, ssl.SSLError):
        return f"no safe connection ({reason.reason or 'TLS'})"
    return " ".join(str(getattr(reason, "strerror", None) or reason).split())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _keep(part: Path, target: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    paths.sync_folder(target.parent)
