"""What `pip install` brings: the wheel's content, and ranges that hold the versions which are tested."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ovseg_demo import __version__
from ovseg_demo.weights import catalogue

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(folder))
    return Path(built)


def test_the_wheel_holds_the_package_and_the_bundled_weights_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        metadata = f"ovseg_demo-{__version__}.dist-info"
        assert "ovseg-demo = ovseg_demo.cli:main" in archive.read(f"{metadata}/entry_points.txt").decode()
    package = {str(p.relative_to(ROOT)) for p in (ROOT / "ovseg_demo").rglob("*") if p.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    bundled = [entry for entry in catalogue.entries().values() if entry.bundled]
    files = [*(entry.file for entry in bundled), "catalogue.json", "mini-text-tokenizer.json", "MODEL_CARD.md"]
    weights = {f"ovseg_demo/_checkpoints/{file}" for file in files}
    assert {name for name in sizes if not name.startswith(metadata)} == package | weights
    for entry in bundled:
        assert sizes[f"ovseg_demo/_checkpoints/{entry.file}"] == entry.size


def test_an_installed_wheel_finds_its_weights_and_downloads_into_the_users_folder(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site-packages")
    unset = {name: value for name, value in os.environ.items() if name != "OVSEG_CHECKPOINTS"}
    code = """
import sys
from ovseg_demo import cli
from ovseg_demo.weights import catalogue
print(catalogue.FOLDER, catalogue.COMMAND, sep="\\n")
sys.exit(cli.main(["checkpoints", "--verify"]))
"""
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**unset, "PYTHONPATH": str(tmp_path / "site-packages"), "XDG_DATA_HOME": str(tmp_path / "data")},
        check=True,
        capture_output=True,
        text=True,
    )
    folder, command, *listing = told.stdout.splitlines()
    assert folder == str(tmp_path / "data" / "ovseg-demo" / "checkpoints")
    assert command == "ovseg-demo"
    verified = {line.split()[0] for line in listing if "bundled, verified" in line}
    assert verified == {entry.id for entry in catalogue.entries().values() if entry.bundled}


def test_weights_that_a_developer_downloaded_or_trained_stay_out_of_the_wheel():
    builder = WheelBuilder(str(ROOT))
    own = [entry.file for entry in catalogue.entries().values() if not entry.bundled]
    assert own
    for file in own:
        assert not builder.config.include_path(f"checkpoints/{file}")


def pins(name: str) -> Iterator[Requirement]:
    """The pinned requirements of a file, without those of the files that it includes."""
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if re.match(r"\w", line):
            yield Requirement(line)


@pytest.mark.parametrize(
    ("file", "declared"),
    [
        ("requirements.txt", PROJECT["dependencies"]),
        *((f"requirements-{extra}.txt", EXTRAS[extra]) for extra in sorted(EXTRAS)),
    ],
)
def test_the_ranges_hold_the_tested_versions(file, declared):
    ranges = {canonicalize_name(r.name): r.specifier for r in map(Requirement, declared)}
    ranges.pop("ovseg-demo", None)  # the extras that an extra includes
    tested = {canonicalize_name(r.name): next(iter(r.specifier)).version for r in pins(file)}
    assert ranges.keys() == tested.keys()
    for name, version in tested.items():
        assert version in ranges[name], name
