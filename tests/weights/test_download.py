"""Downloads from a server on this machine, which stands in for the Hugging Face Hub and for Google Drive."""

import errno
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import pytest
import requests
import torch
from filelock import FileLock

from ovseg_demo.errors import CheckpointError
from ovseg_demo.weights import catalogue, download, loading
from ovseg_demo.weights.catalogue import Checkpoint

HUB = "hub:spaces/owner/repo/folder/tiny.pth"
DRIVE = "drive:1cn-ohxgXDrDfkzC1QdO"
GITHUB = "github:owner/repo/tag/tiny.pth"
BLOCK = 512 * 1024
"""What gdown writes at a time; of an interrupted transfer, whole blocks are kept."""

QUOTA = """<html><title>Google Drive - Quota exceeded</title>
<p class="uc-error-caption">Sorry</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p></html>"""
WARNING = """<html><form id="download-form" action="https://drive.usercontent.google.com/download" method="get">
<input type="hidden" name="id" value="1cn"><input type="hidden" name="confirm" value="t"></form></html>"""
LINUX_ONLY = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")


def weights(seed: int = 0) -> bytes:
    file = io.BytesIO()
    torch.save({"model": {"weight": torch.rand(700, 700, generator=torch.Generator().manual_seed(seed))}}, file)
    return file.getvalue()


class Site:
    """What the server does: knobs that tests turn, and what it was asked for.

    Attributes:
        content: the file, by the first word of the path: "spaces", "drive" or "github".
        status: answered in place of the file where it is not 200.
        pages: HTML that Drive answers before the file, one a request.
        cut: bytes after which a transfer breaks off; each transfer takes one.
        continues: whether it honours ranges.
        sha256: what the Hub states, where it is not that of its file.
        asked: the ranges asked for, by the first word of the path.
    """

    def __init__(self) -> None:
        self.content = {place: weights() for place in ("spaces", "drive", "github")}
        self.status = dict.fromkeys(self.content, 200)
        self.pages: list[str] = []
        self.cut: list[int] = []
        self.continues = True
        self.sha256: str | None = None
        self.asked: dict[str, list[str | None]] = {place: [] for place in self.content}


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        site, where = self.site, self.path.split("/")[1].split("?")[0]
        if site.status[where] != 200:
            self.send_error(site.status[where])
            return
        if where == "drive" and site.pages:
            self._send(site.pages.pop(0).encode(), {"Content-Type": "text/html"}, body)
            return
        content = site.content[where]
        sha256 = site.sha256 or hashlib.sha256(content).hexdigest()
        headers = {"Content-Type": "application/octet-stream", "ETag": f'"{sha256}"', "X-Repo-Commit": "0" * 40}
        headers["Content-Disposition"] = 'attachment; filename="served.pth"'
        asked = self.headers.get("Range")
        if body:
            site.asked[where].append(asked)
        if asked and site.continues:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(content[start:], headers, body, status=206)
        else:
            self._send(content, headers, body)

    def _send(self, content: bytes, headers: dict[str, str], body: bool, status: int = 200) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            whole = "text/html" in headers["Content-Type"]
            self.wfile.write(content if whole or not self.site.cut else content[: self.site.cut.pop(0)])
        self.close_connection = True


