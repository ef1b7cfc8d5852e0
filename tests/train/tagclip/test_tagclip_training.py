"""What of TagCLIP is trained and how fast, what it is asked for, where its labels are from, and what the file holds."""

import json
from dataclasses import asdict, replace

import open_clip
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from eval.datasets.base import IGNORE
from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.tagclip import checkpoint
from ovseg_demo.methods.tagclip.decoder import Decoder, MaskLogits
from ovseg_demo.methods.tagclip.image_encoder import ClipWindowEncoder
from ovseg_demo.methods.tagclip.prompted_tower import PromptedTower
from ovseg_demo.methods.tagclip.training_info import METADATA_KEY, TEMPLATES, TrainingInfo
from ovseg_demo.models.clip.positions import resize_positions
from ovseg_demo.models.clip.text import embed_words, mean_embeddings
from ovseg_demo.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalise
from ovseg_demo.weights import catalogue, reading
from train.common.labelled_batches import BACKGROUND
from train.common.run_folder import RunFolder
from train.tagclip import initial_model, recipes, saving, training
from train.tagclip.losses import UNSEEN, LossTerms
from train.tagclip.recipes import smoke
from train.tagclip.training import TagCLIPTraining, UnseenHandling

WORDS = (["cat", "dog", "sheep", "horse", "train"], ["road", "tree"])
SEEN = (torch.tensor([True, True, False, True, False]), torch.tensor([True, True]))
PUBLISHED, STRICT = UnseenHandling(False, False, LossTerms()), UnseenHandling(False, True, LossTerms(unlabelled=False))
SELF_TAUGHT = UnseenHandling(True, False, LossTerms())
TINY = smoke(recipes.published("voc", "inductive", "tagclip"))


@pytest.fixture
def clip() -> open_clip.CLIP:
    return initial_model.tiny_clip(TINY.prompts, 0)


def made(clip: open_clip.CLIP, plan: UnseenHandling = PUBLISHED, sizes=TINY.sizes, seen=SEEN) -> TagCLIPTraining:
    """With texts that differ, which those of a random text tower hardly do."""
    torch.manual_seed(0)
    texts = [F.normalize(torch.randn(len(words), 64), dim=-1) for words in WORDS]
    return TagCLIPTraining(clip.visual, Decoder(sizes), texts, seen, plan)


def batch(number: int = 0, *, last: int = 4) -> dict:
    """Two photos: cat, nothing known and sheep; dog, horse, background and the class `last`. Each has its colour."""
    labels = torch.full((2, 64, 64), IGNORE)
    if number:
        labels[0, :32], labels[1, :, 40:] = 0, 1
    else:
        labels[0, :, :24], labels[0, :, 40:] = 0, 2
        labels[1, :32, :32], labels[1, :32, 32:], labels[1, 32:, :32], labels[1, 32:, 32:] = 1, 3, BACKGROUND, 4
    generator = torch.Generator().manual_seed(0)
    colours = torch.randint(256, (8, 3), generator=generator)
    shades = torch.randint(-20, 21, (2, 3, 64, 64), generator=generator)
    images = (colours[labels + 2].movedim(-1, 1) + shades).clamp(0, 255).to(torch.uint8)
    return {"images": images, "labels": torch.where(labels == 4, last, labels), "sets": [number] * 2}


def told(monkeypatch, net: TagCLIPTraining, given: dict) -> dict:
    """What the decoder is asked for and the losses are told."""
    seen = {}
    forward, losses = net.decoder.forward, training.tagclip_losses

    def watched(encoded, texts: Tensor) -> MaskLogits:
        seen["texts"] = texts
        seen["logits"] = forward(encoded, texts)
        return seen["logits"]

    def asked(logits: MaskLogits, labels: Tensor, unseen: Tensor, terms: LossTerms) -> dict:
        seen.update(labels=labels, unseen=unseen, terms=terms)
        return losses(logits, labels, unseen, terms)

    with monkeypatch.context() as patched:
        patched.setattr(net.decoder, "forward", watched)
        patched.setattr(training, "tagclip_losses", asked)
        seen["losses"] = net(given)
    return seen


