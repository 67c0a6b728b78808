"""What the pipelines answer for a small checkpoint, run in the tests or as a program where urzoo is not installed.

As a program: pairs KIND=MODEL as arguments; prints {kind: answers} as JSON. MODEL is a folder or a repository.
"""

import json
import sys
from typing import Any

import numpy as np
import PIL.Image
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, pipeline

TEXTS = ["the film was very good", "not good"]


def answers(kind: str, model: str, *, trust: bool | None, **model_arguments: Any) -> list[Any]:
    """The module of the model's class, the pipeline's answer to two inputs, and the raw scores.

    `kind` may be followed by ":" and anything, to keep several models of one kind apart.
    """
    kind = kind.split(":")[0]
    options: dict[str, Any] = {"trust_remote_code": trust, "device": "cpu", "model_kwargs": model_arguments}
    if kind == "image":
        pipe = pipeline("image-classification", model=model, **options)
        size = pipe.image_processor.size
        rows = np.linspace(0, 255, size["height"] * size["width"]).astype(np.uint8).reshape(size["height"], -1)
        images = [PIL.Image.fromarray(rows), PIL.Image.fromarray(rows.T.copy())]
        inputs = pipe.image_processor(images, return_tensors="pt")
        answer = pipe(images, top_k=3)
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
    elif kind == "symbols":
        loaded = AutoModelForCausalLM.from_pretrained(model, trust_remote_code=trust, **model_arguments).eval()
        symbols = torch.arange(12).reshape(2, 6) % loaded.config.vocab_size
        with torch.no_grad():
            scores = loaded(input_ids=symbols).logits
        return [type(loaded).__module__, kind, scores.tolist()]
    else:
        pipe = pipeline("text-generation", model=model, **options)
        inputs = pipe.tokenizer(TEXTS, padding=True, return_tensors="pt")
        answer = pipe(TEXTS, batch_size=2, max_new_tokens=4, do_sample=False)
    with torch.no_grad():
        scores = pipe.model(**inputs).logits
    return [type(pipe.model).__module__, answer, scores.tolist()]


def recurrences() -> dict[str, list[str]]:
    """The modules that hold a recurrence in this process, and the back ends that each has."""
    names = [name for name in sys.modules if name.endswith(("recurrence.scan", "recurrence_scan"))]
    return {name: list(sys.modules[name].backends()) for name in names}


def refusal(model: str) -> str:
    """What transformers says of a model with code of its own where nobody trusted it."""
    try:
        AutoConfig.from_pretrained(model)
    except ValueError as error:
        return str(error)
    return "loaded"


if __name__ == "__main__":
    trust = True if sys.argv[1] == "remote" else None
    if trust is None:
        import urzoo  # noqa: F401 - registers the classes
    pairs = dict(argument.split("=", 1) for argument in sys.argv[2:])
    refused = [refusal(model) for model in pairs.values()] if trust else []
    found = {kind: answers(kind, model, trust=trust) for kind, model in pairs.items()}
    sys.stdout.write("\n" + json.dumps({"answers": found, "recurrences": recurrences(), "refused": refused}) + "\n")
