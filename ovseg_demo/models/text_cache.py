"""Text embeddings on disk: a word is read once for each model and set of templates, not once for each start.

One small file a word, named by a digest of what it depends on. Files are written under a name of their own and then
renamed, so several processes can share the folder; each begins with a digest of its content, so a damaged one counts as
absent. The folder holds nothing else and can be deleted at any time, also while it is in use.
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
"""Of all files together, for instance 5000 words in SED's 80 templates."""

_VERSION = 1  # of the code that makes embeddings: raise it when they change
_DIGEST = hashlib.sha256
_KEPT_OF_LIMIT = 0.9  # after clearing, so that not every word clears again


def cache_folder() -> Path:
    """Where embeddings are kept: in OVSEG_CACHE, else in the user's folder for caches."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named) / "texts"
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(caches) / "ovseg-demo" / "texts"


class TextEmbeddingCache:
    """The embeddings of one model and one set of templates, float32 (P, D) a word.

    Nothing here raises: what the disk cannot give is absent, what it cannot take is not kept, and the first such
    failure is told as a warning.

    Args:
        model: names the weights, so that no two models of different weights have the same name.
        templates: the P prompts.
        limit_bytes: of all files in the folder; those not used for longest go first.
    """

    def __init__(self, model: str, templates: Sequence[str], limit_bytes: int = LIMIT_BYTES) -> None:
        self._depends_on = [_VERSION, model, *templates]
        self._prompts = len(templates)
        self._limit = limit_bytes
        self._folder = cache_folder()
        self._told = False

    def get(self, words: Sequence[str]) -> dict[str, Tensor]:
        """The embeddings of those words that are known."""
        read = {word: self._read(word) for word in words}
        return {word: embedding for word, embedding in read.items() if embedding is not None}

    def put(self, embeddings: Mapping[str, Tensor]) -> None:
        """Keep the embeddings (P, D) of some words."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for word, embedding in embeddings.items():
                self._write(self._path(word), embedding)
            self._clear()
        except FileNotFoundError:
            pass  # the folder was deleted in this very moment
        except OSError as error:
            self._tell(error)

    def completed(self, words: Sequence[str], make: Callable[[list[str]], Tensor]) -> Tensor:
        """The embeddings (len(words), P, D) of at least one word; those that are not known are made, and kept.

        Args:
            make: from some distinct words to theirs (K, P, D).
        """
        known = self.get(words)
        missing = [word for word in dict.fromkeys(words) if word not in known]
        if missing:
            made = dict(zip(missing, make(missing).cpu(), strict=True))
            self.put(made)
            known |= made
        return torch.stack([known[word] for word in words])

    def _path(self, word: str) -> Path:
        key = json.dumps([*self._depends_on, word])
        return self._folder / _DIGEST(key.encode()).hexdigest()

    def _read(self, word: str) -> Tensor | None:
        path = self._path(word)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell(error)
            return None
        digest, values = content[: _DIGEST().digest_size], content[_DIGEST().digest_size :]
        if _DIGEST(values).digest() != digest:
            self._tell("a file is damaged")
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
        """Delete what was not used for longest, if all together is too large."""
        files = sorted(self._files())
        excess = sum(size for _, size, _ in files) - self._limit
        if excess <= 0:
            return
        excess += int((1 - _KEPT_OF_LIMIT) * self._limit)
        for _, size, path in files:
            if excess <= 0:
                return
            Path(path).unlink(missing_ok=True)
            excess -= size

    def _files(self) -> Iterator[tuple[int, int, str]]:
        """When they were last used, their bytes, their paths."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process clears too
                    known = entry.stat()
                    yield known.st_mtime_ns, known.st_size, entry.path

    def _tell(self, why: object) -> None:
        if not self._told:
            self._told = True
            warnings.warn(f"Text embeddings cannot be kept in {self._folder}: {why}.", stacklevel=3)