@pytest.fixture
def site(monkeypatch) -> Iterator[Site]:
    handler = type("TestHandler", (Handler,), {"site": Site()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *_: None  # a client that hangs up is what some tests are about
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        ask = requests.Session.request

        def here(session, method, url, **options):
            url = re.sub(r"https://drive(\.usercontent)?\.google\.com/\w+", f"{address}/drive", url)
            url = url.replace("https://github.com/owner/repo/releases/download/tag", f"{address}/github")
            return ask(session, method, url, **options)

        monkeypatch.setattr(requests.Session, "request", here)
        monkeypatch.setattr(
            download,
            "hf_hub_url",
            lambda repo, name, *, repo_type: f"{address}/{repo_type}s/{repo}/resolve/main/{name}",
        )
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(download, "_RETRIES", 0)
        yield handler.site
        server.shutdown()


@pytest.fixture
def entry(tmp_path, monkeypatch) -> Checkpoint:
    """A checkpoint that is not here, in a folder of its own."""
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path / "weights")
    made = Checkpoint("tiny", "Tiny", "tiny.pth", "MIT", False, (HUB, DRIVE), shapes={"weight": [700, 700]})
    monkeypatch.setattr(catalogue, "entries", lambda: {"tiny": made})
    return made


def files(entry: Checkpoint) -> list[str]:
    """Everything beside the lock in the checkpoints folder."""
    folder = entry.path.parent
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


def loads(entry: Checkpoint) -> bool:
    try:
        return "model" in loading.load_state_dict(entry.id)
    except CheckpointError:
        return False


@pytest.mark.parametrize("source", [HUB, DRIVE, GITHUB])
def test_a_download_appears_under_its_name(entry, site, source):
    heard = []
    path = download.download(replace(entry, sources=(source,)), lambda *here: heard.append(here))
    assert path.read_bytes() == site.content["drive"]
    assert files(entry) == ["tiny.pth"]
    assert path.stat().st_mode & 0o777 == 0o644
    size = path.stat().st_size
    assert heard[-1] == (size, size)
    assert len(heard) > 2
    assert loads(entry)


def test_what_is_here_and_good_is_not_fetched(entry, site):
    download.download(entry)
    assert download.download(entry) == entry.path
    assert site.asked == {"spaces": [None], "drive": [], "github": []}


@pytest.mark.parametrize("damage", [b"damaged", b""])
def test_a_damaged_file_is_fetched_again(entry, site, damage):
    entry.path.parent.mkdir()
    entry.path.write_bytes(damage)
    assert download.download(entry).read_bytes() == site.content["spaces"]


@pytest.mark.parametrize("source", [HUB, DRIVE])
def test_an_interrupted_download_is_resumed(entry, site, source):
    entry = replace(entry, sources=(source,))
    site.cut = [600_000]
    with pytest.raises(CheckpointError, match="What has arrived is kept, the same command goes on from there"):
        download.download(entry)
    assert not loads(entry)
    assert [Path(name).suffix for name in files(entry)] == [".part"]
    heard = []
    download.download(entry, lambda done, _: heard.append(done))
    assert entry.path.read_bytes() == site.content["drive"]
    assert site.asked["spaces" if source == HUB else "drive"][-1] == f"bytes={BLOCK}-"
    assert heard[0] == 2 * BLOCK


def test_a_lost_connection_is_taken_up_within_one_call(entry, site, monkeypatch):
    monkeypatch.setattr(download, "_RETRIES", 2)
    monkeypatch.setattr("random.uniform", lambda *_: 0)
    site.cut = [600_000, 600_000]
    assert download.download(entry).read_bytes() == site.content["spaces"]
    assert site.asked["spaces"] == [None, f"bytes={BLOCK}-", f"bytes={2 * BLOCK}-"]


def test_ctrl_c_leaves_a_part_to_resume(entry, site):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.download(entry, stop)
    assert not loads(entry)
    (part,) = files(entry)
    assert part.startswith(".download/tiny/hub-")
    assert part.endswith(".part")
    assert download.download(entry).read_bytes() == site.content["spaces"]
    assert site.asked["spaces"][-1].startswith("bytes=")


def test_a_server_that_cannot_continue_starts_anew(entry, site):
    site.cut = [600_000]
    site.continues = False
    with pytest.raises(CheckpointError):
        download.download(replace(entry, sources=(DRIVE,)))
    assert download.download(replace(entry, sources=(DRIVE,))).read_bytes() == site.content["drive"]


def test_what_arrived_before_the_end_is_not_fetched_again(entry, site):
    place = entry.path.parent / ".download/tiny" / DRIVE.replace(":", "-")
    place.mkdir(parents=True)
    (place / "tiny.pth").write_bytes(weights(seed=2))  # killed after the transfer, before the file got its name
    assert not loads(entry)
    assert download.download(replace(entry, sources=(DRIVE,))).read_bytes() == weights(seed=2)
    assert files(entry) == ["tiny.pth"]


def test_a_part_of_another_version_never_appears(entry, site):
    site.cut = [600_000]
    with pytest.raises(CheckpointError):
        download.download(replace(entry, sources=(HUB,)))
    site.content["spaces"] = weights(seed=1)
    with pytest.raises(CheckpointError, match="sha256"):
        download.download(replace(entry, sources=(HUB,)))
    assert files(entry) == []
    assert download.download(replace(entry, sources=(HUB,))).read_bytes() == site.content["spaces"]


def test_the_hash_that_the_hub_states_decides(entry, site):
    site.sha256 = "0" * 64
    with pytest.raises(CheckpointError, match=r"owner/repo on the Hugging Face Hub: tiny.pth is damaged: its sha256"):
        download.download(replace(entry, sources=(HUB,)))
    assert files(entry) == []
    assert download.download(entry).is_file()  # Google Drive states none
    assert len(site.asked["drive"]) == 1


@pytest.mark.parametrize(
    ("known", "message"),
    [({"md5_prefix": "abcdef"}, "md5"), ({"sha256": "0" * 64}, "sha256"), ({"size": 5}, "instead of 5")],
)
def test_what_is_not_as_published_never_appears(entry, site, known, message):
    with pytest.raises(CheckpointError, match=rf"{message}.*{message}"):
        download.download(replace(entry, **known))
    assert files(entry) == []
    assert len(site.asked["spaces"]) == len(site.asked["drive"]) == 1


def test_the_next_source_is_tried(entry, site):
    site.status["spaces"] = 404
    assert download.download(entry).read_bytes() == site.content["drive"]
    assert files(entry) == ["tiny.pth"]


def test_the_page_before_a_large_file_is_passed(entry, site):
    site.pages = [WARNING]
    assert download.download(replace(entry, sources=(DRIVE,))).read_bytes() == site.content["drive"]


def test_a_quota_page_is_no_file_and_costs_no_part(entry, site):
    entry = replace(entry, sources=(DRIVE,))
    site.cut = [600_000]
    with pytest.raises(CheckpointError):
        download.download(entry)
    before = files(entry)
    site.pages = [QUOTA]
    with pytest.raises(CheckpointError, match=r"Google Drive \(file 1cn-.*not handed out now.*too many people"):
        download.download(entry)
    assert files(entry) == before
    assert download.download(entry).is_file()
    assert site.asked["drive"][-1] == f"bytes={BLOCK}-"


def test_a_page_in_place_of_the_file_is_reported(entry, site):
    site.content["spaces"] = b"<!DOCTYPE html><html>Sign in to this network</html>"
    with pytest.raises(CheckpointError, match="web page, not weights"):
        download.download(replace(entry, sources=(HUB,)))
    assert files(entry) == []


def test_every_failure_is_reported_in_one_line(entry, site):
    site.status = {"spaces": 503, "drive": 500}
    with pytest.raises(CheckpointError) as message:
        download.download(entry)
    text = str(message.value)
    assert "owner/repo on the Hugging Face Hub: it answers 503; Google Drive (file 1cn-ohxgXDrDfkzC1QdO)" in text
    assert "python -m ovseg_demo checkpoints --download tiny --from FILE" in text
    assert "\n" not in text


def test_no_network_is_reported(entry, monkeypatch):
    def fail(*_, **__):
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(download, "_RETRIES", 0)
    monkeypatch.setattr(download, "get_hf_file_metadata", fail)
    monkeypatch.setattr(requests.Session, "request", fail)
    with pytest.raises(
        CheckpointError, match=r"Hub: no connection \(ConnectionError\); Google.*: no connection.*--from"
    ):
        download.download(entry)
    assert files(entry) == []


def test_room_is_checked_before_the_transfer(entry, site, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: Room)
    with pytest.raises(
        CheckpointError, match=r"no room on the disk for tiny.pth: 0.00 GB more are needed, 0.00 GB are"
    ):
        download.download(entry)
    assert site.asked["spaces"] == []
    with pytest.raises(CheckpointError, match="no room on the disk"):
        download.download(replace(entry, sources=(DRIVE,)))
    assert len(site.asked["drive"]) == 1
    assert not entry.present


class Room:
    free = 1000


@LINUX_ONLY
def test_a_disk_that_fills_up_is_reported(entry, site):
    place = entry.path.parent / ".download/tiny" / DRIVE.replace(":", "-")
    place.mkdir(parents=True)
    (place / "tiny.pth12345678.part").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=r"no room on the disk for tiny.pth: No space left on device\."):
        download.download(replace(entry, sources=(DRIVE, HUB)))
    assert not entry.present
    assert site.asked["spaces"] == []


