"""What the pipelines answer for a small checkpoint, run in the tests or as a program where urzoo is not installed.

As a program: pairs KIND=MODEL as arguments; prints {kind: answers} as JSON. MODEL is a folder or a repository.
"""

import json
import sys
from typing import Any

import numpy as np
import PIL.Image
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, pipeline

IMAGE = PIL.Image.fromarray((np.arange(16, dtype=np.uint8) * 15).reshape(4, 4))
TEXTS = ["the film was very good", "not good"]


def answers(kind: str, model: str, *, trust: bool | None, **model_arguments: Any) -> list[Any]:
    """The module of the model's class, the pipeline's answer to two inputs, and the raw scores."""
    options: dict[str, Any] = {"trust_remote_code": trust, "device": "cpu", "model_kwargs": model_arguments}
    if kind == "image":
        pipe = pipeline("image-classification", model=model, **options)
        inputs = pipe.image_processor([IMAGE, IMAGE], return_tensors="pt")
        answer = pipe([IMAGE, IMAGE], top_k=3)
    elif kind == "text":
        pipe = pipeline("text-classification", model=model, **options)
        inputs = pipe.tokenizer(TEXTS, padding=True, return_tensors="pt")
        answer = pipe(TEXTS, batch_size=2)
    elif kind in ("series", "bare"):
        auto_class = AutoModelForSequenceClassification if kind == "series" else AutoModel
        loaded = auto_class.from_pretrained(model, trust_remote_code=trust, **model_arguments).eval()
        series = torch.linspace(-1, 1, 24).reshape(2, 12 // loaded.config.input_size, -1)
        with torch.no_grad():
            outputs = loaded(inputs_embeds=series)
        return [type(loaded).__module__, kind, outputs[0].tolist()]
    else:
        pipe = pipeline("text-generation", model=model, **options)
        inputs = pipe.tokenizer(TEXTS, padding=True, return_tensors="pt")
        answer = pipe(TEXTS, batch_size=2, max_new_tokens=4, do_sample=False)
    with torch.no_grad():
        scores = pipe.model(**inputs).logits
    return [type(pipe.model).__module__, answer, scores.tolist()]


if __name__ == "__main__":
    pairs = dict(argument.split("=", 1) for argument in sys.argv[1:])
    sys.stdout.write(json.dumps({kind: answers(kind, model, trust=True) for kind, model in pairs.items()}) + "\n")
