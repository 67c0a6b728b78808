"""Repositories made to cost: each is refused in one line, under a limit of a second's work and 200 MB."""

import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.evaluation.examples import make_foreign

from .checkpoints import bare_checkpoint, image_checkpoint, language_checkpoint
from .conftest import client_environment
from .server import HubServer

# Imports and warms up once, then forks for each line it reads, "REPOSITORY ANY_MODEL", and holds the child to the
# limits: those of the system, which do not depend on what else the machine does.
PROGRAM = """
import json, os, resource, sys, time
import urzoo, urzoo.hub.pull
from urzoo.errors import UrzooError
from urzoo.hub.folder import check_checkpoint
from pathlib import Path
for folder in sys.argv[1:]:
    check_checkpoint(Path(folder), any_model=True)
for line in sys.stdin:
    repository, any_model = line.split()
    if os.fork() == 0:
        data = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
        limit = data + 200 * 1024**2
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        try:
            urzoo.hub.pull.pull(repository, any_model=any_model == "True")
            said, kind = "taken", ""
        except UrzooError as error:
            said, kind = str(error), "refused"
        except BaseException as error:
            said, kind = repr(error), "failed"
        after = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps({
            "kind": kind, "said": said, "seconds": time.monotonic() - start,
            "work_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "mib": (after.ru_maxrss - before.ru_maxrss) / 1024,
        }), flush=True)
        os._exit(0)
    if os.wait()[1]:
        print(json.dumps({"kind": "killed", "said": "killed"}), flush=True)
"""

Files = dict[str, bytes]


def config(**changes: Any) -> Callable[[Files], Files]:
    def change(files: Files) -> Files:
        content = {**json.loads(files["config.json"]), **changes}
        return {"config.json": json.dumps({key: value for key, value in content.items() if value != "absent"}).encode()}

    return change


def processor(**changes: Any) -> Callable[[Files], Files]:
    return lambda files: {
        "preprocessor_config.json": json.dumps({**json.loads(files["preprocessor_config.json"]), **changes}).encode()
    }


def only(**files: bytes) -> Callable[[Files], Files]:
    return lambda _: {name.replace("__", "."): content for name, content in files.items()}