def test_two_processes_do_not_write_one_file(entry, site):
    root = entry.path.parent / ".download"
    root.mkdir(parents=True)
    with FileLock(root / "tiny.lock"), pytest.raises(CheckpointError, match=r"Another process is fetching tiny\.pth"):
        download.download(entry)
    assert download.download(entry).is_file()


def test_a_file_that_is_made_is_not_downloaded(entry):
    bundled = replace(entry, bundled=True, sources=("build:python -m train.mini.conversion",))
    with pytest.raises(CheckpointError, match=r"not downloaded but made\. Run: python -m train\.mini\.conversion$"):
        download.download(bundled)
    with pytest.raises(
        CheckpointError, match=r"Run: python -m train\.mini\.conversion && .* --download tiny --from FILE$"
    ):
        download.download(replace(bundled, bundled=False))


@pytest.fixture
def copy(tmp_path) -> Path:
    path = tmp_path / "some name.bin"
    path.write_bytes(weights())
    return path


def test_a_copy_is_taken(entry, copy, monkeypatch):
    monkeypatch.setattr(download, "_CHUNK", 1 << 20)
    heard = []
    assert download.import_file(entry, copy, lambda *here: heard.append(here)) == entry.path
    assert entry.path.read_bytes() == copy.read_bytes()
    size = copy.stat().st_size
    assert heard == [(1 << 20, size), (size, size)]
    assert files(entry) == ["tiny.pth"]
    assert loads(entry)
    assert download.import_file(entry, entry.path) == entry.path


