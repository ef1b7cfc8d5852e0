import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ovseg_demo import image
from ovseg_demo.errors import Cancelled, ImageError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def encoded(picture: Image.Image, kind: str = "PNG", **settings) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


def halves(width: int = 40, height: int = 20) -> Image.Image:
    """Left red, right blue."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    return picture


def test_a_small_image_is_kept_as_it_is():
    photo = image.load(encoded(halves()))
    assert photo.pixels.dtype == np.uint8
    assert np.array_equal(photo.pixels, np.array(halves()))
    assert photo.original_size == (20, 40)
    assert photo.notes == ()


def test_the_key_follows_the_content():
    same = image.load(encoded(halves(), "PNG")), image.load(encoded(halves(), "BMP"))
    assert same[0].key == same[1].key
    assert same[0].key != image.load(encoded(halves(20, 40))).key


def test_a_large_image_is_bounded_and_its_size_remembered():
    photo = image.load(encoded(halves(3000, 1500), "JPEG"))
    assert photo.pixels.shape == (512, 1024, 3)
    assert photo.original_size == (1500, 3000)


def test_more_pixels_than_the_page_shows_are_kept_for_models_that_resize_photos_themselves():
    photo = image.load(encoded(halves(3000, 1500), "JPEG"))
    assert photo.pixels_for(image.READING_SIDE).shape == (1280, 2560, 3)
    assert photo.pixels_for(image.WORKING_SIDE) is photo.pixels
    assert image.load(encoded(halves(1600, 900))).pixels_for(2560).shape == (900, 1600, 3)
    small = image.load(encoded(halves()))
    assert small.full is None
    assert small.pixels_for(image.READING_SIDE) is small.pixels


def test_a_photo_that_needs_no_bound_for_reading_is_read_as_it_is(random):
    pixels = random.integers(0, 255, (700, 1500, 3), np.uint8)
    assert np.array_equal(image.from_array(pixels).pixels_for(image.READING_SIDE), pixels)


def test_results_can_be_asked_for_at_the_size_that_models_read():
    photo = image.load(encoded(halves(3000, 1500), "JPEG"), image.READING_SIDE)
    assert photo.pixels.shape == (1280, 2560, 3)
    assert photo.full is None
    assert photo.original_size == (1500, 3000)
    assert image.load(encoded(halves()), image.READING_SIDE).pixels.shape == (20, 40, 3)


def test_the_key_distinguishes_sizes_and_what_only_the_larger_size_shows():
    pixels = np.zeros((1100, 2200, 3), np.uint8)
    one = image.from_array(pixels)
    assert one.key == image.from_array(pixels).key
    assert one.key != image.from_array(pixels, image.READING_SIDE).key
    pixels[5, 5] = 3
    assert np.array_equal(image.from_array(pixels).pixels, one.pixels)
    assert image.from_array(pixels).key != one.key
    assert len({image.from_array(np.zeros(size, np.uint8)).key for size in [(2, 8, 3), (8, 2, 3), (4, 4, 3)]}) == 3


def test_a_sliver_keeps_at_least_one_pixel():
    assert image.load(encoded(Image.new("RGB", (5000, 1)))).pixels.shape == (1, 1024, 3)


def test_one_pixel():
    assert image.load(encoded(Image.new("RGB", (1, 1), RED))).pixels.tolist() == [[list(RED)]]


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation_is_applied(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    upright = Image.new("RGB", (40, 20), RED)
    upright.paste(BLUE, (0, 0, 10, 10))  # top left
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[turn]) if turn in undo else upright
    photo = image.load(encoded(stored, exif=exif))
    assert np.array_equal(photo.pixels, np.array(upright))
    assert photo.original_size == (20, 40)


def test_a_large_rotated_jpeg_tells_its_upright_size():
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = image.load(encoded(halves(4000, 3000), "JPEG", exif=exif))
    assert photo.original_size == (4000, 3000)
    assert photo.pixels.shape == (1024, 768, 3)


def test_a_nearly_square_rotated_jpeg_tells_its_upright_size():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert image.load(encoded(halves(4096, 4095), "JPEG", exif=exif)).original_size == (4096, 4095)


def test_alpha_lies_over_white():
    picture = Image.new("RGBA", (2, 1), (*RED, 255))
    picture.putpixel((1, 0), (*RED, 0))
    assert image.load(encoded(picture)).pixels.tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_palette_grey_bilevel_and_cmyk():
    assert np.array_equal(image.load(encoded(halves().quantize(4))).pixels, np.array(halves()))
    transparent = halves().quantize(4)
    transparent.info["transparency"] = transparent.getpixel((0, 0))
    assert image.load(encoded(transparent)).pixels[0, 0].tolist() == [255, 255, 255]
    assert image.load(encoded(Image.new("L", (2, 2), 77))).pixels.tolist() == [[[77] * 3] * 2] * 2
    assert image.load(encoded(Image.new("LA", (2, 2), (77, 255)))).pixels[0, 0].tolist() == [77] * 3
    assert image.load(encoded(Image.new("1", (2, 2), 1))).pixels[0, 0].tolist() == [255] * 3
    cmyk = image.load(encoded(halves().convert("CMYK"), "JPEG", quality=100)).pixels
    assert np.abs(cmyk.astype(int) - np.array(halves())).mean() < 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_samples_keep_their_range(kind):
    ramp = Image.fromarray(np.array([[0, 32768, 65535]], np.uint16))
    assert image.load(encoded(ramp, kind)).pixels[0, :, 0].tolist() == [0, 128, 255]


def test_float_samples():
    ramp = Image.fromarray(np.array([[0, 0.5, 1]], np.float32))
    assert image.load(encoded(ramp, "TIFF")).pixels[0, :, 0].tolist() == [0, 128, 255]
    flat = Image.fromarray(np.full((1, 2), -7, np.float32))
    assert image.load(encoded(flat, "TIFF")).pixels.tolist() == [[[0] * 3] * 2]
    broken = Image.fromarray(np.array([[np.nan, -4, 4]], np.float32))
    assert image.load(encoded(broken, "TIFF")).pixels[0, :, 0].tolist() == [128, 0, 255]


def test_an_animation_gives_its_first_frame_and_says_so():
    frames = [Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), BLUE)]
    photo = image.load(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert photo.pixels[0, 0].tolist() == list(RED)
    assert photo.notes == ("Only the first of several frames or pages is used.",)


@pytest.mark.parametrize("content", [b"", b"hello", b"%PDF-1.7", b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_what_is_no_image_is_refused(content):
    with pytest.raises(ImageError, match="not an image"):
        image.load(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "AVIF"])
def test_flipped_bytes_never_escape_as_another_error(random, kind):
    content = encoded(Image.fromarray(random.integers(0, 255, (24, 24, 3), np.uint8)), kind)
    for _ in range(60):
        broken = bytearray(content)
        for place in random.integers(0, len(broken), 4):
            broken[place] = random.integers(256)
        try:
            image.load(bytes(broken))
        except ImageError as error:
            assert str(error).count("\n") == 0  # noqa: PT017  either outcome is right


@pytest.mark.parametrize(("kind", "kept"), [("PNG", 0.5), ("JPEG", 0.4), ("GIF", 0.3), ("BMP", 0.5), ("WEBP", 0.6)])
def test_a_truncated_image_is_refused(random, kind, kept):
    content = encoded(Image.fromarray(random.integers(0, 255, (64, 64, 3), np.uint8)), kind)
    with pytest.raises(ImageError, match=r"corrupt or incomplete|not an image"):
        image.load(content[: int(len(content) * kept)])


def test_too_many_pixels_are_refused_before_decoding():
    wide = Image.new("1", (13000, 10000))
    with pytest.raises(ImageError, match="130 megapixels"):
        image.load(encoded(wide))
    with pytest.raises(ImageError, match="limit is 120 megapixels"):
        image.load(encoded(Image.new("1", (20000, 20000))))


def test_a_hundred_megapixels_are_accepted():
    photo = image.load(encoded(Image.new("L", (10000, 10000), 9), "JPEG"))
    assert photo.original_size == (10000, 10000)
    assert photo.pixels.shape == (1024, 1024, 3)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ImageError, match="no file"):
        image.load(tmp_path / "absent.jpg")
    with pytest.raises(ImageError, match="folder"):
        image.load(tmp_path)


@pytest.mark.parametrize("pixels", [np.zeros((2, 2)), np.zeros((2, 2, 3)), np.zeros((0, 2, 3), np.uint8)])
def test_arrays_of_another_kind_are_refused(pixels):
    with pytest.raises(ImageError, match="Expected RGB"):
        image.from_array(pixels)


def test_arrays_and_files_agree():
    assert image.from_array(np.array(halves())).key == image.load(encoded(halves())).key


@pytest.mark.parametrize("kind", ["TIFF", "JPEG", "PNG"])
@pytest.mark.parametrize("turn", range(12))
def test_only_orientations_five_to_eight_swap_the_sides(kind, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    photo = image.load(encoded(halves(), kind, exif=exif))
    assert photo.original_size == ((40, 20) if 5 <= turn <= 8 else (20, 40)) == photo.pixels.shape[:2]


@pytest.mark.parametrize(("kind", "value"), [(1, b"\x06"), (2, b"6\0"), (7, b"\x06"), (2, b"up\0"), (1, b"\x63")])
def test_an_orientation_of_another_type_is_read_or_ignored(kind, value):
    tag = struct.pack("<HHHI4s", 1, 0x0112, kind, len(value), value)
    content = encoded(halves(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + tag + b"\0" * 4)
    assert image.load(content).original_size == ((40, 20) if value[:1] in b"\x066" else (20, 40))


@given(extra=st.integers(101, 500), side=st.integers(1, 16))
def test_a_jpeg_of_too_many_scans_is_refused(extra, side):
    content = encoded(Image.new("RGB", (side, side), RED), "JPEG", progressive=True)
    image.load(content)
    scan = content[content.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match="too many scans"):
        image.load(content[:-2] + scan * extra + b"\xff\xd9")


@given(st.binary(max_size=40), st.sampled_from(["GIF", "PNG", "TIFF", "JPEG", "WEBP", "AVIF", "BMP"]), st.data())
def test_inserted_bytes_end_in_a_photo_or_one_sentence(inserted, kind, data):
    content = encoded(halves(8, 8), kind)
    place = data.draw(st.integers(0, len(content)))
    try:
        image.load(content[:place] + inserted + content[place:])
    except ImageError as error:
        assert str(error).endswith(".")  # noqa: PT017  either outcome is right
        assert "\n" not in str(error)  # noqa: PT017


def test_a_photo_of_endless_metadata_is_refused_in_time_and_can_be_cancelled(monkeypatch):
    def cancel():
        raise Cancelled

    content = encoded(halves(), "GIF")
    at = content.index(b",")
    content = content[:at] + b"!\xfe" + b"\x01c" * 1000 + b"\0" + content[at:]
    assert image.load(content).original_size == (20, 40)
    monkeypatch.setattr(image, "_CHECK_SECONDS", 0)
    with pytest.raises(Cancelled):
        image.load(content, check=cancel)
    monkeypatch.setattr(image, "DECODING_SECONDS", 0)
    with pytest.raises(ImageError, match="more than 0 seconds"):
        image.load(content)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_bands_give_what_resizing_the_whole_image_gives(monkeypatch, random, mode):
    whole = Image.fromarray(random.integers(0, 255, (301, 97, 4), np.uint8), "RGBA").convert(mode)
    expected = image.load(encoded(whole), 64).pixels.astype(int)
    monkeypatch.setattr(image, "_BAND_PIXELS", 97 * 40)
    assert np.abs(image.load(encoded(whole), 64).pixels - expected).max() <= 1


def test_formats_whose_decoders_take_much_memory_have_a_lower_limit():
    scanned = encoded(Image.new("1", (10000, 7000)), "TIFF", compression="group4")
    with pytest.raises(ImageError, match="limit for TIFF is 60 megapixels"):
        image.load(scanned)
