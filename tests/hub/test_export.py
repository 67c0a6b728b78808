"""An exported checkpoint stands by itself: the same answers without urzoo, and no trace of this machine."""

import ast
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageClassification

from tests.zoo.test_zoo import with_summary
from urzoo import zoo
from urzoo.errors import CheckpointError, UsageError
from urzoo.evaluation import evaluate
from urzoo.hub.card import check_card
from urzoo.hub.export import export, flatten
from urzoo.hub.push import push

from .answers import answers
from .checkpoints import KINDS, WITHOUT_URZOO, image_checkpoint, language_checkpoint
from .conftest import TOKEN, Run
from .server import HubServer

ANSWERS = str(Path(__file__).with_name("answers.py"))


def test_a_repository_gives_the_same_answers_with_urzoo_and_by_its_code_without(
    hub: HubServer, client: Run, tmp_path: Path
) -> None:
    own, pairs = {}, []
    for kind, make in KINDS.items():
        folder = make(tmp_path / f"{kind}-in")
        own[kind] = json.loads(json.dumps(answers(kind, str(folder), trust=None, backend="reference")))
        push(folder, f"alice/{kind}", with_code=True, token=TOKEN, endpoint=hub.endpoint)
        pairs.append(f"{kind}=alice/{kind}")
    remote = json.loads(client(ANSWERS, "remote", *pairs, code=WITHOUT_URZOO).stdout.splitlines()[-1])
    for kind in KINDS:
        assert remote["answers"][kind][0].startswith("transformers_modules.alice.")
        assert remote["answers"][kind][1:] == own[kind][1:]
    assert all("trust_remote_code=True" in message for message in remote["refused"])
    assert set(map(tuple, remote["recurrences"].values())) == {("reference",)}
    before = len(hub.asked(r"\.py"))
    installed = json.loads(client(sys.executable, ANSWERS, "installed", *pairs).stdout.splitlines()[-1])
    for kind in KINDS:
        assert installed["answers"][kind][0] == own[kind][0]
        assert installed["answers"][kind][0].startswith("urzoo.models.")
        torch.testing.assert_close(
            torch.tensor(installed["answers"][kind][2]), torch.tensor(own[kind][2]), rtol=1e-4, atol=1e-5
        )
    assert list(installed["recurrences"]) == ["urzoo.recurrence.scan"]
    assert len(hub.asked(r"\.py")) == before  # the code was not even fetched


@pytest.mark.parametrize("trust", [None, True])
def test_with_urzoo_imported_the_code_beside_the_weights_never_runs(trust: bool | None, tmp_path: Path) -> None:
    for kind, make in KINDS.items():
        export(make(tmp_path / f"{kind}-in"), tmp_path / kind, with_code=True)
        for path in (tmp_path / kind).glob("*.py"):
            path.write_text("raise SystemExit('remote code ran')\n")
        assert answers(kind, str(tmp_path / kind), trust=trust)[0].startswith("urzoo.models.")


def test_an_export_without_code_is_the_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "in")
    (folder / "optimizer.pt").write_bytes(b"pickle")
    (folder / "notes.txt").write_text("mine")
    done = export(folder, tmp_path / "out")
    assert done.files == ("README.md", "config.json", "model.safetensors", "preprocessor_config.json")
    assert all((tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes() for name in done.files)
    assert not done.has_code


def test_exporting_an_export_without_code_takes_the_code_away(tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "in")
    export(folder, tmp_path / "coded", with_code=True)
    done = export(tmp_path / "coded", tmp_path / "plain")
    assert not [name for name in done.files if name.endswith(".py")]
    for name in ("config.json", "preprocessor_config.json"):
        assert "auto_map" not in (tmp_path / "plain" / name).read_text()
        assert json.loads((tmp_path / "plain" / name).read_text()) == json.loads((folder / name).read_text())


def test_flattened_modules_import_each_other_in_the_one_form_that_is_followed() -> None:
    files = flatten(["urzoo.models.modeling_urlstm", "urzoo.models.image_processing_urlstm"])
    assert {"modeling_urlstm.py", "configuration_urlstm.py", "urzoo_recurrence_reference.py"} <= files.keys()
    assert not any("cpu" in name or "triton" in name for name in files)
    for name, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                assert all(alias.name.split(".")[0] != "urzoo" for alias in node.names), name
            elif isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1, name
                assert f"{node.module}.py" in files, name
            elif isinstance(node, ast.ImportFrom):
                assert str(node.module).split(".")[0] != "urzoo", name
        # Each relative import is one that transformers sees, line by line.
        relative = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.level]
        assert len(re.findall(r"^\s*from\s+\.(\S+)\s+import", text, flags=re.MULTILINE)) == len(relative), name


def test_an_export_is_the_same_each_time(tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "in")
    for name in ("one", "two"):
        export(folder, tmp_path / name, with_code=True)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert not [name for name, content in one.items() if str(tmp_path).encode() in content]


