"""WebDataset shards, read here in random access, because the batch of a training step is a function of the step."""

import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from train.common.run_folder import TrainingError


class TarShards:
    """The samples of tar files. The files of a sample have equal names up to the first dot after any folder, as KEY.jpg
    and KEY.txt.

    Only the positions of the files in the shards are kept in memory.

    Args:
        paths: the tar files.
        suffixes: of the files that every sample has; others may lie beside them.
        advice: what ends the message about a damaged shard.

    Attributes:
        keys: the key of each of the N samples.
        places: int64 (N, len(suffixes), 2), the offset in its shard and the size of each file of a sample, in bytes.

    Raises:
        TrainingError: when a shard is damaged, or a sample lacks a file.
    """

    def __init__(self, paths: Sequence[Path], suffixes: Sequence[str], advice: str = "") -> None:
        self._paths, self._suffixes, self._advice = paths, tuple(suffixes), advice
        indices = [self._index(path) for path in paths]
        self.keys = [key for keys, _ in indices for key in keys]
        empty = np.empty((0, len(suffixes), 2), np.int64)
        self.places = np.concatenate([empty, *(places for _, places in indices)])
        self._shards = np.repeat(np.arange(len(indices)), [len(keys) for keys, _ in indices])

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int, suffix: str) -> bytes:
        """The content of one file of a sample. Raises TrainingError when the shard cannot be read."""
        offset, size = self.places[index, self._suffixes.index(suffix)].tolist()
        try:
            with self.path(index).open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise self.damage(index) from error

    def path(self, index: int) -> Path:
        """The shard that holds a sample."""
        return self._paths[self._shards[index]]

    def damage(self, index: int) -> TrainingError:
        """The error that says that the shard of a sample is damaged."""
        return self._damaged(self.path(index))

    def _index(self, shard: Path) -> tuple[list[str], np.ndarray]:
        """The keys of a shard's n samples, and the offset and size of their files, int64 (n, files, 2)."""
        files: dict[str, dict[str, tuple[int, int]]] = {}
        try:
            with tarfile.open(shard) as tar:
                for member in filter(tarfile.TarInfo.isfile, tar):
                    folder, slash, name = member.name.rpartition("/")
                    stem, _, suffix = name.partition(".")
                    files.setdefault(f"{folder}{slash}{stem}", {})[suffix] = (member.offset_data, member.size)
            places = [[parts[suffix] for suffix in self._suffixes] for parts in files.values()]
        except (OSError, KeyError, tarfile.TarError) as error:
            raise self._damaged(shard) from error
        return list(files), np.array(places, np.int64).reshape(-1, len(self._suffixes), 2)

    def _damaged(self, shard: Path) -> TrainingError:
        return TrainingError(f"{shard} is damaged{self._advice}.")
