"""Every oddity a folder of images can hold gives the right pixels or an error that names it."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, features

from adapterbank.data.images import (
    MAX_PIXELS,
    load_pixels,
    normalise,
    open_image,
    to_pixels,
)
from adapterbank.data.modes import to_rgb
from adapterbank.errors import ImageError, InputError, UnknownName
from adapterbank.records import InputSpec

SPEC = InputSpec(size=(20, 28))
RED, WHITE = (255, 0, 0), (255, 255, 255)
Pixel = tuple[int, int, int]


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixel(image: Image.Image, x: int = 0, y: int = 0) -> Pixel:
    red, green, blue = np.asarray(image)[y, x].tolist()
    return red, green, blue


def quadrants(width: int = 64, height: int = 32) -> Image.Image:
    """Only its top left quarter is bright."""
    image = Image.new("RGB", (width, height), (10, 10, 10))
    ImageDraw.Draw(image).rectangle((0, 0, width // 2 - 1, height // 2 - 1), fill=(240, 240, 240))
    return image


# --- modes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "colour"),
    [
        ("L", 200),
        ("1", 1),
        ("RGB", (200, 100, 50)),
        ("CMYK", (0, 255, 255, 0)),
        ("YCbCr", (9, 9, 9)),
    ],
)
@pytest.mark.parametrize("form", ["TIFF", "JPEG"])
def test_any_mode_becomes_rgb(mode: str, colour: int | tuple[int, ...], form: str) -> None:
    image = open_image(encoded(Image.new(mode, (8, 8), colour), form))
    assert (image.mode, image.size) == ("RGB", (8, 8))


def test_cmyk_jpeg_keeps_its_colour() -> None:
    image = open_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    # JPEG's own loss is below 8 of 255.
    assert np.abs(np.subtract(pixel(image), RED)).max() < 8


def test_lab_tiff_becomes_its_colour() -> None:
    image = open_image(encoded(Image.new("LAB", (8, 8), (255, 128, 128)), "TIFF"))
    # L=100 without chroma is white; the profile's rounding is below 4 of 255.
    assert min(pixel(image)) > 251


@given(value=st.integers(0, 65535))
def test_sixteen_bit_grey_is_scaled_not_clipped(value: int) -> None:
    grey = Image.fromarray(np.full((3, 3), value, dtype=np.uint16))
    assert pixel(open_image(encoded(grey))) == (round(value / 257),) * 3


def test_floating_point_grey_within_one_spans_black_to_white() -> None:
    grey = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    assert np.asarray(open_image(encoded(grey, "TIFF")))[0, :, 0].tolist() == [0, 128, 255]


def test_missing_values_of_a_floating_point_image_are_black() -> None:
    grey = Image.fromarray(np.array([[np.nan, -np.inf, 300.0, np.inf, 100.0]], dtype=np.float32))
    assert np.asarray(open_image(encoded(grey, "TIFF")))[0, :, 0].tolist() == [0, 0, 255, 255, 0]


def test_a_signalling_nan_does_not_warn() -> None:
    grey = Image.fromarray(np.array([[0x7F800001, 0]], dtype=np.uint32).view(np.float32))
    assert pixel(open_image(encoded(grey, "TIFF"))) == (0, 0, 0)


@pytest.mark.parametrize("value", [300.0, -1.0, np.nan])
def test_a_floating_point_image_of_one_strange_value_is_black(value: float) -> None:
    grey = Image.fromarray(np.full((2, 2), value, dtype=np.float32))
    assert pixel(open_image(encoded(grey, "TIFF"))) == (0, 0, 0)


def test_counts_beyond_sixteen_bits_span_their_own_range() -> None:
    counts = Image.fromarray(np.array([[100_000, 150_000, 200_000]], dtype=np.int32))
    assert np.asarray(open_image(encoded(counts, "TIFF")))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("mode", "clear"), [("RGBA", (0, 0, 0, 0)), ("LA", (0, 0)), ("PA", (0, 0))], ids=str
)
def test_transparency_is_composited_on_white(mode: str, clear: tuple[int, ...]) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert("LA") if mode == "PA" else None
    image = Image.new(mode, (4, 4), clear) if image is None else image
    assert pixel(open_image(encoded(image))) == WHITE


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"], ids=["index", "bytes"])
def test_palette_transparency_is_composited_on_white(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((1, 0), 1)
    found = open_image(encoded(image, transparency=transparency))
    assert (pixel(found, 0), pixel(found, 1)) == (WHITE, RED)


def test_half_transparent_black_is_grey() -> None:
    assert pixel(open_image(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 128))))) == (127,) * 3


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert pixel(open_image(data)) == RED


# --- orientation and size ----------------------------------------------------------------------


# What a camera held so would store: the inverse of the turn that a reader applies.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
HOLDING = {  # what each format can store of an upright picture, and how
    "JPEG": (("RGB", "L", "CMYK"), {}),
    "PNG": (("RGB", "L", "P", "RGBA", "LA", "I;16", "1"), {}),
    "WEBP": (("RGB", "RGBA"), {"lossless": True}),
    "TIFF": (("RGB", "L", "P", "RGBA", "LA", "CMYK", "I;16", "I;16B", "F", "1"), {}),
    "TIFF by LZW": (("RGB", "L", "P", "CMYK", "I;16", "1"), {"compression": "tiff_lzw"}),
    "TIFF by JPEG": (("RGB", "L"), {"compression": "jpeg"}),
    "AVIF": (("RGB",), {}),
}
HELD = [
    pytest.param(form.split(" by")[0], mode, options, id=f"{form}-{mode}")
    for form, (modes, options) in HOLDING.items()
    for mode in modes
    if form != "AVIF" or features.check("avif")
]


def in_mode(picture: Image.Image, mode: str) -> Image.Image:
    """Say the same greys in another mode, so that reading gives the picture back."""
    if mode.startswith("I;16"):
        values = np.asarray(picture.convert("L"), dtype=np.uint16) * 257
        return Image.fromarray(values.astype(">u2" if mode == "I;16B" else "<u2"))
    if mode == "F":
        return Image.fromarray(np.asarray(picture.convert("L"), dtype=np.float32) / 255)
    return picture.convert(mode)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("form", "mode", "options"), HELD)
def test_every_format_and_mode_is_turned_upright(
    orientation: int, form: str, mode: str, options: dict[str, object]
) -> None:
    # White and black, which every mode can say: black on top left.
    upright = Image.new("RGB", (64, 32), WHITE)
    ImageDraw.Draw(upright).rectangle((0, 0, 31, 15), fill=(0, 0, 0))
    stored = in_mode(upright, mode)
    stored = stored.transpose(STORED[orientation]) if orientation in STORED else stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, form, exif=exif, **options)
    found = open_image(data)
    assert (found.mode, found.size) == ("RGB", (64, 32))
    reference = np.asarray(upright, dtype=int)
    assert np.abs(np.asarray(found, dtype=int) - reference).mean() < 3  # JPEG rings at the edges
    squashed = load_pixels(data, InputSpec(size=(16, 32))).permute(1, 2, 0).numpy()
    # Half of each side: away from the edges all four pixels of one are alike.
    assert np.abs(squashed.astype(int) - reference[::2, ::2]).mean() < 6
    assert found.getexif().get(0x0112, 1) == 1  # nobody turns it again


@pytest.mark.parametrize("value", [0, 9, 4711])
def test_an_unknown_orientation_leaves_the_image_as_it_is(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert open_image(encoded(quadrants(), exif=exif)).size == (64, 32)


def test_a_broken_exif_block_does_not_spoil_the_image() -> None:
    data = encoded(quadrants(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage")
    assert open_image(data).size == (64, 32)


@pytest.mark.parametrize("orientation", [1, 2, 6, 8])
@pytest.mark.parametrize("size", [(1200, 900), (1203, 901), (37, 901)], ids=str)
def test_pixels_of_a_large_jpeg_are_those_of_its_full_decoding(
    orientation: int, size: tuple[int, int]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    data = encoded(photo, "JPEG", quality=95, exif=exif)
    small, full = load_pixels(data, SPEC), to_pixels(open_image(data), SPEC)
    # Of 255: the DCT's own shrinking is close to, not the same as, a bicubic filter.
    assert (small.float() - full.float()).abs().mean() < 1


def test_a_large_jpeg_is_decoded_at_reduced_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("RGB", (3200, 1600)), "JPEG")
    sizes: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def spy(self: Image.Image, size: tuple[int, int], *args: object, **options: object) -> object:
        sizes.append(self.size)
        return resize(self, size, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", spy)
    load_pixels(data, SPEC)
    assert sizes == [(400, 200)]


# --- what cannot be used -----------------------------------------------------------------------


def truncated() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")
    return data[: len(data) // 2]


def bomb() -> bytes:
    """Claim more pixels than are allowed in the header of a small PNG."""
    data = encoded(Image.new("1", (1, 1)))
    header = b"IHDR" + struct.pack(">II", 20_000, 1 + MAX_PIXELS // 20_000) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (bytes, "empty"),
        (lambda: b"this is no image at all", "not an image"),
        (truncated, "truncated"),
        (bomb, "pixels"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not an image"),
    ],
    ids=["zero bytes", "text", "truncated", "bomb", "postscript"],
)
def test_an_unusable_file_is_named_with_the_reason(
    tmp_path: Path, make: Callable[[], bytes], reason: str
) -> None:
    path = tmp_path / "odd.jpg"
    path.write_bytes(make())
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert caught.value.path == str(path)
    assert reason in caught.value.reason


def test_the_size_limit_holds_when_pils_own_is_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = bomb()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="are allowed"):
        open_image(data, name="bomb.png")


def test_a_format_that_this_pil_has_not_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    assert open_image(encoded(quadrants())).size == (64, 32)


@pytest.mark.parametrize(("name", "reason"), [("", "not a file"), ("gone.png", "not exist")])
def test_a_path_that_is_no_file_is_named(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        open_image(tmp_path / name)


def test_bytes_are_called_by_the_given_name() -> None:
    with pytest.raises(ImageError, match=r"^standard input: "):
        open_image(b"?", name="standard input")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_bytes_give_an_image_or_an_image_error(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA"]))
    damaged = bytearray(encoded(quadrants(16, 8), form))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(damaged)))
    with contextlib.suppress(ImageError):
        assert open_image(bytes(damaged[:cut])).mode == "RGB"


def test_no_warning_of_pil_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        open_image(encoded(Image.new("L", (12, 12))))
    assert seen == []


def test_warning_filters_survive_decoding_in_many_threads() -> None:
    before = list(warnings.filters)
    data = encoded(quadrants())
    threads = [
        threading.Thread(target=lambda: [open_image(data) for _ in range(20)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


# --- pixels ------------------------------------------------------------------------------------


def test_pixels_are_squashed_to_height_and_width_ignoring_aspect() -> None:
    pixels = to_pixels(quadrants(64, 32), SPEC)
    assert (pixels.dtype, tuple(pixels.shape)) == (torch.uint8, (3, 20, 28))
    assert pixels.is_contiguous()
    assert pixels[:, 2, 2].tolist() == [240] * 3
    assert pixels[:, 17, 25].tolist() == [10] * 3


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    pixels = to_pixels(Image.fromarray(stripes), InputSpec(size=(8, 8))).float()
    # One-pixel stripes average to mid grey; sampling without a filter would give black or white.
    assert (pixels[:, 1:-1, 1:-1] - 127.5).abs().max() < 4


def test_an_image_of_the_right_size_keeps_its_pixels() -> None:
    exact = np.random.default_rng(0).integers(0, 256, (20, 28, 3), dtype=np.uint8)
    assert np.array_equal(to_pixels(Image.fromarray(exact), SPEC).permute(1, 2, 0), exact)


def test_an_unknown_interpolation_lists_the_known() -> None:
    with pytest.raises(UnknownName, match="'bicubic'"):
        to_pixels(quadrants(), InputSpec(size=(8, 8), interpolation="bicubik"))


def test_normalised_pixels_are_standardised_by_channel() -> None:
    spec = InputSpec(size=(2, 2), mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 2.0))
    found = normalise(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8), spec)
    assert found.dtype == torch.float32
    assert found[0, :, 0, 0].tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(1, 3, 20, 28),
        torch.zeros(3, 20, 28, dtype=torch.uint8),
        torch.zeros(1, 3, 28, 20, dtype=torch.uint8),
    ],
    ids=["float", "no batch", "turned"],
)
def test_normalise_refuses_other_pixels(pixels: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"expected torch\.uint8 of shape \(B, 3, 20, 28\)"):
        normalise(pixels, SPEC)


class Tracked:
    """Adds up the bytes of images that threads decode at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
        self._lock, self._at_once, self.most = threading.Lock(), 0, 0
        monkeypatch.setattr("adapterbank.data.images.MAX_BYTES", limit)
        monkeypatch.setattr("adapterbank.data.images.to_rgb", self._to_rgb)

    def _to_rgb(self, image: Image.Image, shrink: tuple[int, int] = (1, 1)) -> Image.Image:
        size_bytes = 4 * image.width * image.height
        with self._lock:
            self._at_once += size_bytes
            self.most = max(self.most, self._at_once)
        time.sleep(0.005)  # others would come in
        with self._lock:
            self._at_once -= size_bytes
        return to_rgb(image, shrink)


