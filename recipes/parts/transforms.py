"""ChainerCV's geometry, on Pillow images and in one step from a file to pixels; and from pixels to a batch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.utils.data import default_collate

from recipes.parts.image_files import DECODER, UnfitImageError, as_rgb, max_pixels, orientation, read_rgb, size_of
from trainer import concat_examples

# A photograph decoded at 1/2, 1/4 or 1/8 of its size must stay this many times larger than the scaled image. Over 60
# photographs the pixels then differ by 0.4 to 0.5 grey levels on average from those of whole decoding, by 0.85 in the
# worst one; at twice as large some differ by more than one (benchmarks/data.py measures it).
REDUCED_MARGIN = 2.5


def scale(image: Image.Image, size: int) -> Image.Image:
    """Returns the image with its shorter side ``size`` and the longer ``int(size * long / short)``, bilinear.

    The very image comes back if its shorter side fits. Sizes are those of ``chainercv.transforms.scale``.

    Raises:
        UnfitImageError: If it would have more than ``max_pixels()``; :class:`ScaleAndCrop` takes such an image.
    """
    if min(image.size) == size:
        return image
    width, height = _scaled_size(*image.size, size)
    if width * height > max_pixels():
        raise UnfitImageError(f"the image is {image.height}x{image.width}, and too large when scaled: {height}x{width}")
    return image.resize((width, height), Image.Resampling.BILINEAR)


def center_crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Returns the middle of the image, ``size`` being (height, width).

    Offsets are those of ``chainercv.transforms.center_crop``: ``int(round((H - height) / 2))``, half to even.

    Raises:
        UnfitImageError: If the image is smaller than the crop.
    """
    crop_height, crop_width = size
    width, height = image.size
    if height < crop_height or width < crop_width:
        raise UnfitImageError(
            f"the image is {height}x{width} (height x width), smaller than the crop of {crop_height}x{crop_width};"
            " scale it up first, or crop less."
        )
    top, left = _offset(height, crop_height), _offset(width, crop_width)
    return image.crop((left, top, left + crop_width, top + crop_height))


