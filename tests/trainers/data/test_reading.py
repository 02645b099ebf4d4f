"""Squares read at training time: the same on any number of threads, close to a full decode."""

import io
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainers.config import DataConfig
from trainers.data import decode, gpu_decode, image_set, ingest
from trainers.data.cut import Images
from trainers.data.decode import UnreadableImage, decode_square
from trainers.data.gpu_decode import decode_on
from trainers.data.image_set import open_images
from trainers.data.sources.grammar import open_source
from trainers.system.memory import is_out_of_memory
from trainers.system.storage import locate

CPU = torch.device("cpu")


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_square_is_the_whole_image_resampled(form):
    one = encoded(smooth(60, 40), form)
    expected = decode.decode(one).resize((16, 16), Image.Resampling.BILINEAR)
    # Both in integers, rounded once an axis: to within one level.
    found = decode_square(one, 16).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(found - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("size", [(64, 64), (65, 400), (700, 500)])
def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(monkeypatch, size):
    one = encoded(smooth(*size), "JPEG", quality=95)
    quick = decode_square(one, 16)
    assert torch.equal(decode_square(one, 16), quick)
    monkeypatch.setattr(decode, "DRAFT", 10**6)
    whole = decode_square(one, 16)
    assert not torch.equal(quick, whole)
    assert (quick.double() - whole.double()).abs().mean() < 5  # of a contrast of 255


def test_a_jpeg_on_its_side_is_turned_also_when_decoded_smaller():
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = encoded(smooth(400, 200).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)
    upright = encoded(smooth(400, 200), "JPEG")
    apart = decode_square(stored, 16).double() - decode_square(upright, 16).double()
    assert apart.abs().mean() < 3


def test_a_square_of_a_truncated_image_is_refused():
    with pytest.raises(UnreadableImage, match="runcated"):
        decode_square(encoded(smooth(60, 40), "JPEG")[:-100], 16)


@pytest.fixture
def photographs(tmp_path: Path) -> str:
    """A set of forty JPEG and PNG files."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(40):
        form = ("jpg", "png")[number % 2]
        smooth(30 + number, 50, number).save(folder / f"{number:02d}.{form}")
    ingest.ingest(open_source(str(folder)), locate(f"{tmp_path}/set"))
    return f"{tmp_path}/set"


@pytest.mark.parametrize("side", [0, 8])
def test_pixels_do_not_depend_on_threads_batches_or_what_is_kept(photographs, monkeypatch, side):
    config = DataConfig(source=photographs, image_size=side)
    places = torch.arange(40).flip(0)
    kept = open_images(config, None).pixels(places)
    monkeypatch.setattr(image_set, "KEPT_BYTES", 0)
    images = open_images(config, None)
    for threads in (1, 2, 7):
        monkeypatch.setattr(image_set, "decoding_threads", lambda _device, threads=threads: threads)
        parts = [image for part in places.split(3) for image in images.pixels(part)]
        for found in (images.pixels(places), parts):
            assert all(torch.equal(one, other) for one, other in zip(found, kept, strict=True))
    assert images._kept is None


@pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")
@pytest.mark.parametrize("side", [0, 8, 80])
def test_a_batched_decode_agrees_with_one_by_one(photographs, monkeypatch, side):
    # On the CPU: what a CUDA device does differently is only the decoder.
    monkeypatch.setattr(image_set, "KEPT_BYTES", 0)
    images = open_images(DataConfig(source=photographs, image_size=side), None)
    places = [3, 0, 2, 39, 38]
    batched = decode_on(CPU, places, images._read, images._at, side)
    single = images.pixels(torch.tensor(places))
    assert len(batched) == 5
    assert {tuple(one.shape) for one in batched} == {tuple(one.shape) for one in single}
    for row, (one, other) in enumerate(zip(batched, single, strict=True)):
        if row in (0, 3):  # PNG
            assert torch.equal(one, other)
        assert (one.double() - other.double()).abs().mean() < 2


@pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")
@pytest.mark.parametrize("side", [0, 80])
def test_an_image_that_the_device_refuses_leaves_its_neighbours_alone(
    photographs, monkeypatch, side
):
    monkeypatch.setattr(image_set, "KEPT_BYTES", 0)
    images = open_images(DataConfig(source=photographs, image_size=side), None)
    places, refused = list(range(0, 40, 2)), 14
    whole = decode_on(CPU, places, images._read, images._at, side)
    asked: list[list[int]] = []

    def read(place: int) -> bytes:
        # A JPEG whose image data end at once: its kind is still seen to be plain.
        encoded = bytes(images._read(place))
        return encoded[:700] if place == refused else encoded

    def otherwise(places: list[int], device: torch.device) -> Images:
        asked.append(places)
        return images._at(places, device)

    found = decode_on(CPU, places, read, otherwise, side)
    assert asked == [[refused]]
    for place, one, other in zip(places, found, whole, strict=True):
        assert place == refused or torch.equal(one, other)
    row = places.index(refused)
    assert torch.equal(found[row], images.pixels(torch.tensor([refused]))[0])


@pytest.fixture
def jpegs(photographs, monkeypatch):
    """Decodes the twenty JPEGs of the set as for a device."""
    monkeypatch.setattr(image_set, "KEPT_BYTES", 0)
    images = open_images(DataConfig(source=photographs, image_size=0), None)
    places = list(range(0, 40, 2))
    return lambda: decode_on(CPU, places, images._read, images._at, 0)


@pytest.mark.parametrize(
    "said",
    [
        "Error while decoding JPEG images: CUDA out of memory. Tried to allocate 2.00 MiB.",
        "Error while decoding JPEG images: Failed to decode batch: 5",
    ],
)
def test_a_decoder_out_of_memory_is_not_taken_for_refused_images(jpegs, monkeypatch, said):
    asked = []

    def decoder(texts: list[torch.Tensor], **_options: object) -> list[torch.Tensor]:
        asked.append(len(texts))
        raise RuntimeError(said)

    monkeypatch.setattr(gpu_decode, "decode_jpeg", decoder)
    with pytest.raises(RuntimeError) as raised:
        jpegs()
    assert is_out_of_memory(raised.value)
    assert asked == [20]


@pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")
def test_the_decoder_runs_in_a_stream_of_its_own_and_hands_over_every_image(jpegs, monkeypatch):
    inside, seen, taken = [], [], []

    class Apart:
        @contextmanager
        def making(self):
            inside.append(True)
            yield
            inside.pop()

        def done(self):
            return "done"

        def take(self, made, done):
            taken.append((list(made), done, list(inside)))

    decoder = gpu_decode.decode_jpeg
    monkeypatch.setattr(gpu_decode, "_apart", lambda _device: Apart())
    monkeypatch.setattr(
        gpu_decode,
        "decode_jpeg",
        lambda texts, **options: seen.append(list(inside)) or decoder(texts, **options),
    )
    found = jpegs()
    assert seen == [[True]]
    [(made, done, still)] = taken
    assert done == "done"
    assert not still
    assert all(one is other for one, other in zip(found, made, strict=True))


@pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")
def test_one_thread_at_a_time_is_in_the_decoder(jpegs, monkeypatch):
    decoder, meeting, met = gpu_decode.decode_jpeg, threading.Barrier(2), []

    def waiting(texts: list[torch.Tensor], **options: object) -> list[torch.Tensor]:
        try:
            meeting.wait(timeout=0.2)
            met.append(True)
        except threading.BrokenBarrierError:
            meeting.reset()
        return decoder(texts, **options)

    monkeypatch.setattr(gpu_decode, "decode_jpeg", waiting)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: jpegs(), range(2)))
    assert not met


def test_threads_that_begin_at_once_decode_a_kept_set_once(photographs):
    images = open_images(DataConfig(source=photographs, image_size=8), None)
    read, asked, start = images._read, Counter(), threading.Barrier(3)
    images._read = lambda place: asked.update([place]) or read(place)

    def pixels(_: int) -> torch.Tensor:
        start.wait()
        return images.pixels(torch.arange(40))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(pixels, range(3)))
    assert asked == Counter(range(40))


def test_three_who_ingest_into_one_folder_share_the_work_and_get_one_set(
    photographs, tmp_path, monkeypatch
):
    monkeypatch.setattr(ingest, "ITEMS_PER_PART", 3)
    decoded: list[bytes] = []
    monkeypatch.setattr(
        ingest, "decode", lambda image: decoded.append(image) or decode.decode(image)
    )
    source, home = f"{tmp_path}/photographs", locate(f"{tmp_path}/shared")
    done: list[list[int]] = [[], [], []]
    with ThreadPoolExecutor(3) as pool:
        made = list(
            pool.map(
                lambda own: ingest.ingest(open_source(source), home, lambda n, _: own.append(n)),
                done,
            )
        )
    assert len({manifest.digest for manifest in made}) == 1
    assert len(decoded) == len(set(decoded)) == 40
    assert all(own == sorted(own) and own[-1] == 40 for own in done if own)
    assert not list((tmp_path / "shared").glob(".*"))
