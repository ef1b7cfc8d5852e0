"""Text embeddings on disk: a word is embedded once for each model and set of templates, not once for each start.

There is one small file a word, named by a digest of everything that its embedding depends on. Files are written under a
temporary name and then renamed, so several processes can share the folder. Every file begins with a digest of its
content, so a damaged file counts as absent. The folder holds nothing else and can be deleted at any time, also while it
is in use.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ovseg_demo.runtime.files import write_atomically

CACHE_VARIABLE = "OVSEG_CACHE"
"""The environment variable that names another folder."""

LIMIT_BYTES = 2**30
"""Default bound on all files together, for instance 5000 words in SED's 80 templates."""

_VERSION = 1  # of the code that makes embeddings: raise it when they change
_DIGEST = hashlib.sha256
_SHARE_AFTER_CLEARING = 0.9  # of the limit, so that not every new word clears again


def cache_folder() -> Path:
    """The folder of the files: inside OVSEG_CACHE if it is set, else inside the user's folder for caches."""
    folder = os.environ.get(CACHE_VARIABLE)
    if folder:
        return Path(folder) / "texts"
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(caches) / "ovseg-demo" / "texts"


class TextEmbeddingCache:
    """The embeddings of one model and one set of templates, float32 (P, D) a word.

    No method raises for a fault of the disk: embeddings that cannot be read count as absent, embeddings that cannot be
    written are not kept, and the first such fault gives a warning.

    Args:
        model: a name of the model that is unique to its weights.
        templates: the P prompt templates.
        limit_bytes: of all files in the folder together; beyond it the least recently used files are deleted.
    """

    def __init__(self, model: str, templates: Sequence[str], limit_bytes: int = LIMIT_BYTES) -> None:
        self._key_prefix = [_VERSION, model, *templates]
        self._prompts = len(templates)
        self._limit = limit_bytes
        self._folder = cache_folder()
        self._warned = False

    def get(self, words: Sequence[str]) -> dict[str, Tensor]:
        """The embeddings, float32 (P, D), of the words that have a file, by word."""
        embeddings = {word: self._read(word) for word in words}
        return {word: embedding for word, embedding in embeddings.items() if embedding is not None}

    def put(self, embeddings: Mapping[str, Tensor]) -> None:
        """Write the embeddings (P, D) of words to disk."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for word, embedding in embeddings.items():
                self._write(self._path(word), embedding)
            self._clear()
        except FileNotFoundError:
            pass  # the folder was deleted in this very moment
        except OSError as error:
            self._warn_once(error)

    def get_or_compute(self, words: Sequence[str], compute: Callable[[list[str]], Tensor]) -> Tensor:
        """The embeddings of words, float32 (len(words), P, D), on the CPU; absent ones are computed and written.

        Args:
            words: at least one.
            compute: from K distinct words to their embeddings (K, P, D).
        """
        embeddings = self.get(words)
        missing = [word for word in dict.fromkeys(words) if word not in embeddings]
        if missing:
            computed = dict(zip(missing, compute(missing).cpu(), strict=True))
            self.put(computed)
            embeddings |= computed
        return torch.stack([embeddings[word] for word in words])

    def _path(self, word: str) -> Path:
        key = json.dumps([*self._key_prefix, word])
        return self._folder / _DIGEST(key.encode()).hexdigest()

    def _read(self, word: str) -> Tensor | None:
        path = self._path(word)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn_once(error)
            return None
        digest, values = content[: _DIGEST().digest_size], content[_DIGEST().digest_size :]
        if _DIGEST(values).digest() != digest:
            self._warn_once("a file is damaged")
            return None
        with suppress(OSError):  # gone by now, or someone else's
            os.utime(path)
        return torch.from_numpy(np.frombuffer(values, np.float32).reshape(self._prompts, -1).copy())

    def _write(self, path: Path, embedding: Tensor) -> None:
        values = embedding.float().cpu().numpy().tobytes()
        content = _DIGEST(values).digest() + values
        # Not durable: there may be thousands of files, and a file that a power cut tore is recognised by its digest.
        write_atomically(path, lambda file: file.write(content), shared=True, durable=False)

    def _clear(self) -> None:
        """Delete the least recently used files, if all files together exceed the limit."""
        files = sorted(self._files())
        excess = sum(size for _, size, _ in files) - self._limit
        if excess <= 0:
            return
        excess += int((1 - _SHARE_AFTER_CLEARING) * self._limit)
        for _, size, path in files:
            if excess <= 0:
                return
            Path(path).unlink(missing_ok=True)
            excess -= size

    def _files(self) -> Iterator[tuple[int, int, str]]:
        """For every file the time of its last use in nanoseconds, its size in bytes, its path."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process clears too
                    status = entry.stat()
                    yield status.st_mtime_ns, status.st_size, entry.path

    def _warn_once(self, why: object) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"Text embeddings cannot be kept in {self._folder}: {why}.", stacklevel=3)
