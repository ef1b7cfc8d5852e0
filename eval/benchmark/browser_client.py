"""A visitor of the running page without a browser: sends what the page's script sends, and times the answers."""

import json
import time
import uuid
from pathlib import Path
from typing import Any

import httpx

from ovseg_demo.methods.base import Options

_TIMEOUT = httpx.Timeout(600)


class BrowserClient:
    """One browser session at a server.

    Args:
        url: address of the page, for example "http://127.0.0.1:7860".
    """

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT)
        self._session = uuid.uuid4().hex
        config = self._http.get("/config").raise_for_status().json()
        names = {c["props"].get("elem_id"): c["id"] for c in config["components"] if c["props"].get("elem_id")}
        self._events = {
            (target, event): dependency["id"]
            for dependency in config["dependencies"]
            for target, event in dependency["targets"]
        }
        self._ids = names
        self._photo, self._words = None, ""

    def segment(self, photo: Path, words: str, method: str, options: Options) -> float:
        """Upload a photo and press Segment; seconds from pressing to the complete answer. Raises RuntimeError."""
        with photo.open("rb") as file:
            uploaded = self._http.post("/gradio_api/upload", files={"files": (photo.name, file)})
        self._photo = {"path": uploaded.raise_for_status().json()[0], "meta": {"_type": "gradio.FileData"}}
        return self.change_words(words, method, options)

    def change_words(self, words: str, method: str, options: Options) -> float:
        """Press Segment again with other words; seconds to the complete answer. Raises RuntimeError when it fails."""
        self._words = words
        automatic = options.granularity is None
        value = Options.granularity if automatic else options.granularity
        rejecting = options.rejection is not None
        best, *others = options.rejection or (1,)
        if set(others) - {best}:
            raise ValueError("the page has one number for early rejection")
        fusing = [value, automatic, options.proposals, rejecting, best]
        marking = [options.seen is None, list(options.seen or ()), options.trusty]
        data = [self._photo, words, method, *fusing, *marking]
        start = time.perf_counter()
        event = self._event("segment", "click")
        self._http.post(
            "/gradio_api/queue/join", json={"data": data, "fn_index": event, "session_hash": self._session}
        ).raise_for_status()
        with self._http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self._session}) as lines:
            for line in lines.iter_lines():
                message: dict[str, Any] = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    if not message["success"]:
                        raise RuntimeError(f"the server answered: {message['output']}")
                    return time.perf_counter() - start
        raise RuntimeError("the server closed the stream without an answer")

    def move_granularity(self, value: float) -> float:
        """Move the slider; seconds to the complete answer."""
        start = time.perf_counter()
        event = self._event("granularity", "input")
        body = {"data": [self._photo, self._words, value, None, None], "fn_index": event, "session_hash": self._session}
        answer = self._http.post("/gradio_api/run/predict", json=body).raise_for_status().json()
        if not (answer["data"][0] or {}).get("planes"):
            raise RuntimeError("the slider changed nothing: no photo is shown in this session")
        return time.perf_counter() - start

    def _event(self, elem_id: str, event: str) -> int:
        return self._events[self._ids[elem_id], event]
