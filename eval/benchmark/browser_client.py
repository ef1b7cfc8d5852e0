"""A visitor of the running page without a browser: sends what the page's script sends, and times the answers."""

import json
import time
import uuid
from pathlib import Path
from typing import Any

import httpx

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
        components = {component["id"]: component["props"] for component in config["components"]}
        self._ids = {props["elem_id"]: number for number, props in components.items() if props.get("elem_id")}
        self._values = {number: props.get("value") for number, props in components.items()}
        self._events = {
            (target, event): dependency
            for dependency in config["dependencies"]
            for target, event in dependency["targets"]
        }

    def segment(self, photo: Path, words: str, method: str) -> float:
        """Upload a photo and press Segment, all other controls being as the page opens.

        Args:
            photo: path of the photo.
            words: text of the vocabulary field.
            method: id of the method.

        Returns:
            The seconds from pressing the button to the complete answer.

        Raises:
            RuntimeError: when the server answers with an error.
        """
        with photo.open("rb") as file:
            uploaded = self._http.post("/gradio_api/upload", files={"files": (photo.name, file)})
        path = uploaded.raise_for_status().json()[0]
        self._set("photo", {"path": path, "meta": {"_type": "gradio.FileData"}})
        return self.change_words(words, method)

    def change_words(self, words: str, method: str) -> float:
        """Press Segment with other words for the same photo; arguments, result and errors as for `segment`."""
        self._set("words", words)
        self._set("method", method)
        start = time.perf_counter()
        self._http.post("/gradio_api/queue/join", json=self._body("segment", "click")).raise_for_status()
        with self._http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self._session}) as lines:
            for line in lines.iter_lines():
                message: dict[str, Any] = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    if not message["success"]:
                        raise RuntimeError(f"the server answered: {message['output']}")
                    return time.perf_counter() - start
        raise RuntimeError("the server closed the stream without an answer")

    def move_granularity(self, value: float) -> float:
        """Move the granularity slider.

        Args:
            value: value of the slider, 0 to 1.

        Returns:
            The seconds to the complete answer.

        Raises:
            RuntimeError: when no photo is shown in this session.
        """
        self._set("granularity", value)
        start = time.perf_counter()
        body = self._body("granularity", "input")
        answer = self._http.post("/gradio_api/run/predict", json=body).raise_for_status().json()
        if not any(isinstance(output, dict) and output.get("planes") for output in answer["data"]):
            raise RuntimeError("the slider changed nothing: no photo is shown in this session")
        return time.perf_counter() - start

    def _set(self, elem_id: str, value: Any) -> None:
        self._values[self._ids[elem_id]] = value

    def _body(self, elem_id: str, event: str) -> dict[str, Any]:
        """The request that the page sends for an event: the values of the event's inputs, in the order of the page."""
        dependency = self._events[self._ids[elem_id], event]
        data = [self._values[number] for number in dependency["inputs"]]
        return {"data": data, "fn_index": dependency["id"], "session_hash": self._session}