def test_a_copy_replaces_what_a_download_left(entry, copy, site):
    site.cut = [600_000]
    site.status["drive"] = 404
    with pytest.raises(CheckpointError):
        download.download(entry)
    download.import_file(entry, copy)
    assert files(entry) == ["tiny.pth"]


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"size": 5}, "instead of 5"),
        ({"sha256": "0" * 64}, "sha256"),
        ({"md5_prefix": "abcdef"}, "md5 begins with"),
        ({"shapes": {"weight": [3, 3]}}, "is not Tiny: it looks like"),
    ],
)
def test_a_copy_that_is_something_else_is_refused(entry, copy, known, message):
    with pytest.raises(CheckpointError, match=message):
        download.import_file(replace(entry, **known), copy)
    assert not entry.path.parent.exists()


@pytest.mark.parametrize(("content", "message"), [(b"<html>", "web page"), (b"", "cannot be read"), (None, "no file")])
def test_a_copy_without_weights_is_refused(entry, copy, content, message):
    copy.unlink() if content is None else copy.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        download.import_file(entry, copy)
    assert not entry.path.parent.exists()


@LINUX_ONLY
def test_a_copy_to_a_full_disk_leaves_nothing(entry, copy):
    place = entry.path.parent / ".download/tiny"
    place.mkdir(parents=True)
    (place / "copy.part").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match="no room on the disk"):
        download.import_file(entry, copy)
    assert files(entry) == []
    assert not place.exists()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError(errno.EIO, "Input/output error")])
def test_an_interrupted_copy_leaves_what_was_there(entry, copy, interruption):
    entry.path.parent.mkdir()
    entry.path.write_bytes(b"before")

    def stop(*_):
        raise interruption

    with pytest.raises((KeyboardInterrupt, CheckpointError)):
        download.import_file(entry, copy, stop)
    assert files(entry) == ["tiny.pth"]
    assert entry.path.read_bytes() == b"before"


def test_a_folder_that_cannot_be_written_is_reported(entry, copy):
    entry.path.parent.write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match="cannot be written into"):
        download.import_file(entry, copy)
