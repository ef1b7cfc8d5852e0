"""Photos with captions for tiny runs of SegCLIP's training."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tests.helpers.mini_data import shrunk, write_described_set

CAPTIONS = {"a": ["A pizza on a table .", "food"], "b": ["Two slices"], "c": ["Somebody bakes a pizza ."]}


def write_shard(path: Path, samples: Mapping[str, Mapping[str, bytes]]) -> None:
    """A tar file with the files of each sample, by their suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, files in samples.items():
            for suffix, content in files.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_captioned_photos(folder: Path) -> None:
    """A folder of four captions, and a shard of three."""
    write_described_set(folder / "told_train", "captions", CAPTIONS)
    samples = {}
    for number, name in enumerate(("cat_mirror", "tram_bus_street", "gull_over_beach")):
        photo = io.BytesIO()
        shrunk(name).save(photo, "JPEG")
        samples[f"{number:04d}"] = {"jpg": photo.getvalue(), "txt": name.replace("_", " ").encode()}
    write_shard(folder / "web_train/00000.tar", samples)
