"""ChainerCV's geometry, on Pillow images and in one step from a file to pixels; and from pixels to a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.utils.data import default_collate

from trainer import concat_examples
from trainer.saving.files import read_bytes, regular

# A photograph decoded at 1/2, 1/4 or 1/8 of its size must stay this many times larger than the scaled image. Over 60
# photographs the pixels then differ by 0.4 to 0.5 grey levels on average from those of whole decoding, by 0.85 in the
# worst one; at twice as large some differ by more than one (benchmarks/data.py measures it).
REDUCED_MARGIN = 2.5


def scale(image: Image.Image, size: int) -> Image.Image:
    """Returns the image with its shorter side ``size`` and the longer ``int(size * long / short)``, bilinear.

    The very image comes back if its shorter side fits. Sizes are those of ``chainercv.transforms.scale``.
    """
    if min(image.size) == size:
        return image
    return image.resize(_scaled_size(*image.size, size), Image.Resampling.BILINEAR)


def center_crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Returns the middle of the image, ``size`` being (height, width).

    Offsets are those of ``chainercv.transforms.center_crop``: ``int(round((H - height) / 2))``, half to even.

    Raises:
        ValueError: If the image is smaller than the crop.
    """
    crop_height, crop_width = size
    width, height = image.size
    if height < crop_height or width < crop_width:
        raise ValueError(
            f"the image is {height}x{width} (height x width), smaller than the crop of {crop_height}x{crop_width};"
            " scale it up first, or crop less."
        )
    top, left = _offset(height, crop_height), _offset(width, crop_width)
    return image.crop((left, top, left + crop_width, top + crop_height))


class ScaleAndCrop:
    """Scales an image to a shorter side and takes its middle, as a uint8 tensor of shape (3, crop, crop).

    The geometry is that of :func:`scale` and :func:`center_crop`, in one step: what is cropped away is not computed.
    Pixels are within one grey level of Pillow's, and just as near to ChainerCV's, which resizes 32-bit floats.

    Called with an RGB Pillow image it is a transform; :meth:`read` does the same from a file, faster.

    Args:
        scale: Pixels of the shorter side.
        crop: Pixels of the square cut from the middle.
        reduced: Whether :meth:`read` decodes a large JPEG at 1/2, 1/4 or 1/8 of its size, where that leaves it at
            least ``REDUCED_MARGIN`` times as large as the scaled image. Much faster; the pixels are slightly others.
    """

    def __init__(self, scale: int, crop: int, reduced: bool = False) -> None:
        if scale < crop:
            raise ValueError(f"the scale must not be smaller than the crop, got {scale} < {crop}.")
        self.scale = scale
        self.crop = crop
        self.reduced = reduced

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Returns the middle of the scaled RGB image."""
        return self._middle(torch.from_numpy(np.array(image)), *image.size)

    def read(self, path: str | Path) -> torch.Tensor:
        """Returns the middle of a scaled image file of any mode, as ``self(read_rgb(path))`` does.

        A JPEG is decoded by simplejpeg (libjpeg-turbo), which takes less time than Pillow for the same pixels; any
        other file, and a JPEG in which it finds the least fault, by Pillow, which takes it or says what is wrong.
        """
        data = read_bytes(path)
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if colours in ("CMYK", "YCCK") or width * height > (Image.MAX_IMAGE_PIXELS or math.inf):
                return self(read_rgb(path))
            times = self._reduction(width, height)
            pixels = simplejpeg.decode_jpeg(data, min_height=-(-height // times), min_width=-(-width // times))
        except (ValueError, KeyError):  # KeyError: a rare subsampling of the colours
            return self(read_rgb(path))
        return self._middle(torch.from_numpy(pixels), width / times, height / times)

    def _reduction(self, width: int, height: int) -> int:
        """Returns how many times smaller an image of this size may be decoded: 1, 2, 4 or 8."""
        least = REDUCED_MARGIN * self.scale
        return next((times for times in (8, 4, 2) if self.reduced and min(width, height) >= times * least), 1)

    def _middle(self, pixels: torch.Tensor, width: float, height: float) -> torch.Tensor:
        """Scales and crops pixels of shape (height, width, 3), as they lie in memory.

        ``width`` and ``height`` are what the pixels stand for: of a reduced image the last row or column may stand
        for a fraction.
        """
        new_width, new_height = _scaled_size(width, height, self.scale)
        image = pixels[None].permute(0, 3, 1, 2)  # to torch's fast path: one image, channels last
        image = _resized_middle(image, 2, height, new_height, self.crop)  # rows are the cheaper ones to resize
        return _resized_middle(image, 3, width, new_width, self.crop)[0]


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


def read_rgb(path: str | Path) -> Image.Image:
    """Returns an image file of any mode as RGB."""
    with open(path, "rb", opener=regular) as file, Image.open(file) as image:
        if "transparency" in image.info:  # a palette with transparency converts by way of RGBA only
            image = image.convert("RGBA")
        return image.convert("RGB")


def _scaled_size(width: float, height: float, size: int) -> tuple[int, int]:
    other = int(size * max(width, height) / min(width, height))
    return (other, size) if width > height else (size, other)


def _offset(side: int, crop: int) -> int:
    return round((side - crop) / 2)


def _resized_middle(image: torch.Tensor, dim: int, side: float, size: int, crop: int) -> torch.Tensor:
    """Resizes a dimension (2 or 3) from ``side`` to ``size`` pixels, as far as needed, and takes its middle."""
    offset = _offset(size, crop)
    if side != size:
        shape, scales = list(image.shape[2:]), [None, None]
        # Computing only the beginning is for shrinking: where the size is the same, torch does not resize at all.
        shape[dim - 2] = offset + crop if size < side else size
        scales[dim - 2] = size / side
        # What F.interpolate(antialias=True) calls; only here may the size differ from what the scale makes it.
        image = torch.ops.aten._upsample_bilinear2d_aa(image, shape, False, *scales)
    return image.narrow(dim, offset, crop)
