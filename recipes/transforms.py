"""ChainerCV's geometry on Pillow images."""

from __future__ import annotations

import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor


def scale(image: Image.Image, size: int) -> Image.Image:
    """Returns the image with its shorter side ``size`` and the longer ``int(size * long / short)``, bilinear.

    The very image comes back if its shorter side fits. Sizes are those of ``chainercv.transforms.scale``.
    """
    width, height = image.size
    short, long = min(width, height), max(width, height)
    if short == size:
        return image
    other = int(size * long / short)
    return image.resize((other, size) if width > height else (size, other), Image.Resampling.BILINEAR)


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
    top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
    return image.crop((left, top, left + crop_width, top + crop_height))


class ScaleAndCrop:
    """Scales an image to a shorter side and takes its middle, as a uint8 tensor of shape (3, crop, crop)."""

    def __init__(self, scale: int, crop: int) -> None:
        if scale < crop:
            raise ValueError(f"the scale must not be smaller than the crop, got {scale} < {crop}.")
        self.scale = scale
        self.crop = crop

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Returns the middle of the scaled image."""
        return pil_to_tensor(center_crop(scale(image, self.scale), (self.crop, self.crop)))