class ScaleAndCrop:
    """Scales an image to a shorter side and takes its middle, as a uint8 tensor of shape (3, crop, crop).

    The geometry is that of :func:`scale` and :func:`center_crop`, in one step: what is cropped away is not computed.
    Bilinear pixels are within one grey level of Pillow's, and just as near to ChainerCV's, which resizes 32-bit floats.

    Called with a Pillow image it is a transform; :meth:`read` does the same from a file, faster.

    Args:
        scale: Pixels of the shorter side.
        crop: Pixels of the square cut from the middle.
        reduced: Whether :meth:`read` decodes a large JPEG at 1/2, 1/4 or 1/8 of its size, where that leaves it at
            least ``REDUCED_MARGIN`` times as large as the scaled image. Much faster; the pixels are slightly others.
        turned: Whether :meth:`read` turns an image as its EXIF data say.
        interpolation: ``"bilinear"`` or ``"bicubic"``, which many models of timm are trained with.
    """

    interpolation = "bilinear"

    def __init__(
        self, scale: int, crop: int, reduced: bool = False, turned: bool = True, interpolation: str = "bilinear"
    ) -> None:
        if scale < crop:
            raise ValueError(f"the scale must not be smaller than the crop, got {scale} < {crop}.")
        if interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation must be 'bilinear' or 'bicubic', got {interpolation!r}.")
        self.scale = scale
        self.crop = crop
        self.reduced = reduced
        self.turned = turned
        if interpolation != "bilinear":  # else it is left out of the key, as caches from before bicubic have it
            self.interpolation = interpolation

    def __repr__(self) -> str:
        """Names all that decides the pixels, and so makes a key for a cache."""
        arguments = ", ".join(f"{name}={value}" for name, value in vars(self).items())
        return f"{type(self).__name__}({arguments}, decoder={DECODER})"

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Returns the middle of the scaled image, which may be of any mode."""
        return self._middle(torch.from_numpy(np.array(as_rgb(image))), *image.size)

    def read(self, path: str | Path) -> torch.Tensor:
        """Returns the middle of a scaled image file of any mode, as ``self(read_rgb(path))`` does.

        Raises:
            BadImageError: If the file is missing, damaged, no image, or has more than ``max_pixels()``.
        """
        return self._middle(*decode(path, self.turned, self.scale if self.reduced else None))

    def _middle(self, pixels: torch.Tensor, width: float, height: float) -> torch.Tensor:
        """Scales and crops pixels of shape (height, width, 3), as they lie in memory.

        ``width`` and ``height`` are what the pixels stand for: of a reduced image the last row or column may stand
        for a fraction.
        """
        new_width, new_height = _scaled_size(width, height, self.scale)
        image = pixels[None].permute(0, 3, 1, 2)  # to torch's fast path: one image, channels last
        rows, columns = _places(height, new_height, self.crop), _places(width, new_width, self.crop)
        if columns is not None:  # already here, as there are far fewer of them
            start, stop = max(0, int(columns[0]) - 1), int(columns[-1]) + 3
            image, columns = image[..., start:stop], columns - start
        # Rows first: they are the cheaper ones to resize.
        image = _resized_middle(image, 2, height, new_height, self.crop, rows, self.interpolation)
        return _resized_middle(image, 3, width, new_width, self.crop, columns, self.interpolation)[0]


def decode(
    path: str | Path, turned: bool = True, reduced_for: float | None = None
) -> tuple[torch.Tensor, float, float]:
    """Returns an image file of any mode as pixels (height, width, 3), with the width and height that they stand for.

    A JPEG is decoded by simplejpeg (libjpeg-turbo), which takes less time than Pillow for the same pixels; any
    other file, and a JPEG in which it finds the least fault, by Pillow, which takes it or says what is wrong.

    Args:
        path: Of the file.
        turned: Whether it is turned as its EXIF data say.
        reduced_for: Pixels of the shorter side to which the image is going to be scaled: a JPEG is decoded at 1/2,
            1/4 or 1/8 of its size where that leaves it ``REDUCED_MARGIN`` times as large. None: decoded as it is.

    Raises:
        BadImageError: If the file is missing, damaged, no image, or has more than ``max_pixels()``.
    """
    try:  # Pillow reads a larger file in pieces
        found = _by_simplejpeg(path, turned, reduced_for) if size_of(path) <= max_pixels() else None
    except Exception:  # Pillow says what is wrong, if anything is
        found = None
    if found is None:
        image = read_rgb(path, turned)
        found = torch.from_numpy(np.array(image)), *image.size
    return found


def collate_images(samples: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a batch of images of shape (N, C, H, W) and labels of shape (N,), the images as they lie in memory.

    That is with the colours of a pixel side by side (``torch.channels_last``). To part them, as torch's own
    ``default_collate`` does, takes a third as long as to scale the images.
    """
    images, labels = default_collate([(image.permute(1, 2, 0), label) for image, label in samples])
    return images.permute(0, 3, 1, 2), labels


