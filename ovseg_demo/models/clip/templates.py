"""Prompt templates of several methods: texts with a {} for the word. Templates of one method are in its package."""

import open_clip

OVSEG_DEMO_TEMPLATE = ("a photo of {}",)
"""The single prompt of OVSeg's public demo: no article, no full stop."""

VILD_TEMPLATES = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "There is a small {} in the scene.",
    "There is a medium {} in the scene.",
    "There is a large {} in the scene.",
)
"""The 14 prompts of ViLD (Gu et al. 2022) by which OVSeg, SAN and MROVSeg are trained and evaluated."""

IMAGENET_TEMPLATES = tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
"""The 80 prompts of CLIP's authors for ImageNet (Radford et al. 2021), which SED and NACLIP use.

SED's cost map has one channel for each prompt, in this order.
"""