def test_a_folder_that_holds_something_is_not_overwritten(tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match=r"out exists and is not empty"):
        export(folder, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_what_appears_in_the_folder_while_an_export_is_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = image_checkpoint(tmp_path / "in"), tmp_path / "out"

    def appear(source: Path) -> None:
        out.mkdir(exist_ok=True)
        (out / "mine").write_text("keep")

    monkeypatch.setattr("urzoo.hub.export.refuse_link", appear)
    with pytest.raises(UsageError, match="holds something by now"):
        export(folder, out)
    assert [path.name for path in out.iterdir()] == ["mine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize("make", [image_checkpoint, language_checkpoint])
def test_weights_stored_in_bfloat16_take_half_the_room_and_load_in_float32(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    folder = with_summary(make(tmp_path / "in"))
    (folder / ".eval_results").mkdir()
    (folder / ".eval_results" / "urzoo-smnist.yaml").write_text("[]")
    done = export(folder, tmp_path / "out", dtype="bfloat16")
    assert not any(name.startswith(".eval_results") for name in done.files)
    before, after = zoo.info(folder), zoo.info(tmp_path / "out")
    assert (before.weights_dtype, after.weights_dtype) == ("float32", "bfloat16")
    assert after.parameters == before.parameters
    assert after.training is not None
    assert after.training.weights_sha256 == after.weights_sha256 != before.weights_sha256
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {value.dtype for value in stored.values() if value.ndim > 1} == {torch.bfloat16}
    assert {value.dtype for value in stored.values() if value.ndim <= 1} == {torch.float32}
    auto = AutoModelForCausalLM if make is language_checkpoint else AutoModelForImageClassification
    models = [zoo.load(folder), zoo.load(tmp_path / "out"), auto.from_pretrained(tmp_path / "out")]
    models += [auto.from_pretrained(tmp_path / "out", dtype="auto")]
    for model in models[1:]:
        for (name, value), given in zip(model.named_parameters(), models[0].parameters(), strict=True):
            assert value.dtype == torch.float32
            expected = given.bfloat16().float() if given.ndim > 1 else given
            assert torch.equal(value, expected), name
    assert auto.from_pretrained(tmp_path / "out", dtype=torch.bfloat16).dtype == torch.bfloat16
    # There and back again: nothing more is lost.
    export(tmp_path / "out", tmp_path / "wide", dtype="float32")
    assert all(torch.equal(one, other) for one, other in zip(
        zoo.load(tmp_path / "wide").parameters(), models[1].parameters(), strict=True))  # fmt: skip


def test_weights_in_float64_are_rounded_once(tmp_path: Path) -> None:
    """By way of float32, half way between two numbers of bfloat16 would be rounded to the even one."""
    folder = language_checkpoint(tmp_path / "in")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name, value in weights.items() if value.ndim == 2)
    wide = {key: value.double() for key, value in weights.items()}
    ties = wide[name].bfloat16().double()
    step = 2.0 ** (torch.frexp(ties.abs()).exponent - 8)
    sides = torch.tensor([1.0, -1.0]).repeat(ties.numel() // 2).reshape(ties.shape)
    beside = ties.sign() * (ties.abs() + step / 2 + sides * step * 2.0**-40)
    wide[name] = beside
    save_file(wide, folder / "model.safetensors", metadata={"format": "pt"})
    export(folder, tmp_path / "out", dtype="bfloat16")
    stored = load_file(tmp_path / "out" / "model.safetensors")[name].double()
    assert torch.equal(stored, ties + torch.where(sides > 0, ties.sign() * step, 0))


def test_weights_stored_in_bfloat16_are_evaluated_and_written_as_onnx(tmp_path: Path) -> None:
    export("urlstm-128-smnist", tmp_path / "out", dtype="bfloat16", onnx=True)
    check_card(tmp_path / "out", [])
    assert "stored in bfloat16" in (tmp_path / "out" / "README.md").read_text()
    whole = evaluate("urlstm-128-smnist", "smnist", limit=40, progress=False)
    short = evaluate(tmp_path / "out", "smnist", limit=40, progress=False)
    assert short.model.weights_sha256 != whole.model.weights_sha256
    assert short.metrics["cross_entropy"] == pytest.approx(whole.metrics["cross_entropy"], abs=0.01)


def test_an_unknown_type_for_the_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown dtype 'bf16'\. Did you mean .*Available: bfloat16, float32"):
        export(image_checkpoint(tmp_path / "in"), tmp_path / "out", dtype="bf16")
    assert not (tmp_path / "out").exists()


def test_a_damaged_checkpoint_is_not_exported(tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "in")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated"):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_is_not_followed_into_an_export(tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "in")
    (tmp_path / "secret").write_text("mine")
    (folder / "LICENSE").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="LICENSE is a link"):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_may_not_be_read_is_told_and_not_the_folder_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = image_checkpoint(tmp_path / "in")
    monkeypatch.setattr("os.access", lambda path, _: Path(path).name != "README.md")
    with pytest.raises(CheckpointError, match=r"cannot read .*README.md: Permission denied"):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_with_onnx_is_a_checkpoint_with_the_model_for_other_runtimes(tmp_path: Path) -> None:
    import onnxruntime

    for kind, make in KINDS.items():
        if kind == "bare":
            with pytest.raises(UsageError, match="model is a URLSTMModel, expected one of URLSTMForCausalLM"):
                export(make(tmp_path / f"{kind}-in"), tmp_path / kind, onnx=True)
            continue
        exported = export(make(tmp_path / f"{kind}-in"), tmp_path / kind, onnx=True)
        assert "model.onnx" in exported.files
        session = onnxruntime.InferenceSession(tmp_path / kind / "model.onnx", providers=["CPUExecutionProvider"])
        assert session.get_outputs()[-1].name == "logits"
        assert export(tmp_path / kind, tmp_path / f"{kind}-again").files == tuple(
            name for name in exported.files if name != "model.onnx"
        )


def test_an_export_that_cannot_be_had_as_onnx_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urzoo.onnx.export.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'urzoo\[onnx\]'"):
        export(image_checkpoint(tmp_path / "in"), tmp_path / "out", onnx=True)
    assert not (tmp_path / "out").exists()
