"""transformers' pipeline of image classification, which leaves reading the images to urzoo's image processor.

transformers makes every image RGB by itself, and of one with more than 8 bits that cuts off all values above 255
without a word. Models of other image processors see what they see without urzoo.
"""

# mypy: disable-error-code="no-untyped-call, override"
# (transformers is annotated in part only)

from typing import Any

from transformers.pipelines.image_classification import ImageClassificationPipeline

from urzoo.models.image_processing_urlstm import PixelSequenceImageProcessor
from urzoo.models.pixels_urlstm import opened


class PixelSequencePipeline(ImageClassificationPipeline):
    """Classifies one image at a time, given in any of the forms that PixelSequenceImageProcessor takes."""

    def preprocess(self, image: Any, timeout: float | None = None) -> Any:
        """The model's inputs for one image; `timeout` in seconds is for a URL."""
        if not isinstance(self.image_processor, PixelSequenceImageProcessor):
            return super().preprocess(image, timeout=timeout)
        if isinstance(image, str):
            image = opened(image, "the image", timeout)
        return self.image_processor([image], return_tensors="pt").to(self.dtype)