def test_images_that_are_decoded_at_once_share_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    tracked = Tracked(monkeypatch, 8 * 30 * 30)
    sides = [30, 10, 20, 25, 30, 5, 20] * 4
    files = [encoded(Image.new("RGB", (side, side))) for side in sides]
    opened = [Image.open(BytesIO(file)) for file in files]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda file: load_pixels(file, SPEC), files))
        list(pool.map(lambda image: to_pixels(image, SPEC), opened))
    assert 0 < tracked.most <= 8 * 30 * 30


@pytest.mark.parametrize(
    ("form", "options", "bytes_a_pixel"),
    [
        ("PNG", {}, 8),
        ("JPEG", {}, 8),
        ("JPEG", {"progressive": True}, 16),
        ("TIFF", {}, 12),
        ("TIFF", {"exif": {0x0112: 6}}, 16),  # PIL turns it into a second picture
        ("WEBP", {}, 20),
        ("ICO", {}, 1000),  # holds a PNG of any size, whatever its header says: nothing beside it
    ],
)
def test_an_image_that_would_take_more_than_the_budget_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, form: str, options: dict[str, Any], bytes_a_pixel: int
) -> None:
    exif = Image.Exif()
    exif.update(options.pop("exif", {}))
    data = encoded(Image.new("RGB", (32, 32)), form, exif=exif, **options)
    monkeypatch.setattr("adapterbank.data.images.MAX_BYTES", bytes_a_pixel * 32 * 32)
    assert load_pixels(data, SPEC).shape == (3, *SPEC.size)
    if form != "ICO":
        monkeypatch.setattr("adapterbank.data.images.MAX_BYTES", bytes_a_pixel * 32 * 32 - 1)
        monkeypatch.setattr(Image.Image, "load", None)
        with pytest.raises(ImageError, match=r"32 x 32 pixels, which take .* MiB to decode"):
            load_pixels(data, SPEC)