def header(content: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


def wide_but_empty(files: Files) -> Files:
    """A tensor of a billion rows that takes no byte, to vouch for a billion labels."""
    length = struct.unpack("<Q", files["model.safetensors"][:8])[0]
    content = json.loads(files["model.safetensors"][8 : 8 + length])
    content["wide"] = {"dtype": "F32", "shape": [0, 10**9], "data_offsets": [0, 0]}
    return {
        **config(num_labels=10**9)(files),
        "model.safetensors": header(content, files["model.safetensors"][8 + length :]),
    }


def many_layers(files: Files) -> Files:
    tensors = {f"t{index}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for index in range(12_000)}
    return {**config(num_layers=20_000)(files), "model.safetensors": header(tensors)}


def of_integers(files: Files, tmp_path: Path) -> Files:
    (tmp_path / "w").write_bytes(files["model.safetensors"])
    weights = {name: tensor.int() for name, tensor in load_file(tmp_path / "w").items()}
    save_file(weights, tmp_path / "w", metadata={"format": "pt"})
    return {"model.safetensors": (tmp_path / "w").read_bytes()}


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (one, one, *[one - 1] * 9) for one in b"bcdefghi"
)
NESTED = b"[" * 200_000
OF_IMAGES: dict[str, tuple[Callable[..., Files], str]] = {
    "a billion labels": (config(num_labels=10**9, id2label="absent", label2id="absent"), "num_labels is 1000000000"),
    "more labels than rows": (config(id2label={str(n): str(n) for n in range(20_000)}), "id2label is 20000"),
    "labels for an empty tensor": (wide_but_empty, "num_labels is 1000000000"),
    "twenty thousand layers": (config(num_layers=20_000), "num_layers is 20000"),
    "layers by their other name": (config(num_hidden_layers=20_000), "num_hidden_layers is 20000"),
    "tensors for all of them": (many_layers, "num_layers is 20000"),
    "a wide state": (config(hidden_size=2**30), "hidden_size is 1073741824"),
    "a wide head": (config(head_hidden_size=2**30), "head_hidden_size is 1073741824"),
    "wide inputs": (config(input_size=2**30), "input_size is 1073741824"),
    "a number of many digits": (only(config__json=b'{"num_labels": ' + b"9" * 5000 + b"}"), "is not JSON"),
    "a number beyond floats": (config(max_time=10**400), "max_time is a number of many digits"),
    "a huge cache": (config(neural_cache_size=10**9), "neural_cache_size is 1000000000"),
    "deep JSON": (only(config__json=NESTED), "config.json .* is not JSON"),
    "deep JSON of the processor": (only(preprocessor_config__json=NESTED), "preprocessor_config.json is not JSON"),
    "deep JSON of the generation": (only(generation_config__json=NESTED), "generation_config.json is not JSON"),
    "deep JSON of the training": (only(training__json=NESTED), "training.json is not JSON"),
    "much JSON": (only(config__json=b"[" + b" " * 1_500_000 + b"]"), "expected at most"),
    "aliases": (only(recipe__yaml=BOMB, training__json=b"{}"), "training.json|recipe.yaml"),
    "much YAML": (only(recipe__yaml=b"- a\n" * 1_000_000, training__json=b"{}"), "expected at most"),
    "a foreign processor": (processor(image_processor_type="CLIPImageProcessor"), "image_processor_type is 'CLIPImage"),
    "a word for a truth": (processor(do_grayscale="no"), "do_grayscale is 'no', expected true or false"),
    "images of a million squared": (processor(size={"height": 10**6, "width": 10**6}, pixel_order=None), "size is"),
    "an order of a million by a million": (processor(size={"height": 10**6, "width": 10**6}), "size is"),
    "kernels of somebody": (config(attn_implementation="someone/kernels"), "attn_implementation is 'someone/kernels'"),
    "kernels in private": (config(_attn_implementation="someone/kernels"), "_attn_implementation is"),
    "kernels by name": (config(attn_implementation="flash_attention_2"), "attn_implementation is 'flash_attention_2'"),
    "kernels in part": (config(attn_implementation={"": "sdpa", "x": "a/b"}), "attn_implementation is"),
    "an unknown quantisation": (config(quantization_config={"quant_method": "mine"}), "quantization_config is"),
    "weights elsewhere": (config(transformers_weights="../../x.safetensors"), "transformers_weights is"),
    "code to generate with": (only(generation_config__json=b'{"custom_generate": "a/b"}'), "custom_generate is 'a/b'"),
    "answers without names": (config(return_dict=False), "return_dict is False, expected true"),
    "a word for more answers": (config(output_hidden_states="x"), "output_hidden_states is 'x', expected true or"),
    "integers for weights": (of_integers, "is of type I32, expected torch.float32"),
    "a huge header": (only(model__safetensors=struct.pack("<Q", 2**40) + b"{}"), "truncated or damaged"),
    "a header that lies": (
        only(model__safetensors=header({"t": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})),
        "truncated or damaged",
    ),
}  # fmt: skip


def longer_tokenizer(files: Files) -> Files:
    content = json.loads(files["tokenizer.json"])
    content["added_tokens"].append({**content["added_tokens"][0], "id": 5000, "content": "<more>"})
    return {"tokenizer.json": json.dumps(content).encode()}


OF_TEXT: dict[str, tuple[Callable[..., Files], str]] = {
    "padding beyond the vocabulary": (config(pad_token_id=10**9), "pad_token_id is 1000000000, expected an id below"),
    "a negative end": (config(eos_token_id=-3), "eos_token_id is -3, expected an id below"),
    "a vocabulary of a billion": (config(vocab_size=10**9), "vocab_size is 1000000000"),
    "a wide embedding": (config(embedding_size=10**9), "embedding_size is 1000000000"),
    "a deep tokenizer": (only(tokenizer__json=NESTED), "cannot be loaded|is not JSON"),
    "a deep tokenizer configuration": (only(tokenizer_config__json=NESTED), "tokenizer_config.json is not JSON"),
    "a tokenizer beyond the vocabulary": (longer_tokenizer, "vocab_size is 290, but the tokenizer makes 291 ids"),
    "a tokenizer of nothing": (only(tokenizer__json=b"{}"), "cannot be loaded"),
}
FOREIGN: dict[str, tuple[Callable[..., Files], str]] = {
    "a foreign billion labels": (
        config(num_labels=10**9, id2label="absent", label2id="absent"),
        "num_labels is 1000000000",
    ),
    "twenty thousand foreign layers": (config(num_hidden_layers=20_000), "num_hidden_layers is 20000"),
    "a wide foreign state": (config(intermediate_size=2**30), "holds .* numbers, but the model of its config.json has"),
    "foreign kernels": (config(attn_implementation="someone/kernels"), "attn_implementation is 'someone/kernels'"),
    "foreign quantisation": (config(quantization_config={"quant_method": "gptq", "bits": 4}), "quantization_config is"),
}
CASES = {**OF_IMAGES, **OF_TEXT, **FOREIGN}


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[HubServer, "subprocess.Popen[str]", dict[str, Files]]]:
    place = tmp_path_factory.mktemp("hostile")
    folders = {
        "image": image_checkpoint(place / "image"),
        "language": language_checkpoint(place / "language"),
        "bare": bare_checkpoint(place / "bare"),
        "foreign": make_foreign("vit", place / "foreign")[0],
    }
    contents = {kind: {path.name: path.read_bytes() for path in folder.iterdir()} for kind, folder in folders.items()}
    with (
        HubServer() as hub,
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, folders.values())],
            env=client_environment(hub, place / "home", token=None, PYTHONPATH=str(Path.cwd())),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        yield hub, process, contents
        process.stdin.close()


def pulled(
    served: tuple[HubServer, "subprocess.Popen[str]", dict[str, Files]], files: Files, *, any_model: bool
) -> dict[str, Any]:
    hub, process, _ = served
    name = f"alice/m{len(hub.store.repositories)}"
    hub.store.write(name, files)
    process.stdin.write(f"{name} {any_model}\n")
    process.stdin.flush()
    outcome = json.loads(process.stdout.readline())
    print(outcome)  # noqa: T201 - shown where a test fails, and with -s
    return outcome


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_repository_is_refused_in_one_line_within_a_second_and_200_mb(
    case: str, served: tuple[HubServer, "subprocess.Popen[str]", dict[str, Files]], tmp_path: Path
) -> None:
    change, said = CASES[case]
    files = served[2]["image" if case in OF_IMAGES else "language" if case in OF_TEXT else "foreign"]
    changed = change(files, tmp_path) if change is of_integers else change(files)
    outcome = pulled(served, {**files, **changed}, any_model=case in FOREIGN)
    assert outcome["kind"] == "refused", outcome
    assert "\n" not in outcome["said"]
    assert re.search(said, outcome["said"]), outcome


@pytest.mark.parametrize("kind", ["image", "language", "bare", "foreign"])
def test_a_good_repository_is_taken_under_the_same_limits(
    kind: str, served: tuple[HubServer, "subprocess.Popen[str]", dict[str, Files]]
) -> None:
    assert pulled(served, served[2][kind], any_model=kind == "foreign")["said"] == "taken"
