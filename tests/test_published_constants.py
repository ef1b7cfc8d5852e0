"""Published numbers and texts, written out once more: a slip in any of them would change results without any error.

They were read from the released code and configurations of OVSeg, SED, TagCLIP, ZegCLIP, NACLIP, SegCLIP and SAN. Long
lists stand as the beginning of the SHA-256 of their lines.
"""

import hashlib
import json
import types

import pytest
import torch
from timm.layers import DropPath

from eval import class_names
from ovseg_demo import image
from ovseg_demo.methods import windows
from ovseg_demo.methods.dense import pamr, strategies
from ovseg_demo.methods.dense import scores as dense_scores
from ovseg_demo.methods.dense.options import DenseClipOptions
from ovseg_demo.methods.ovseg import maskformer
from ovseg_demo.methods.sed import cost_maps
from ovseg_demo.methods.sed import decoder as sed_decoder
from ovseg_demo.methods.sed.loading import ARCHITECTURES
from ovseg_demo.methods.segclip import encoder as segclip_encoder
from ovseg_demo.methods.segclip import group_module, image_tower, reconstruction
from ovseg_demo.methods.segclip import scores as segclip_scores
from ovseg_demo.methods.segclip.options import SegCLIPOptions
from ovseg_demo.methods.tagclip import image_encoder, prompted_tower, scores, training_info
from ovseg_demo.methods.tagclip.decoder import DecoderSizes
from ovseg_demo.models.clip import convnext, mask_prompts, region_classifier, templates, text
from ovseg_demo.proposals.maskformer.model import MaskFormer
from ovseg_demo.proposals.maskformer.swin import Swin
from ovseg_demo.runtime import preprocess
from tests.helpers.paths import FIXTURES
from train.common import augmentation, contrastive, loss_terms
from train.common.schedule import Schedule
from train.mrovseg import recipes as mrovseg_recipes
from train.ovseg.clip import __main__ as clip_adaptation
from train.ovseg.maskformer import recipes as maskformer_recipes
from train.sed import recipes as sed_recipes
from train.segclip import batches as segclip_batches
from train.segclip import recipes as segclip_recipes
from train.segclip import superpixels
from train.segclip import training as segclip_training
from train.tagclip import losses as tagclip_losses
from train.tagclip import recipes as tagclip_recipes


def digest(lines) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_prompt_templates():
    assert templates.OVSEG_DEMO_TEMPLATE == ("a photo of {}",)
    assert (len(templates.VILD_TEMPLATES), digest(templates.VILD_TEMPLATES)) == (14, "20c81c13267c6b93")
    assert (len(templates.IMAGENET_TEMPLATES), digest(templates.IMAGENET_TEMPLATES)) == (80, "4f976686fb651bb5")
    assert training_info.TEMPLATES["photo"] == ("a photo of a {}",)
    scenes = training_info.TEMPLATES["scenes"]
    assert (len(scenes), digest(scenes)) == (15, "cbde80760ccc7fcc")


@pytest.mark.parametrize(("benchmark", "name"), [("voc", "photo"), ("coco", "scenes")])
def test_tagclip_reads_words_in_the_templates_of_its_benchmark(benchmark, name, monkeypatch):
    texts = []
    monkeypatch.setattr(text.open_clip, "tokenize", lambda given: texts.extend(given) or torch.zeros(1))
    monkeypatch.setattr(text, "encode_shared_prefixes", lambda clip, tokens: torch.ones(len(texts), 2))
    info = training_info.published_training_info(benchmark, "inductive")
    clip = types.SimpleNamespace(text_projection=torch.zeros(1))
    text.embed_words(clip, ["pottedplant"], training_info.TEMPLATES[info.templates])
    assert texts == [prompt.replace("{}", "pottedplant") for prompt in training_info.TEMPLATES[name]]
    assert texts[0] == {"voc": "a photo of a pottedplant", "coco": "a photo of a pottedplant."}[benchmark]


@pytest.mark.parametrize(
    ("backbone", "architecture", "shortest", "longest", "threshold"),
    [("r101c", "ViT-B-16-quickgelu", 512, 2048, 0.5), ("swinb", "ViT-L-14-quickgelu", 640, 2560, 0.4)],
)
def test_ovseg_with_maskformer_is_loaded_with_its_sizes_and_thresholds(
    backbone, architecture, shortest, longest, threshold, monkeypatch
):
    released = types.SimpleNamespace(backbone=backbone, non_object=torch.ones(1, 2))
    monkeypatch.setattr(maskformer.loading, "load_state_dict", lambda _: {})
    monkeypatch.setattr(maskformer.checkpoint, "split_checkpoint", lambda *_: released)
    monkeypatch.setattr(maskformer.checkpoint, "load_maskformer", lambda *_: None)
    asked = []

    class Clip:
        name = "clip"

        def with_templates(self, given):
            asked.append(given)
            return self

    method = maskformer.load_ovseg_maskformer("ovseg-own", "cpu", lambda name: asked.append(name) or Clip())
    assert asked == [architecture, templates.VILD_TEMPLATES]
    predictor = maskformer.create_predictor(released, "cpu")
    assert (predictor.shortest, predictor.longest, method._threshold) == (shortest, longest, threshold)
    assert longest <= image.READING_SIDE


