"""Features of frozen models in files: computed once, kept in a folder, read by every run."""

from collections.abc import Callable, Collection
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from train.common.run_folder import RunFolder, TrainingError


class FeatureCache:
    """Files of named tensors in a folder, each written whole or not at all.

    After an interruption only missing files are computed. Of several processes only the main one
    writes; a process that does not see the folder, on another host for one, computes the features itself.

    Args:
        folder: holds the files; its configuration is everything that the features depend on.
        tensors: names of the tensors that every file has.
    """

    def __init__(self, folder: RunFolder, tensors: Collection[str]) -> None:
        self._folder, self._tensors = folder, frozenset(tensors)

    def __contains__(self, name: str) -> bool:
        return self._path(name).exists()

    def get(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of a file by name; they are computed and written where the file is missing.

        Args:
            name: name of the file without its suffix.
            compute: computes the tensors by name, contiguous.

        Raises:
            TrainingError: when the file is damaged or cannot be written.
        """
        if name in self:
            return self.load(name)
        computed = compute()
        self.store(name, computed)
        return computed

    def load(self, name: str) -> dict[str, Tensor]:
        """The tensors by name of the file `name`. Raises TrainingError when the file is missing or damaged."""
        path = self._path(name)
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            raise _damaged(path) from error
        if tensors.keys() != self._tensors:
            raise _damaged(path)
        return tensors

    def store(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Write a file.

        Args:
            name: name of the file without its suffix.
            tensors: the tensors by name, contiguous.

        Raises:
            TrainingError: when the file cannot be written.
        """
        self._folder.replace(self._path(name).name, lambda file: file.write(save(tensors)))

    def _path(self, name: str) -> Path:
        return self._folder.path / f"{name}.safetensors"


def _damaged(path: Path) -> TrainingError:
    return TrainingError(f"{path} is damaged; delete it, and it is made again.")
