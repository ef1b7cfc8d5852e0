"""The model of MROVSeg: shapes under every setting, what is trained, settings and files."""

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.mrovseg import checkpoint
from ovseg_demo.methods.mrovseg.model import Prediction
from ovseg_demo.methods.mrovseg.settings import SETTINGS, MROVSegSettings
from ovseg_demo.methods.mrovseg.slices import Slicing, pad_to_slices
from tests.helpers import mrovseg_models
from tests.helpers.mrovseg_models import EMBEDDING, PATCH

CHANGES = [
    {},
    {"slice_ratio": 0.75},
    {"slice_ratio": 1.0},
    {"adapter_positions": "first block"},
    {"adapter_positions": "none"},
    {"fusion_norm": "both", "attention_source": "high", "fusion_kernel": 5},
    {"fusion_norm": "none"},
    {"biases_per_block": True},
    {"keys_advance": False},
    {"self_key": True},
    {"class_token": "mean"},
    {"freeze_positions": False},
    {"adapter": False},
    {"fusion": False},
    {"masked_attention": False},
    {"single_resolution": True},
    {"single_resolution": True, "slice_ratio": 1.0},
]


@pytest.fixture(scope="module", autouse=True)
def _architecture(tmp_path_factory):
    mrovseg_models.register(tmp_path_factory.mktemp("architecture"))


@pytest.mark.parametrize("changed", CHANGES, ids=str)
def test_every_setting_gives_masks_and_embeddings_and_trains_all_that_is_not_frozen(changed):
    model = mrovseg_models.build(**changed)
    pixels = pad_to_slices(mrovseg_models.pixels(60, 90), PATCH)
    found = model(pixels)
    coarse = 0.5 if changed == {"single_resolution": True} else 1
    size = (int(4 * coarse * 64 / PATCH), int(4 * coarse * 96 / PATCH))
    assert found.masks.shape == (2, 5, *size)
    assert found.embeddings.shape == (2, 5, EMBEDDING)
    torch.testing.assert_close(found.embeddings.norm(dim=-1), torch.ones(2, 5))
    assert found.scale_attention.shape[:2] == (
        2,
        4 if model.settings.fusion and not model.settings.single_resolution else 0,
    )
    assert found.auxiliary == ()

    model.train()
    found = model(pixels)
    (earlier,) = found.auxiliary
    assert earlier.masks.shape == found.masks.shape
    logits = model.class_logits(found.embeddings, torch.eye(3, EMBEDDING))
    assert logits.shape == (2, 5, 4)
    (found.masks.mean() + logits.square().mean() + earlier.masks.mean() + earlier.embeddings.sum()).backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == set(checkpoint.trained_tensors(model))


@pytest.fixture(scope="module")
def plain() -> tuple[dict[str, Tensor], Prediction]:
    """The parameters and the output of the model whose settings are not changed."""
    model = mrovseg_models.build()
    with torch.inference_mode():
        return model.state_dict(), model(mrovseg_models.pixels())


@pytest.mark.parametrize("changed", [each for each in CHANGES[1:] if each != {"freeze_positions": False}], ids=str)
def test_no_setting_of_inference_leaves_the_output_as_it_is(plain, changed):
    """On equal parameters, where the shapes are equal."""
    state, expected = plain
    model = mrovseg_models.build(**changed)
    own = model.state_dict()
    model.load_state_dict({n: v for n, v in state.items() if n in own and own[n].shape == v.shape}, strict=False)
    with torch.inference_mode():
        found = model(mrovseg_models.pixels())
    assert found.masks.shape != expected.masks.shape or not torch.equal(found.embeddings, expected.embeddings)


def test_features_can_be_kept():
    """Decoding kept features gives what the whole model gives."""
    model, pixels = mrovseg_models.build(), mrovseg_models.pixels()
    features = model.features(pixels)
    assert not features.class_token.requires_grad
    assert features.nbytes == features.class_token.nbytes + sum(
        each.nbytes for maps in (features.low, features.high) for each in maps.values()
    )
    torch.testing.assert_close(model.decode(features).masks, model(pixels).masks, rtol=0, atol=0)


def test_a_photo_of_a_batch_is_read_as_alone():
    model, pixels = mrovseg_models.build(), mrovseg_models.pixels(48, 64)
    with torch.inference_mode():
        together, alone = model(pixels), model(pixels[1:])
    torch.testing.assert_close(together.masks[1:], alone.masks, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.embeddings[1:], alone.embeddings, rtol=1e-4, atol=1e-5)


def test_photos_must_be_padded():
    with pytest.raises(ValueError, match="60 x 90 pixels must be padded to multiples of 16"):
        mrovseg_models.build().features(torch.zeros(1, 3, 60, 90))
    padded = pad_to_slices(torch.ones(1, 3, 60, 90), PATCH)
    assert padded.shape == (1, 3, 64, 96)
    assert padded[..., :60, :90].all()
    assert padded.sum() == 3 * 60 * 90


def test_overlapping_slices_are_averaged():
    slicing = Slicing.of((64, 64), PATCH, 0.75)
    assert slicing.corners == ((0, 0), (0, 16), (16, 0), (16, 16))
    ones = [torch.full((1, 6, 6, 1), float(number)) for number in (1, 2, 3, 6)]
    whole = slicing.tile(ones)[0, ..., 0]
    assert whole[[0, 0, 7, 7], [0, 7, 0, 7]].tolist() == [1, 2, 3, 6]
    assert whole[[0, 3], [3, 3]].tolist() == [1.5, 3]


@pytest.mark.parametrize("name", SETTINGS)
def test_published_settings_survive_json(name):
    assert MROVSegSettings.from_json(SETTINGS[name].to_json()) == SETTINGS[name]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fusion_points": (0, 1)}, "4 fusion layers need as many fusion points, not 2"),
        ({"fusion_points": (0, 1, 2, 4)}, "none of them is 4"),
        ({"auxiliary_blocks": (3,)}, "between 1 and 2"),
        ({"pyramid_layers": (0, 1, 3)}, "layer 3, which is no fusion layer"),
        ({"slice_ratio": 0.4}, "between 0.5 and 1"),
        ({"fusion_kernel": 4}, "odd side"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        mrovseg_models.build(**changed)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[]", "no settings"), ('{"width": 3}', "no settings"), ("{}", "are missing"), ("no", "Expecting value")],
)
def test_other_text_is_no_settings(text, message):
    with pytest.raises(ValueError, match=message):
        MROVSegSettings.from_json(text)


def test_a_trained_file_is_read_back(tmp_path):
    clip = mrovseg_models.clip_state()
    model, path = mrovseg_models.build(seed=1, freeze_positions=False), tmp_path / "own.safetensors"
    save_file(checkpoint.trained_tensors(model), path, checkpoint.file_metadata(model.settings, clip))
    settings = checkpoint.read_settings(path)
    checkpoint.check_clip(path, clip, "the CLIP")
    again = checkpoint.build_mrovseg(clip, settings, "the CLIP")[1]
    checkpoint.load_trained(again, checkpoint.trained_tensors(model), path.name)
    assert settings == model.settings
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())

    with pytest.raises(CheckpointError, match="was trained on another CLIP than the CLIP"):
        checkpoint.check_clip(path, {**clip, "visual.proj": clip["visual.proj"] + 1}, "the CLIP")
    with pytest.raises(CheckpointError, match="1 unexpected"):
        checkpoint.load_trained(again, {**checkpoint.trained_tensors(model), "more": torch.zeros(1)}, path.name)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="does not say how it was trained"):
        checkpoint.read_settings(path)