@pytest.mark.parametrize(("benchmark", "prompts", "steps"), [("voc", 10, 20_000), ("coco", 100, 80_000)])
def test_the_recipes_are_the_published_ones(benchmark, prompts, steps):
    recipe = recipes.published(benchmark, "inductive", "tagclip")
    schedule, views = recipe.schedule, recipe.views
    assert (recipe.prompts, schedule.steps, recipe.batch) == (prompts, steps, 16)
    assert recipe.templates == {"voc": "photo", "coco": "scenes"}[benchmark]
    assert (schedule.learning_rate, schedule.lowest, schedule.weight_decay) == (2e-4, 1e-6, 0.01)
    assert (schedule.warmup, schedule.decay, schedule.averaging, schedule.clip) == (1500, "poly", 0, None)
    assert (schedule.betas, schedule.epsilon) == ((0.9, 0.999), 1e-8)
    assert (views.side, views.shortest[0], views.shortest[-1], views.largest_share) == (512, 256, 1024, 0.75)
    assert recipe.terms == LossTerms("code", 20, 1, 10, unlabelled=True)
    assert recipe.clip in catalogue.entries()
    shorter = recipes.published(benchmark, "transductive", "tagclip").schedule
    assert (shorter.steps, shorter.warmup) == (steps // 2, 1500)
    assert recipes.published(benchmark, "inductive", "zegclip").terms.masks == 100
    assert json.dumps(asdict(recipe), default=str)


@pytest.mark.parametrize(
    ("benchmark", "setting", "model", "parts"),
    [
        ("voc", "inductive", "tagclip", (True, True)),
        ("voc", "transductive", "tagclip", (True, False)),
        ("voc", "supervised", "tagclip", (True, False)),
        ("coco", "transductive", "tagclip", (True, True)),
        ("coco", "supervised", "tagclip", (True, True)),
        ("coco", "inductive", "zegclip", (False, False)),
    ],
)
def test_models_have_the_published_parts(benchmark, setting, model, parts):
    sizes = recipes.published(benchmark, setting, model).sizes
    assert (sizes.learner, sizes.trusty) == parts
    assert (sizes.width, sizes.heads, sizes.layers) == (512, 8, 3)


def test_as_many_numbers_learn_as_in_the_published_models():
    """11,720,448 with 10 prompts and 12,549,888 with 100 are counted in the published modules; the rest is unread."""
    unread = 2 * (512 + 512)  # norms before self-attentions that are not there
    unread += 2 * (512 * 512 + 512) + 2 * 512 * 2048 + 2048 + 512 + 2 * (512 + 512)  # the last layer, but for its masks
    for prompts, published in ((10, 11_720_448), (100, 12_549_888)):
        with torch.device("meta"):
            clip = open_clip.CLIP(**open_clip.get_model_config("ViT-B-16-quickgelu"))
            tower = PromptedTower(clip.visual, prompts)
            net = TagCLIPTraining(
                tower,
                Decoder(recipes.published("voc", "inductive", "tagclip").sizes),
                [torch.zeros(1)],
                [torch.zeros(1)],
                PUBLISHED,
            )
        assert sum(value.numel() for value in net.parameters() if value.requires_grad) == published - unread


def test_prompts_and_decoder_learn_and_all_else_of_clip_stays(clip):
    net = made(clip).train()
    sum(net(batch()).values()).backward()
    learning = {name for name, value in net.named_parameters() if value.requires_grad}
    assert {name for name, value in net.named_parameters() if value.grad is not None and value.grad.any()} == learning
    of_tower = {name for name in learning if name.startswith("visual.")}
    assert of_tower == {
        *("visual.prompt_embeddings", "visual.deep_prompt_embeddings", "visual.prompt_proj.weight"),
        *("visual.prompt_proj.bias", "visual.prompt_norm.weight", "visual.prompt_norm.bias"),
    }
    assert len(learning - of_tower) == len(list(net.decoder.parameters()))


def test_inductive_training_asks_for_seen_classes_and_knows_where_others_are(clip, monkeypatch):
    net = made(clip).eval()
    seen = told(monkeypatch, net, batch())
    assert torch.equal(seen["texts"], net.texts[[0, 1, 3]])
    assert seen["labels"].unique().tolist() == [UNSEEN, BACKGROUND, IGNORE, 0, 1, 2]
    assert torch.equal(seen["unseen"], torch.isin(batch()["labels"], torch.tensor([2, 4])))
    assert (seen["labels"][1, :32, 32:] == 2).all(), "the horse is the third of what is asked for"


def test_a_batch_is_asked_for_the_words_of_its_own_set(clip, monkeypatch):
    net = made(clip).eval()
    seen = told(monkeypatch, net, batch(1))
    assert torch.equal(seen["texts"], net.texts[5:])
    assert seen["labels"].unique().tolist() == [IGNORE, 0, 1]
    assert not seen["unseen"].any()


def test_published_losses_do_not_depend_on_which_unseen_class_is_where_but_on_where(clip):
    net = made(clip).eval()
    [one, same, elsewhere] = (net(batch(last=last)) for last in (4, 2, IGNORE))
    assert one == same
    assert one["trusty"] != elsewhere["trusty"]
    assert one["masks"] == elsewhere["masks"], "to the classes' masks they are unlabelled"


def hidden(given: dict) -> dict:
    """As `class_split.hide_unseen` leaves it."""
    labels = given["labels"]
    return given | {"labels": torch.where(torch.isin(labels, torch.tensor([2, 4])), IGNORE, labels)}


def test_strict_training_lets_seen_classes_stand_in(clip, monkeypatch):
    net, drawn = made(clip, STRICT).eval(), []
    for step in range(20):
        torch.manual_seed(step)
        seen = told(monkeypatch, net, hidden(batch()))
        [out] = {0, 1, 3} - {row for row in range(5) if (seen["texts"] == net.texts[row]).all(1).any()}
        assert torch.equal(seen["unseen"], batch()["labels"] == out)
        assert (seen["labels"][seen["unseen"]] == UNSEEN).all()
        assert len(seen["texts"]) == 2
        assert (seen["labels"][0, :, 24:] == IGNORE).all(), "unseen pixels are as those without a label"
        assert not seen["terms"].unlabelled
        drawn.append(out)
    assert set(drawn) == {0, 1, 3}


def test_without_a_trusty_token_nothing_stands_in(clip, monkeypatch):
    sizes = replace(TINY.sizes, learner=False, trusty=False)
    seen = told(monkeypatch, made(clip, STRICT, sizes).eval(), hidden(batch()))
    assert len(seen["texts"]) == 3
    assert list(seen["losses"]) == ["masks", "dice"]


@pytest.mark.parametrize("form", ["code", "paper"])
def test_strict_losses_read_nothing_where_labels_are_hidden(clip, monkeypatch, form):
    """Whatever the masks say there: the logits under such pixels get no gradient."""
    net = made(clip, UnseenHandling(False, True, LossTerms(form, unlabelled=False))).eval()
    seen = told(monkeypatch, net, hidden(batch()))
    logits = seen["logits"].classes, seen["logits"].trusty
    for gradient in torch.autograd.grad(sum(seen["losses"].values()), logits):
        # In the first photo, no pixel near the last two columns of patches has a label.
        assert (gradient[0, ..., 2:] == 0).all()
        assert (gradient[0, ..., :2] != 0).all()


def pseudo_labels_appear(seen: dict, given: dict) -> bool:
    """Whether every pixel of an unseen class is told to be of the unseen class whose mask is highest there."""
    unseen = torch.isin(given["labels"], torch.tensor([2, 4]))
    masks = F.interpolate(seen["logits"].classes[:, [2, 4]], (64, 64), mode="bilinear")
    best = torch.tensor([2, 4])[masks.argmax(1)]
    return torch.equal(seen["labels"], torch.where(unseen, best, given["labels"]))


def test_self_training_writes_pseudo_labels(clip, monkeypatch):
    net = made(clip, SELF_TAUGHT).eval()
    seen = told(monkeypatch, net, batch())
    assert torch.equal(seen["texts"], net.texts[:5]), "all words are asked for"
    assert pseudo_labels_appear(seen, batch())
    assert torch.equal(seen["unseen"], torch.isin(batch()["labels"], torch.tensor([2, 4])))


def test_the_released_codes_mistake_would_be_seen(clip, monkeypatch):
    """There, pixels of unseen classes become unlabelled ones before self-training looks for them."""
    monkeypatch.setattr(
        training, "pseudo_label", lambda logits, labels, seen, strict: torch.where(seen[labels], labels, IGNORE)
    )
    assert not pseudo_labels_appear(told(monkeypatch, made(clip, SELF_TAUGHT).eval(), batch()), batch())


def test_pseudo_labels_teach_unseen_classes(clip, monkeypatch):
    net = made(clip, SELF_TAUGHT).eval()
    seen = told(monkeypatch, net, batch())
    [gradient] = torch.autograd.grad(sum(seen["losses"].values()), seen["logits"].classes)
    # The last column of patches of the first photo: its pixels are of an unseen class.
    found, place = seen["labels"][0, :, 60].mode().values.item(), gradient[0, :, :, 3].sum(1)
    assert found in (2, 4)
    assert place[found] < 0
    assert (place[[0, 1, 3]] > 0).all()


def test_strict_self_training_does_not_know_where_unseen_classes_are(clip, monkeypatch):
    net = made(clip, UnseenHandling(True, True, LossTerms(unlabelled=False))).eval()
    labels = batch()["labels"]
    nowhere = torch.isin(labels, torch.tensor([2, 4, IGNORE]))
    seen = told(monkeypatch, net, batch() | {"labels": torch.where(nowhere, 2, labels)})
    assert len(seen["texts"]) == 5
    assert set(seen["labels"][nowhere].unique().tolist()) <= {2, 4, IGNORE}
    assert torch.equal(seen["labels"][~nowhere], labels[~nowhere])
    assert torch.equal(seen["unseen"], torch.isin(seen["labels"], torch.tensor([2, 4])))


def test_supervised_training_shows_everything(clip, monkeypatch):
    net = made(clip, seen=[torch.ones_like(each) for each in SEEN]).eval()
    seen = told(monkeypatch, net, batch())
    assert torch.equal(seen["labels"], batch()["labels"])
    assert not seen["unseen"].any()
    assert len(seen["texts"]) == 5


def trained(net: TagCLIPTraining, given: dict, steps: int) -> Tensor:
    """The losses of every step (steps, L)."""
    optimizer = torch.optim.AdamW([value for value in net.train().parameters() if value.requires_grad], 2e-3)
    found = []
    for step in range(steps):
        torch.manual_seed(step)
        losses = net(given)
        found.append(torch.stack(list(losses.values())).detach())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    return torch.stack(found)


@pytest.mark.parametrize("plan", [PUBLISHED, UnseenHandling(False, False, LossTerms("paper"))])
def test_masks_and_the_trusty_map_learn(clip, plan):
    found = trained(made(clip, plan), batch(), 60)
    assert (found[-5:].mean(0) < 0.7 * found[:5].mean(0)).all()


def test_the_trusty_map_finds_what_is_not_asked_for_though_no_unseen_pixel_was_told(clip):
    net, given = made(clip, STRICT), hidden(batch())
    masks = trained(net, given, 120)[:, 0]
    assert masks[-5:].mean() < 0.3 * masks[:5].mean()
    net.eval()
    gaps = []
    with torch.inference_mode():
        for left_out in (0, 1, 3):
            asked = net.texts[[row for row in (0, 1, 3) if row != left_out]]
            trusty = net.decoder(net.visual(normalise(given["images"], IMAGENET_MEAN, IMAGENET_STD)), asked).trusty
            probability = F.interpolate(trusty[:, None], (64, 64), mode="bilinear")[:, 0].sigmoid()
            own, known = given["labels"] == left_out, given["labels"] >= 0
            gaps.append((probability[own].mean() - probability[known & ~own].mean()).item())
    assert sum(gaps) / 3 > 0.2


def test_texts_are_those_that_the_reader_makes(clip):
    towers = clip.state_dict()
    del towers["logit_scale"]
    for templates in ("photo", "scenes"):
        reader = ClipWindowEncoder(towers, "tiny", templates, source="tiny")
        words = ["cat", "diningtable", "wall-concrete"]
        torch.testing.assert_close(
            mean_embeddings(embed_words(clip, words, TEMPLATES[templates])), reader.embed_texts(words)
        )


@pytest.mark.parametrize(("learner", "trusty"), [(True, True), (True, False), (False, False)])
def test_the_file_is_taken_apart_again(clip, tmp_path, learner, trusty):
    sizes = replace(TINY.sizes, learner=learner, trusty=trusty)
    net, about = made(clip, sizes=sizes), TrainingInfo(("cat", "dog"), "scenes", seen_penalty=True)
    saving.save_tagclip(RunFolder(tmp_path, {}), clip, net.decoder, sizes, about)
    path = tmp_path / saving.FILE
    assert TrainingInfo.from_json(reading.read_metadata(path)[METADATA_KEY], path.name) == about
    parts = checkpoint.split_checkpoint(reading.read_weights(path))
    assert parts.sizes == sizes
    wanted = clip.state_dict()
    del wanted["logit_scale"]
    for state, known in ((parts.clip, wanted), (parts.decoder, net.decoder.state_dict())):
        assert state.keys() == known.keys()
        assert all(torch.equal(state[name], known[name]) for name in known)
    again, decoder = initial_model.load_trained(path, sizes)
    assert torch.equal(again.visual.deep_prompt_embeddings, clip.visual.deep_prompt_embeddings)
    assert torch.equal(decoder.masks.key.weight, net.decoder.masks.key.weight)


def test_a_trusty_token_may_be_left_out_but_not_made_up(clip, tmp_path):
    sizes, about = TINY.sizes, TrainingInfo(("cat",), "photo", seen_penalty=True)
    saving.save_tagclip(RunFolder(tmp_path, {}), clip, made(clip).decoder, sizes, about)
    less = replace(sizes, trusty=False)
    _, decoder = initial_model.load_trained(tmp_path / saving.FILE, less)
    assert decoder.trusty is None
    saving.save_tagclip(RunFolder(tmp_path, {}), clip, decoder, less, about)
    with pytest.raises(CheckpointError, match=r"tagclip\.safetensors does not fit Decoder: 1 missing \(trusty\)\."):
        initial_model.load_trained(tmp_path / saving.FILE, sizes)


def test_a_plain_clip_is_enlarged_and_gets_fresh_prompts(clip, tmp_path, monkeypatch):
    config = {
        "embed_dim": 64,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
    }
    plain = open_clip.CLIP(**config)
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    monkeypatch.setattr(
        initial_model.open_clip, "get_model_config", lambda name: {**config, "vision_cfg": {**config["vision_cfg"]}}
    )
    monkeypatch.setitem(initial_model.factory.ARCHITECTURES, (64, 16), "ViT-B-16-quickgelu")
    found = initial_model.load_initial_clip(str(tmp_path / "plain.pt"), 3, 0)
    positions = found.visual.positional_embedding
    assert torch.equal(positions, resize_positions(plain.visual.positional_embedding, (32, 32), "bilinear"))
    assert found.visual.prompt_embeddings.shape == (1, 3, 64)
    assert found.visual.deep_prompt_embeddings.shape == (1, 3, 64)
    assert found.visual.prompt_embeddings.std() > 0.01
    again, other = (initial_model.load_initial_clip(str(tmp_path / "plain.pt"), 3, seed) for seed in (0, 1))
    assert torch.equal(found.visual.prompt_proj.weight, again.visual.prompt_proj.weight)
    assert not torch.equal(found.visual.prompt_proj.weight, other.visual.prompt_proj.weight)


@pytest.mark.parametrize("name", ["clip.pt", "tagclip.safetensors"])
def test_another_model_to_begin_with_is_refused(clip, tmp_path, name):
    path = tmp_path / name
    if name == "clip.pt":
        torch.save({"visual.conv1.weight": torch.zeros(1024, 3, 14, 14)}, path)
    else:
        saving.save_tagclip(
            RunFolder(tmp_path, {}), clip, made(clip).decoder, TINY.sizes, TrainingInfo(("cat",), "photo", True)
        )
    with pytest.raises(CheckpointError, match=r"is no CLIP "):
        initial_model.load_initial_clip(str(path), 3, 0)
