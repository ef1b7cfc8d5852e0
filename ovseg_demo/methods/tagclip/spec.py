"""The methods of TagCLIP and ZegCLIP that people can choose, and their options."""

from ovseg_demo.image import READING_SIDE
from ovseg_demo.methods.base import Method, MethodSpec
from ovseg_demo.methods.tagclip.options import SelfTrainedOptions, TagCLIPMiniOptions, TagCLIPOptions, ZegCLIPOptions
from ovseg_demo.methods.tagclip.training_info import Benchmark, Setting, published_training_info
from ovseg_demo.models.mini.shared import MINI_CHECKPOINTS, shared_mini_model
from ovseg_demo.runtime.shared_models import SharedModels


def _build_mini(models: SharedModels) -> Method:
    from ovseg_demo.methods.tagclip.mini import load_tagclip_mini

    return load_tagclip_mini(shared_mini_model(models), models.device)


def _build_own(models: SharedModels) -> Method:
    from ovseg_demo.methods.tagclip.loading import load_tagclip

    return load_tagclip("tagclip-own", models.device)


def _zegclip(method: str, training: str, benchmark: Benchmark, setting: Setting) -> MethodSpec:
    """A released ZegCLIP, a whole model in one file whose catalogue id is that of the method.

    Only the inductive models treat seen and unseen words differently.
    """

    def build(models: SharedModels) -> Method:
        from ovseg_demo.methods.tagclip.loading import load_tagclip

        return load_tagclip(method, models.device, published_training_info(benchmark, setting))

    summary = "No masks: words find their regions by attention in a CLIP ViT-B/16 with learned prompts."
    options = ZegCLIPOptions if setting == "inductive" else SelfTrainedOptions
    return MethodSpec(method, f"ZegCLIP · {training}", summary, (method,), build, options, READING_SIDE)


TAGCLIP_MINI = (
    MethodSpec(
        "tagclip-mini",
        "TagCLIP · mini",
        "TagCLIP's decoder on the bundled mini model, taught 15 kinds of things: its trusty map shows what looks new.",
        (*MINI_CHECKPOINTS, "tagclip-mini"),
        _build_mini,
        TagCLIPMiniOptions,
    ),
)

TAGCLIP = (
    MethodSpec(
        "tagclip-own",
        "TagCLIP · trained by you",
        "Words find their regions by attention; a trusty map tells which regions look new to the model.",
        ("tagclip-own",),
        _build_own,
        TagCLIPOptions,
        READING_SIDE,
    ),
    _zegclip("zegclip-voc", "VOC, 15 of 20 words seen", "voc", "inductive"),
    _zegclip("zegclip-voc-transductive", "VOC, self-trained", "voc", "transductive"),
    _zegclip("zegclip-voc-supervised", "VOC, all words seen", "voc", "supervised"),
    _zegclip("zegclip-coco", "COCO-Stuff, 156 of 171 words seen", "coco", "inductive"),
    _zegclip("zegclip-coco-transductive", "COCO-Stuff, self-trained", "coco", "transductive"),
    _zegclip("zegclip-coco-supervised", "COCO-Stuff, all words seen", "coco", "supervised"),
)
