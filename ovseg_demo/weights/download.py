"""Download a catalogued checkpoint, or copy it from a file: verified, all or nothing.

Unfinished files lie in the folder ".download" beside the weight files, from which nothing is loaded; a file gets its
name when it is complete and verified, in one step. gdown downloads from Google Drive and from the Hugging Face Hub:
huggingface_hub's own download begins anew after an interruption (its issue 4196), gdown's goes on.
"""

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import gdown
import httpx
from filelock import FileLock, Timeout
from huggingface_hub import get_hf_file_metadata, hf_hub_url

from ovseg_demo.errors import CheckpointError
from ovseg_demo.runtime.files import move_into_place
from ovseg_demo.weights.catalogue import COMMAND, Checkpoint, check_content, check_published, verify

Report = Callable[[int, int | None], None]
"""Called with the bytes that have arrived and the bytes of the whole file, None while these are unknown."""

_RETRIES = 3
_TIMEOUT_SECONDS = 30
"""Seconds without a byte after which the connection counts as lost."""

_SHA256_DIGITS = 64
_CHUNK = 4 << 20
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK_ERRORS = (*_DISK_FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


def download(checkpoint: Checkpoint, report: Report = lambda done, total: None) -> Path:
    """The local path of a checkpoint, which is downloaded when it is missing or damaged.

    Its sources are tried in order. The next call resumes an interrupted download. The file appears under its name only
    when it is complete and has the size and the hashes that the catalogue and the Hugging Face Hub state.

    Args:
        checkpoint: an entry of the catalogue.
        report: receives the progress, and may raise to interrupt the download.

    Raises:
        CheckpointError: no source has the file, the disk has no room or cannot be written, or another process is
            downloading the file.
    """
    if checkpoint.sources[0].startswith("build:"):
        raise CheckpointError(f"{checkpoint.file} is not downloaded but made. Run: {checkpoint.how_to_get}")
    if _is_intact(checkpoint):
        return checkpoint.path
    failures = []
    with _unfinished_folder(checkpoint) as folder:
        for source in checkpoint.sources:
            try:
                return _install(_fetch(source, checkpoint, folder, report), checkpoint)
            except Exception as error:  # the libraries let the errors of whichever HTTP client they use through
                if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                    raise
                failures.append(f"{_source_name(source)}: {_reason(error)}")
        begun = any(part.stat().st_size for part in folder.rglob("*.part"))
    kept = " What has arrived is kept, the same command goes on from there." if begun else ""
    raise CheckpointError(
        f"{checkpoint.file} cannot be downloaded: {'; '.join(failures)}.{kept} With a copy of the file from elsewhere, "
        f"run: {COMMAND} checkpoints --download {checkpoint.id} --from FILE"
    )


def import_file(checkpoint: Checkpoint, file: Path, report: Report = lambda done, total: None) -> Path:
    """The local path of a checkpoint, copied from a file that has the size, hashes and tensors of the checkpoint.

    Args:
        checkpoint: an entry of the catalogue. What it does not state is not compared.
        file: the file to copy, of any name.
        report: receives the progress, and may raise to interrupt the copying.

    Raises:
        CheckpointError: the file is something else, or the disk has no room or cannot be written. Everything is left as
            it was.
    """
    check_content(file, checkpoint)
    check_published(file, checkpoint)
    if checkpoint.present and file.samefile(checkpoint.path):
        return checkpoint.path
    with _unfinished_folder(checkpoint) as folder:
        _check_room(folder, file.stat().st_size)
        copy = folder / "copy.part"
        try:
            _copy(file, copy, report)
            return _install(copy, checkpoint)
        finally:
            copy.unlink(missing_ok=True)


def _is_intact(checkpoint: Checkpoint) -> bool:
    try:
        check_content(verify(checkpoint), checkpoint)
    except CheckpointError:
        return False
    return True


@contextmanager
def _unfinished_folder(checkpoint: Checkpoint) -> Iterator[Path]:
    """The folder of a checkpoint's unfinished files, locked for this process; disk errors become CheckpointError."""
    root = checkpoint.path.parent / ".download"
    folder = root / checkpoint.id
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{checkpoint.id}.lock", blocking=False):
            folder.mkdir(exist_ok=True)
            try:
                yield folder
            finally:
                for place in (*folder.glob("*/"), folder):
                    with suppress(OSError):  # gone, or something unfinished is in it
                        place.rmdir()
    except Timeout:
        raise CheckpointError(f"Another process is fetching {checkpoint.file}; wait until it is done.") from None
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise CheckpointError(f"There is no room on the disk for {checkpoint.file}: {error.strerror}.") from error
        raise CheckpointError(f"{checkpoint.file} cannot be written into {root.parent}: {error.strerror}.") from error


def _fetch(source: str, checkpoint: Checkpoint, folder: Path, report: Report) -> Path:
    """The verified file from one source, still in the folder of unfinished files."""
    url, stated = _resolve(source, checkpoint)
    parts = folder / source.replace(":", "-").replace("/", "-")
    parts.mkdir(exist_ok=True)
    arrived = parts / checkpoint.file
    here = sum(part.stat().st_size for part in parts.iterdir())
    if stated.size is not None:
        _check_room(folder, stated.size - here)
    _transfer(url, arrived, _checking_room(folder, report))
    try:
        check_published(arrived, stated)
        check_content(arrived, checkpoint)
    except CheckpointError:
        arrived.unlink()
        raise
    return arrived


def _resolve(source: str, checkpoint: Checkpoint) -> tuple[str, Checkpoint]:
    """The URL of a source, and the checkpoint with the source's size and hash where the catalogue states none."""
    kind, place = source.split(":", 1)
    if kind == "drive":
        return f"https://drive.google.com/uc?id={place}", checkpoint
    if kind == "github":
        owner, repo, tag, name = place.split("/")
        return f"https://github.com/{owner}/{repo}/releases/download/{tag}/{name}", checkpoint
    repo_type, owner, repo, name = place.split("/", 3)
    url = hf_hub_url(f"{owner}/{repo}", name, repo_type=repo_type.removesuffix("s"))
    metadata = get_hf_file_metadata(url)
    hashed = metadata.etag is not None and len(metadata.etag) == _SHA256_DIGITS
    sha256 = checkpoint.sha256 or (metadata.etag if hashed else None)
    return url, replace(checkpoint, sha256=sha256, size=checkpoint.size or metadata.size)


def _transfer(url: str, arrived: Path, report: Report) -> None:
    """Download a file, going on with the part that an earlier call left."""
    moved = False

    def watch(done: int, total: int | None) -> None:
        nonlocal moved
        moved = True
        report(done, total)

    run = partial(
        gdown.download,
        url,
        str(arrived),
        quiet=True,
        use_cookies=False,
        resume=True,
        progress=watch,
        timeout=_TIMEOUT_SECONDS,
        retries=_RETRIES,
    )
    try:
        run()
    except gdown.DownloadError as error:
        refused = not moved and error.__cause__ is None and not isinstance(error, gdown.FileURLRetrievalError)
        stale = list(arrived.parent.glob("*.part")) if refused else []
        if not stale:
            raise
        for part in stale:  # the server does not go on from there: it cannot, or nothing is missing
            part.unlink()
        run()


def _checking_room(folder: Path, report: Report) -> Report:
    """`report` which also checks, as soon as the size of the whole file is known, that the disk has room for it."""
    checked = False

    def watch(done: int, total: int | None) -> None:
        nonlocal checked
        if total is not None and not checked:
            checked = True
            _check_room(folder, total - done)
        report(done, total)

    return watch


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.2f} GB more are needed, {free / 1e9:.2f} GB are free")