def test_segclip():
    assert segclip_encoder.TEMPLATES == ("a photo of a {}.",)
    assert (segclip_encoder.HIGHEST_SCALE, segclip_scores.IMAGE_CLASSES) == (100, 5)
    assert (group_module.REGIONS, group_module.CROSS_LAYERS, group_module.GUMBEL_TEMPERATURE) == (8, 2, 0.9)
    assert (image_tower.PATCH_BLOCKS, reconstruction.MASKED_SHARE) == (10, 0.75)
    with torch.device("meta"):
        branch = reconstruction.ReconstructionBranch(768, 196, 768)
    assert (len(branch.blocks), len(branch.decoder.blocks)) == (2, 3)
    decoder_attention = branch.decoder.blocks[0].attn
    assert (decoder_attention.num_heads, branch.decoder.norm.eps) == (8, 1e-6)
    options = {"background": 0.25, "image_prior": True, "recipe": "code", "overlap": 0.0}
    assert SegCLIPOptions().given() == options


def test_ovseg():
    assert maskformer.DEMO_THRESHOLD == 0.35
    assert region_classifier.LOGIT_SCALE == 100
    assert mask_prompts.DEPTH == 3
    assert pytest.approx(4.6051702) == contrastive.HIGHEST_SCALE
    assert pytest.approx((122.7709383, 116.7460125, 104.09373615)) == preprocess.CLIP_MEAN
    assert pytest.approx((68.5005327, 66.6321579, 70.32316305)) == preprocess.CLIP_STD
    assert preprocess.IMAGENET_MEAN == (123.675, 116.28, 103.53)
    assert preprocess.IMAGENET_STD == (58.395, 57.12, 57.375)


@pytest.mark.parametrize(("name", "width"), [("r101c_vitb16", 512), ("swinb_vitl14", 768)])
def test_maskformer_is_built_as_large_as_it_was_published(name, width):
    published = json.loads((FIXTURES / f"ovseg_{name}_keys.json").read_text())["tensors"]
    backbone = {"r101c_vitb16": "r101c", "swinb_vitl14": "swinb"}[name]
    with torch.device("meta"):
        model = maskformer_recipes.RECIPES[backbone].architecture.build(width)
    assert isinstance(model, MaskFormer)
    attentions = [part for part in model.modules() if isinstance(part, torch.nn.MultiheadAttention)]
    assert len(attentions) == 12
    assert {(part.embed_dim, part.num_heads, part.dropout) for part in attentions} == {(256, 8, 0.1)}
    assert published["sem_seg_head.predictor.query_embed.weight"] == [100, 256]


def test_sed():
    assert (cost_maps.SIDE, cost_maps.STRIDE) == (768, 32)
    assert (cost_maps._SHORTEST, cost_maps._LONGEST) == (640, 2560)
    assert cost_maps._LONGEST <= image.READING_SIDE
    assert (sed_decoder._KERNEL, sed_decoder._NORM_GROUP) == (9, 16)
    assert {name: sizes.skips for name, sizes in ARCHITECTURES.items()} == {
        "convnext_base_w_320": (512, 256, 128),
        "convnext_large_d_320": (768, 384, 192),
    }
    for sizes in ARCHITECTURES.values():
        assert (sizes.widths, sizes.guides, sizes.heads) == ((128, 64, 32, 16), (32, 16, 8), 4)
    assert convnext._REGULARISED == {
        "convnext_base_w_320": {"timm_drop": 0.0, "timm_drop_path": None},
        "convnext_large_d_320": {"timm_drop": 0.1, "timm_drop_path": 0.1},
    }


def test_tagclip():
    assert scores.SEEN_PENALTY == 0.1
    assert image_encoder.STRIDE_SHARE == 426 / 512
    assert image_encoder._HEAD_WIDTH == 64
    assert prompted_tower.DROPOUT == 0.1
    assert DecoderSizes() == DecoderSizes(width=512, heads=8, layers=3, learner=True, trusty=True)
    splits = training_info.class_splits()
    assert splits["voc"].unseen == ("pottedplant", "sheep", "sofa", "train", "tvmonitor")
    assert {name: (digest(split.seen), digest(split.unseen)) for name, split in splits.items()} == {
        "voc": ("6229321e93d45ce8", "574684881ecc87cd"),
        "coco": ("e3ea3e091a14ed76", "533ffb0b4f97cc16"),
    }


