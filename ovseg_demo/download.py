"""Fetch a catalogued checkpoint from the Hugging Face Hub: resumable, verified, all or nothing."""

import errno
import shutil
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

from ovseg_demo.checkpoints import FOLDER, Checkpoint, sha256_of, verify
from ovseg_demo.errors import CheckpointError

_SHA256_DIGITS = 64


def download(checkpoint: Checkpoint) -> Path:
    """The local path of a checkpoint, downloaded when it is not here or damaged.

    An interrupted download is resumed by the next call. The file appears under its name only when it is complete
    and its sha256 is the catalogued one, or the one the hub states where the catalogue has none.

    Raises CheckpointError without a network, without room, or when the hash is wrong.
    """
    repo_type, repo, name = _hub_source(checkpoint)
    if checkpoint.present:
        try:
            return verify(checkpoint)
        except CheckpointError:
            checkpoint.path.unlink()  # damaged: fetched again
    FOLDER.mkdir(parents=True, exist_ok=True)
    unfinished = FOLDER / ".download"
    try:
        fetched = Path(hf_hub_download(repo, name, repo_type=repo_type, local_dir=unfinished / checkpoint.id))
        stated = checkpoint.sha256 or get_hf_file_metadata(hf_hub_url(repo, name, repo_type=repo_type)).etag
    except Exception as error:  # the hub client lets the errors of whichever HTTP library it uses through
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise CheckpointError(f"There is no room on the disk for {checkpoint.file}.") from error
        raise CheckpointError(
            f"{checkpoint.file} cannot be downloaded ({type(error).__name__}). Without a network, put the file "
            f"into {FOLDER} by hand; its source is {repo} ({name})."
        ) from error
    if stated and len(stated) == _SHA256_DIGITS and sha256_of(fetched) != stated:
        fetched.unlink()
        raise CheckpointError(f"{checkpoint.file} arrived damaged (wrong sha256); try again.")
    fetched.replace(checkpoint.path)
    shutil.rmtree(unfinished / checkpoint.id, ignore_errors=True)
    return checkpoint.path


def _hub_source(checkpoint: Checkpoint) -> tuple[str, str, str]:
    """Repository type, repository and file of the first hub source."""
    for source in checkpoint.sources:
        if source.startswith("hub:"):
            kind, owner, repo, name = source.removeprefix("hub:").split("/", 3)
            return kind.removesuffix("s"), f"{owner}/{repo}", name
    raise CheckpointError(f"{checkpoint.file} is not published on a hub; it comes from {checkpoint.sources[0]}.")
