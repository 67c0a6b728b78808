"""What a language model writes after fixed prompts: kept as samples.json beside its weights, shown by its card.

The prompts stand in `prompts.yaml`. The texts are made once, on the machine of whoever writes the card: rounding may
lead another processor to other words, so a check compares what they were made of, not the words.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from urzoo.errors import CheckpointError, StaleError, UsageError
from urzoo.provenance import hardware, urzoo_version
from urzoo.schema import Count, Line, Number, Positive, Sha256, Strict, content_sha256, read_json, read_yaml, validated
from urzoo.zoo import info

SAMPLES = "samples.json"
_PROMPTS = Path(__file__).parent / "prompts.yaml"
Text = Annotated[str, Field(max_length=10_000)]


class _Greedy(Strict):
    repetition_penalty: Annotated[Number, Field(ge=1)]


class _Sampled(Strict):
    temperature: Annotated[Number, Field(gt=0)]
    seed: Count


class Prompts(Strict):
    """The content of prompts.yaml; `new_tokens` is how many tokens follow a prompt at most."""

    version: Positive
    new_tokens: Positive
    greedy: _Greedy
    sampled: _Sampled
    prompts: Annotated[list[Text], Field(min_length=1)]


class Sample(Strict):
    """A prompt and how the model went on, by the most probable token each time and by drawn ones."""

    prompt: Text
    greedy: Text
    sampled: Text


class Samples(Strict):
    """The content of samples.json."""

    schema_version: Literal[1] = 1
    checkpoint_sha256: Sha256
    prompts_sha256: Sha256
    urzoo_version: Line
    torch_version: Line
    hardware: Line
    samples: list[Sample]


def prompts() -> Prompts:
    """The prompts and settings of today."""
    return validated(Prompts, read_yaml(_PROMPTS, error=CheckpointError), _PROMPTS, error=CheckpointError)


def make_samples(folder: Path) -> Samples:
    """Have the language model in `folder` go on after every prompt; `samples.json` is what keeps it.

    Raises:
        UsageError: It is no language model that reads text.
        CheckpointError: A file of it is missing or damaged.
    """
    import torch
    from transformers import GenerationConfig

    from urzoo.zoo import load, load_tokenizer

    check_writes(folder)
    checkpoint, asked = info(folder), prompts()
    model: Any = load(folder)
    tokenizer = load_tokenizer(folder)
    kept = {name: getattr(model.generation_config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    kept["bad_words_ids"] = model.generation_config.bad_words_ids
    ways: dict[str, dict[str, Any]] = {
        "greedy": {"do_sample": False, **asked.greedy.model_dump()},
        "sampled": {"do_sample": True, "top_k": 0, "temperature": asked.sampled.temperature},
    }

    def written(prompt: str, way: str) -> str:
        given = tokenizer(prompt, return_tensors="pt")
        given = {name: given[name] for name in ("input_ids", "attention_mask")}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(asked.sampled.seed)
            settings = GenerationConfig(**ways[way], **kept, max_new_tokens=asked.new_tokens)  # type: ignore[no-untyped-call]
            ids = model.generate(**given, generation_config=settings)
        new: str = tokenizer.decode(ids[0, given["input_ids"].shape[1] :], skip_special_tokens=True)
        return new

    return Samples(
        checkpoint_sha256=checkpoint.checkpoint_sha256,
        prompts_sha256=_sha256(asked),
        urzoo_version=urzoo_version(),
        torch_version=torch.__version__,
        hardware=hardware(torch.device("cpu")),
        samples=[
            Sample(prompt=one, greedy=written(one, "greedy"), sampled=written(one, "sampled")) for one in asked.prompts
        ],
    )


def check_writes(folder: Path) -> None:
    """Make sure that `make_samples` can ask what is in `folder`.

    Raises:
        UsageError: It is no language model that reads text.
        CheckpointError: A file of it is missing or damaged.
    """
    checkpoint = info(folder)
    if not checkpoint.architecture.endswith("ForCausalLM") or not (folder / "tokenizer_config.json").is_file():
        raise UsageError(f"{checkpoint.name} is no language model of text; leave --samples out.")


def read_samples(folder: Path) -> Samples | None:
    """The samples in `folder`, made with the settings of today; None where there are none.

    Raises:
        CheckpointError: The file is malformed.
        StaleError: They are of another checkpoint or of other prompts.
    """
    file = folder / SAMPLES
    if not file.is_file():
        return None
    found = validated(Samples, read_json(file, error=CheckpointError), file, error=CheckpointError)
    if (found.checkpoint_sha256, found.prompts_sha256) != (info(folder).checkpoint_sha256, _sha256(prompts())):
        raise StaleError(
            f"{file} is of another checkpoint or of other prompts. Write it again with: urzoo card {folder} --samples"
        )
    return found


def _sha256(asked: Prompts) -> str:
    return content_sha256(asked.model_dump(mode="json"))
