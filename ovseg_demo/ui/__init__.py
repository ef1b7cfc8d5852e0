"""The page: gradio Blocks and the browser's viewer. No model code."""

from ovseg_demo.ui.page import build, launch_settings

__all__ = ["build", "launch_settings"]