@pytest.mark.parametrize("size", [(640, 480), (641, 487), (2000, 41)], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "I;16", "CMYK"])
def test_an_image_too_large_to_convert_at_once_gives_nearly_the_same_pixels(
    monkeypatch: pytest.MonkeyPatch, mode: str, size: tuple[int, int]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    data = encoded(in_mode(photo, mode), "TIFF")
    exact = load_pixels(data, SPEC)
    monkeypatch.setattr("adapterbank.data.modes._BAND", 5000)
    assert torch.equal(load_pixels(data, SPEC), exact)  # by bands alone: to the bit
    monkeypatch.setattr("adapterbank.data.images._EXACT_PIXELS", 5000)
    # Of 255: a box average first is close to, not the same as, one bicubic filter.
    assert (load_pixels(data, SPEC).float() - exact.float()).abs().mean() < 1.5


def test_an_image_that_fails_makes_room_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    Tracked(monkeypatch, 8 * 30 * 30)
    whole = encoded(Image.effect_noise((30, 30), 50))
    for _ in range(3):
        with pytest.raises(ImageError):
            load_pixels(whole[:-100], SPEC)
    assert load_pixels(whole, SPEC).shape == (3, *SPEC.size)


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_threads_may_be_given_the_same_image_before_it_is_decoded(form: str) -> None:
    stored = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stored, form)
    spec = InputSpec(size=(32, 32))
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            image = Image.open(BytesIO(stored.getvalue()))
            first, *others = pool.map(lambda _: to_pixels(image, spec), range(8))  # noqa: B023
            assert all(pixels.equal(first) for pixels in others)
