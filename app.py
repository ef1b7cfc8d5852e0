"""Serve the demo: `python app.py`, on HOST (default 127.0.0.1) and PORT (default 7860)."""

import os
import tempfile
import threading

from ovseg_demo.engine import Engine
from ovseg_demo.ui.page import build, launch_settings

# Hugging Face Spaces runs this file in a container that must listen on every interface.
HOST = os.environ.get("HOST", "0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1")
PORT = int(os.environ.get("PORT", "7860"))

# When a server ends it deletes the files it was given. Two servers on one machine must not share a folder, because
# Gradio names files after their content: the one that ends would take away the photos of the other.
files = tempfile.TemporaryDirectory(prefix="ovseg-demo-")
os.environ.setdefault("GRADIO_TEMP_DIR", files.name)

engine = Engine()
demo = build(engine)

if __name__ == "__main__":
    # The page opens at once; the model is ready by the time the first photo is.
    threading.Thread(target=engine.load, daemon=True).start()
    demo.launch(server_name=HOST, server_port=PORT, ssr_mode=False, **launch_settings())