def test_naclip():
    assert dense_scores.LOGIT_SCALE == 40
    assert strategies.NEIGHBOURHOOD_STD == 5
    assert (windows.WINDOW, windows.LONGEST) == (224, 2048)
    assert (pamr.ITERATIONS, pamr.DILATIONS) == (10, (8, 16))
    assert (pamr._CONTRAST, pamr._SMALLEST) == (0.1, 1e-8)
    options = DenseClipOptions()
    assert (options.strategy, options.short_side, options.stride, options.pamr) == ("naclip", 336, 112, True)


@pytest.mark.parametrize(
    ("variant", "beginning"),
    [
        ("ade20k_150.ovseg", "aaab84ac88c425d4"),
        ("ade20k_150.san", "aaab84ac88c425d4"),
        ("ade20k_150.sed", "f9dbd8a75a0722c9"),
        ("ade20k_847.ovseg", "ee311c5f3b780a16"),
        ("ade20k_847.san", "ee311c5f3b780a16"),
        ("coco_stuff_171.ovseg", "8ea44449837dceb3"),
        ("context_459.ovseg", "c9fe8ff7083d2572"),
        ("context_459.san", "c9fe8ff7083d2572"),
        ("context_459.sed", "f22a02ac1b8419bc"),
        ("context_59.sed", "1c0546d54360b603"),
        ("context_59.san", "1c0546d54360b603"),
        ("voc_20.ovseg", "7d877f185c807bc5"),
        ("voc_20.san", "0575f1e3360927e6"),
        ("voc_20b.sed", "245feb60aa05bd70"),
    ],
)
def test_class_names(variant, beginning):
    assert digest(class_names.load_class_names(variant).names) == beginning


def schedule(**changed) -> Schedule:
    """What the published schedules share, with changes."""
    common = {"learning_rate": 2e-4, "warmup": 1500, "decay": "poly", "averaging": 0.0}
    return Schedule(**common | changed)


def test_recipes_of_maskformer():
    recipes = maskformer_recipes.RECIPES
    common = {"steps": 120_000, "clip": 0.01, "save_every": 1000}
    assert recipes["r101c"].schedule == schedule(**common, weight_decay=1e-4)
    assert recipes["swinb"].schedule == schedule(**common, weight_decay=0.01, learning_rate=6e-5)
    assert (recipes["r101c"].backbone_rate, recipes["swinb"].backbone_rate) == (0.1, 1.0)
    assert (recipes["r101c"].frozen, recipes["swinb"].frozen) == (("stem", "res2"), ())
    assert (recipes["r101c"].batch, recipes["swinb"].batch) == (32, 32)
    assert (recipes["r101c"].shown, recipes["swinb"].shown) == ((512, 2048), (640, 2560))
    assert (recipes["r101c"].clip, recipes["swinb"].clip) == ("clip-vit-b16", "clip-vit-l14")
    small, large = recipes["r101c"].views, recipes["swinb"].views
    assert (small.side, tuple(small.shortest), small.longest) == (512, (800,), 1333)
    scales = (320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960, 1024, 1088, 1152, 1216, 1280)
    assert (large.side, tuple(large.shortest), large.longest) == (640, scales, 2560)
    terms = loss_terms.MASKFORMER
    assert (terms.classes, terms.masks, terms.dice, terms.void) == (1, 20, 1, 0.1)
    assert (terms.mask_term, terms.sampling) == ("focal", None)
    assert (loss_terms.ALPHA, loss_terms.GAMMA) == (0.25, 2)
    rates = [part.drop_prob for part in Swin().modules() if isinstance(part, DropPath)]
    assert (len(rates), max(rates)) == (24, pytest.approx(0.3))


@pytest.mark.parametrize(("size", "clip", "side"), [("b", "clip-vit-b16", 640), ("l", "clip-vit-l14-336", 672)])
def test_recipes_of_mrovseg(size, clip, side):
    recipe = mrovseg_recipes.RECIPES[size]
    assert recipe.schedule == schedule(steps=60_000, warmup=0, weight_decay=1e-4, clip=0.01, save_every=1000)
    assert (recipe.clip, recipe.batch, recipe.fixed_views) == (clip, 32, False)
    views = recipe.views
    assert (views.side, views.factors, views.largest_share, views.fill) == (side, (0.5, 2.0), 1.0, (128, 128, 128))
    terms = recipe.terms
    assert (terms.classes, terms.masks, terms.dice, terms.void, terms.mask_term) == (2, 5, 5, 0.1, "cross entropy")
    sampling = terms.sampling
    assert (sampling.points, sampling.oversampling, sampling.importance) == (12544, 3, 0.75)
    assert recipe.settings.auxiliary_blocks == (5,)


