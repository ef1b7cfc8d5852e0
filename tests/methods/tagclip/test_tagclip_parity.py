"""From pixels and words to scores, as the references do it on equal weights, through a file and its loading."""

import open_clip
import pytest
import torch

from ovseg_demo.methods.tagclip import image_encoder
from ovseg_demo.methods.tagclip.checkpoint import split_checkpoint
from ovseg_demo.methods.tagclip.decoder import Decoder, MaskLogits
from ovseg_demo.methods.tagclip.scores import ScoreRule, class_scores
from ovseg_demo.methods.tagclip.windows import ImageEmbeddings, WindowedPhoto, window_origins
from ovseg_demo.models.clip.optimised import optimise
from ovseg_demo.models.clip.text import encode_texts
from ovseg_demo.runtime.fused_layers import fuse_layers
from ovseg_demo.weights.loading import load_strict
from tests.helpers.oracle import drawn, fixture
from tests.helpers.tagclip_models import SIDE, SIZES, WIDTH, published, units

REFERENCE = fixture("tagclip_parity.json")
CASES = pytest.mark.parametrize(
    "case", REFERENCE["scores"], ids=lambda c: f"{c['model']}-{c['trusty']}-{c['seen_penalty']}"
)
SEEN = (True, True, False, True, False)


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    return image_encoder.build_prompted_clip(split_checkpoint(published("tagclip")).clip, "tiny").requires_grad_(False)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "for inference"])
def encoded(clip, request) -> ImageEmbeddings:
    """Of two images."""
    tower = clip.visual
    if request.param:
        tower = optimise(
            image_encoder.build_prompted_clip(split_checkpoint(published("tagclip")).clip, "tiny").visual, "float32"
        )
    with torch.inference_mode():
        return tower(drawn("pixels", (2, 3, SIDE, SIDE)))


def decoder(model: str, *, fused: bool) -> Decoder:
    made = Decoder(SIZES[model])
    load_strict(made, split_checkpoint(published(model)).decoder, "tiny")
    made.eval().requires_grad_(False)
    if fused:
        fuse_layers(made)
    return made


def test_text_embeddings(clip):
    texts = REFERENCE["texts"]
    found = encode_texts(clip, open_clip.tokenize(texts["words"]))
    torch.testing.assert_close(found, torch.tensor(texts["embeddings"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("fused", [False, True], ids=["stock layers", "fused layers"])
@CASES
@torch.inference_mode()
def test_scores(encoded, case, fused):
    """With the trusty weighting and without it; with the 0.1, and without it as after self-training."""
    logits = decoder(case["model"], fused=fused)(encoded, units("texts", (len(SEEN), WIDTH)))
    rule = ScoreRule(SEEN, case["seen_penalty"], case["trusty"])
    found = torch.stack([class_scores(*of_image(encoded, logits, i), rule) for i in range(2)])
    assert found.shape == (2, len(SEEN), SIDE, SIDE)
    torch.testing.assert_close(found[:, :, 3::7, 2::9], torch.tensor(case["scores"]), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_scores_of_a_photo_of_several_windows(clip):
    """They lie 27 pixels apart, but for the last, and are averaged where they overlap."""
    photo = drawn("photo", (1, 3, SIDE, 75))[0]
    starts = window_origins((SIDE, 75), SIDE, 27)
    encoded = clip.visual(torch.stack([photo[:, top : top + SIDE, left : left + SIDE] for top, left in starts]))
    logits = decoder("tagclip", fused=False)(encoded, units("texts", (len(SEEN), WIDTH)))
    found = class_scores(WindowedPhoto((SIDE, SIDE), starts, encoded), logits, ScoreRule(SEEN, 0.1))
    torch.testing.assert_close(found[:, 3::7, 2::9], torch.tensor(REFERENCE["windows"]), atol=1e-5, rtol=0)


def of_image(encoded: ImageEmbeddings, logits: MaskLogits, index: int) -> tuple[WindowedPhoto, MaskLogits]:
    """One of the images as a photo of one window."""
    patches, images, classes, trusty = (
        None if each is None else each[index, None]
        for each in (encoded.patches, encoded.images, logits.classes, logits.trusty)
    )
    return WindowedPhoto((SIDE, SIDE), ((0, 0),), ImageEmbeddings(patches, images)), MaskLogits(classes, trusty)