class Normalize:
    """Moves a batch to the device and there makes floats of its pixels: ``(pixels - mean) / std``, for 0..255.

    Args:
        mean: One number for each channel.
        std: One number for each channel.
    """

    memory_format = torch.contiguous_format

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def __call__(self, batch: Any, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns float pixels of shape (N, C, H, W) and labels of shape (N,)."""
        pixels, labels = concat_examples(batch, device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        return (pixels.to(torch.float32, memory_format=self.memory_format) - self.mean) / self.std, labels

    @classmethod
    def of_unit(cls, mean: Sequence[float], std: Sequence[float]) -> Normalize:
        """Returns the normalisation that tutorials write for pixels divided by 255: ``(pixels / 255 - mean) / std``."""
        return cls([255 * value for value in mean], [255 * value for value in std])


def _by_simplejpeg(
    path: str | Path, turned: bool, reduced_for: float | None
) -> tuple[torch.Tensor, float, float] | None:
    """Returns what :func:`decode` does of a JPEG; None for what Pillow is to do."""
    with open(path, "rb", buffering=0) as file:
        data = file.readall()
    height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    if space in ("CMYK", "YCCK") or width * height > max_pixels():
        return None
    turn = _jpeg_orientation(data) if turned else 1
    times = 1 if reduced_for is None else _reduction(width, height, turn, REDUCED_MARGIN * reduced_for)
    pixels = simplejpeg.decode_jpeg(data, min_height=-(-height // times), min_width=-(-width // times))
    if turn != 1:
        colours = pixels.view("V3")[..., 0]  # to be moved as one, which takes half the time
        if turn > 4:
            colours, width, height = colours.T, height, width
        rows, columns = (-1 if turn in those else 1 for those in ((3, 4, 7, 8), (2, 3, 6, 7)))
        colours = np.ascontiguousarray(colours[::rows, ::columns])
        pixels = colours.view(np.uint8).reshape(*colours.shape, 3)
    return torch.from_numpy(pixels), width / times, height / times


def _reduction(width: int, height: int, turn: int, least: float) -> int:
    """Returns how many times smaller an image may be decoded, so that no side gets shorter than ``least``."""
    for times in (8, 4, 2):
        # What stands for a fraction must be the last row or column, and a turn may make it the first.
        if min(width, height) >= times * least and (turn == 1 or width % times == height % times == 0):
            return times
    return 1


def _jpeg_orientation(data: bytes) -> int:
    """Returns how the EXIF data or the XMP of a JPEG ask to turn it; without either, nothing is parsed."""
    at = 2
    while data[at] == 0xFF and data[at + 1] not in (0xE1, 0xDA):  # where either is, and where the pixels begin
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if data[at : at + 2] == b"\xff\xda":
        return 1
    with Image.open(io.BytesIO(data)) as image:
        return orientation(image)


def _scaled_size(width: float, height: float, size: int) -> tuple[int, int]:
    other = int(size * max(width, height) / min(width, height))
    return (other, size) if width > height else (size, other)


def _offset(side: int, crop: int) -> int:
    return round((side - crop) / 2)


def _places(side: float, size: int, crop: int) -> torch.Tensor | None:
    """Returns where the kept pixels lie in a side that is enlarged far beyond them, float64; None for other sides."""
    offset = _offset(size, crop)
    if size <= side or offset <= crop:
        return None
    middles = torch.arange(offset, offset + crop, dtype=torch.float64) + 0.5
    return middles * (1 / (size / side)) - 0.5


def _resized_middle(
    image: torch.Tensor, dim: int, side: float, size: int, crop: int, places: torch.Tensor | None, interpolation: str
) -> torch.Tensor:
    """Resizes a dimension (2 or 3) from ``side`` to ``size`` pixels, as far as needed, and takes its middle."""
    if places is not None:
        return _interpolated(image, dim, places, interpolation)
    offset = _offset(size, crop)
    if side != size:
        shape, scales = list(image.shape[2:]), [None, None]
        # Computing only the beginning is for shrinking: where the size is the same, torch does not resize at all.
        shape[dim - 2] = offset + crop if size < side else size
        scales[dim - 2] = size / side
        # What F.interpolate(antialias=True) calls; only here may the size differ from what the scale makes it.
        image = getattr(torch.ops.aten, f"_upsample_{interpolation}2d_aa")(image, shape, False, *scales)
    return image.narrow(dim, offset, crop)


def _interpolated(image: torch.Tensor, dim: int, places: torch.Tensor, interpolation: str) -> torch.Tensor:
    """Interpolates a dimension at some places, to the bits of torch, which can only begin at the first pixel."""
    first = places.floor().long()
    after = places - first
    if interpolation == "bilinear":
        weights = {0: 1 - after, 1: after}
    else:  # Keys's cubic convolution, a = -0.5
        weights = {
            -1: after * (after * (2 - after) - 1) / 2,
            0: (after * after * (3 * after - 5) + 2) / 2,
            1: after * (after * (4 - 3 * after) + 1) / 2,
            2: after * after * (after - 1) / 2,
        }
    last = image.shape[dim] - 1
    inside = {step: weight * ((first + step >= 0) & (first + step <= last)) for step, weight in weights.items()}
    whole, total = sum(inside.values()), torch.zeros((), dtype=torch.int32)
    for step, weight in inside.items():
        weight = weight / whole
        fixed = (weight * 2**14 + weight.sign() / 2).int().view([-1 if d == dim else 1 for d in range(4)])
        total = total + image.index_select(dim, (first + step).clamp(0, last)) * fixed
    return ((total + 2**13) >> 14).clamp(0, 255).to(torch.uint8).contiguous(memory_format=torch.channels_last)