@pytest.mark.parametrize(("size", "clip"), [("b", "clip-convnext-base-w-320"), ("l", "clip-convnext-large-d-320")])
def test_recipes_of_sed(size, clip):
    recipe = sed_recipes.RECIPES[size]
    assert recipe.schedule == schedule(
        steps=80_000, warmup=0, decay="cosine", weight_decay=1e-4, clip=0.01, save_every=1000
    )
    assert (recipe.clip, recipe.clip_rate, recipe.pooling, recipe.batch) == (clip, 0.01, 2, 4)
    assert recipe.ignore == "zeros"
    assert (recipe.views.side, tuple(recipe.views.shortest), recipe.views.longest) == (768, (768,), 2666)


@pytest.mark.parametrize(
    ("benchmark", "prompts", "steps", "templates_name"), [("voc", 10, 20_000, "photo"), ("coco", 100, 80_000, "scenes")]
)
@pytest.mark.parametrize("model", ["tagclip", "zegclip"])
def test_recipes_of_tagclip_and_zegclip(benchmark, prompts, steps, templates_name, model):
    for setting, share in (("inductive", 1), ("supervised", 1), ("transductive", 2)):
        recipe = tagclip_recipes.published(benchmark, setting, model)
        assert recipe.schedule == schedule(
            steps=steps // share, lowest=1e-6, weight_decay=0.01, clip=None, save_every=500
        )
        assert (recipe.prompts, recipe.templates, recipe.batch) == (prompts, templates_name, 16)
        views = recipe.views
        assert (views.side, tuple(views.shortest), views.largest_share) == (512, tuple(range(256, 1025)), 0.75)
        assert views.fill == (124, 116, 104)
        terms = recipe.terms
        assert (terms.masks, terms.dice, terms.trusty) == ({"tagclip": 20, "zegclip": 100}[model], 1, 10)
        assert (terms.form, terms.unlabelled) == ("code", True)
    assert (tagclip_losses._ALPHA, tagclip_losses._GAMMA) == (0.25, 2)


def test_recipe_of_segclip():
    recipe, schedule = segclip_recipes.SegCLIPRecipe(), segclip_recipes.schedule(1000)
    assert (segclip_recipes.EPOCHS, recipe.batch, segclip_batches.LONGEST_CAPTION) == (10, 768, 32)
    assert (schedule.learning_rate, schedule.warmup, schedule.decay, schedule.lowest) == (4e-3, 150, "cosine", 0)
    assert (schedule.betas, schedule.epsilon, schedule.weight_decay, schedule.clip) == ((0.9, 0.98), 1e-6, 0.05, 1)
    assert (schedule.averaging, set(segclip_training.RATES.values())) == (0, {1e-3})
    assert (segclip_batches.AREA, segclip_batches.RATIO) == ((0.5, 1), (3 / 4, 4 / 3))
    found = (superpixels.SIDE, superpixels.SCALE, superpixels.SIGMA, superpixels.SMALLEST)
    assert found == (224, 224, 0.9, 224)


def test_recipe_of_adapting_clip_to_masks():
    assert clip_adaptation.RATES == {"full": (5e-6, 0.2), "prompts": (0.05, 0.0)}
    assert (clip_adaptation.WARMUP, clip_adaptation.EPOCHS) == (100, 5)
    chosen = types.SimpleNamespace(precision="no", seed=0, smoke=False)
    found = clip_adaptation._schedule("full", 10_000, chosen)
    assert (found.betas, found.epsilon, found.clip, found.averaging) == ((0.9, 0.98), 1e-6, None, 0)
    assert (found.learning_rate, found.weight_decay, found.warmup, found.decay) == (5e-6, 0.2, 100, "cosine")


def test_the_learning_rate_falls_with_the_published_power():
    found = Schedule(steps=1000, learning_rate=1.0, warmup=0, decay="poly").factor(500)
    assert found == pytest.approx(0.5**0.9)


def test_photos_change_colour_in_the_ranges_of_ssd():
    ranges = (augmentation._BRIGHTNESS, augmentation._CONTRAST, augmentation._SATURATION, augmentation._HUE)
    assert ranges == (32, (0.5, 1.5), (0.5, 1.5), 18)