def _copy(file: Path, copy: Path, report: Report) -> None:
    total = file.stat().st_size
    with file.open("rb") as source, copy.open("wb") as target:
        while chunk := source.read(_CHUNK):
            target.write(chunk)
            report(target.tell(), total)


def _install(part: Path, checkpoint: Checkpoint) -> Path:
    """Give a finished file its name, and delete the folder of unfinished files."""
    part.chmod(0o644)
    move_into_place(part, checkpoint.path)
    shutil.rmtree(checkpoint.path.parent / ".download" / checkpoint.id)
    return checkpoint.path


def _source_name(source: str) -> str:
    kind, place = source.split(":", 1)
    if kind == "drive":
        return f"Google Drive (file {place})"
    if kind == "github":
        owner, repo, tag, _ = place.split("/")
        return f"release {tag} of {owner}/{repo} on GitHub"
    _, owner, repo, _ = place.split("/", 3)
    return f"{owner}/{repo} on the Hugging Face Hub"


def _reason(error: Exception) -> str:
    if isinstance(error, CheckpointError):
        return str(error).rstrip(".")
    if isinstance(error, gdown.FileURLRetrievalError):
        return "the file is not handed out now, mostly because too many people have fetched it today"
    cause = error.__cause__ if isinstance(error, gdown.DownloadError) and error.__cause__ else error
    response = getattr(cause, "response", None)
    if response is not None:
        return f"it answers {response.status_code}"
    lost = isinstance(cause, OSError | httpx.HTTPError | gdown.DownloadError)
    return f"no connection ({type(cause).__name__})" if lost else f"{type(cause).__name__}: {cause}"
