"""Make the anchors of the mini model: text embeddings of the classes that its image tower recognises.

    python -m train.mini.anchors

reads concepts.json, embeds the 1000 ImageNet names and the concept words with the bundled text tower, writes
checkpoints/mini-anchors.safetensors and prints its catalogue line. Nothing here is learnt from images.

concepts.json maps words ("sky, cloud") to the ImageNet classes that are evidence for these words; "a .. b" is a run
of classes in ImageNet's order. The words name things that ImageNet has only as kinds ("dog"), only by what comes with
them ("person", by clothes), or under other names ("car").
"""

import json
from pathlib import Path

import torch
from open_clip import IMAGENET_CLASSNAMES
from safetensors.torch import save_file
from torch import Tensor

from ovseg_demo.models.mini.towers import TextTower
from ovseg_demo.weights.catalogue import BUNDLED, sha256_of

CONCEPTS = Path(__file__).with_name("concepts.json")


def imagenet_classes(item: str) -> list[int]:
    """Indices of the ImageNet classes of a name, which may be two, or of a run "first .. last".

    Args:
        item: a name or a run as in concepts.json.

    Raises:
        ValueError: when an end of a run is no name of ImageNet.
    """
    first, _, last = item.partition(" .. ")
    if last:
        return list(range(IMAGENET_CLASSNAMES.index(first), IMAGENET_CLASSNAMES.index(last) + 1))
    return [i for i, name in enumerate(IMAGENET_CLASSNAMES) if name == item]


def concept_evidence() -> dict[str, list[int]]:
    """For each concept word, the indices of the ImageNet classes that are evidence for it."""
    table = json.loads(CONCEPTS.read_text(encoding="utf-8"))
    return {
        word: [i for item in items for i in imagenet_classes(item)]
        for key, items in table.items()
        for word in key.split(", ")
    }


def make_anchors() -> dict[str, Tensor]:
    """The tensors of the anchors.

    Returns:
        "embeddings", unit text embeddings of the ImageNet names and the C concepts, float16 (1000 + C, 384), and
        "evidence", which ImageNet classes are evidence for each concept, uint8 (C, 1000), 0 or 1.

    Raises:
        SystemExit: when a concept has no evidence.
    """
    table = concept_evidence()
    evidence = torch.zeros(len(table), len(IMAGENET_CLASSNAMES), dtype=torch.uint8)
    for row, indices in zip(evidence, table.values(), strict=True):
        if not indices:
            raise SystemExit("a concept has no evidence: a class name in concepts.json is not ImageNet's")
        row[indices] = 1
    embeddings = TextTower()([*IMAGENET_CLASSNAMES, *table])
    return {"embeddings": embeddings.half(), "evidence": evidence}


def main() -> None:
    path = BUNDLED / "mini-anchors.safetensors"
    save_file(make_anchors(), path)
    print(json.dumps({"id": "mini-anchors", "sha256": sha256_of(path), "size": path.stat().st_size}))


if __name__ == "__main__":
    main()
