"""Each case in a process of its own: what counts is what was imported before and after urzoo."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from urzoo import URLSTMConfig, URLSTMForImageClassification

# Imports once what takes most of the time and is neither transformers nor urzoo, then forks for each code it reads and
# says what went wrong with it.
PROGRAM = """
import json, os, sys, traceback, warnings
import scipy.optimize, torch, torch._dynamo, torch.distributed.tensor
assert not {'transformers', 'urzoo'} & set(sys.modules)
for line in sys.stdin:
    if os.fork() == 0:
        warnings.simplefilter("error")
        said = ""
        try:
            exec(json.loads(line), {"__name__": "__main__"})
        except BaseException:
            said = traceback.format_exc()
        print(json.dumps(said), flush=True)
        os._exit(0)
    if os.wait()[1]:
        print(json.dumps("it was killed"), flush=True)
"""

LOADS = (
    "assert type(AutoModelForImageClassification.from_pretrained(folder)).__name__ == 'URLSTMForImageClassification'"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("checkpoint")
    URLSTMForImageClassification(URLSTMConfig(hidden_size=4)).save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[..., None]]:
    """Run code that finds the checkpoint as `folder`."""
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def one(code: str, folder) -> None:
            process.stdin.write(json.dumps(f"folder = {str(folder)!r}\n{code}") + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == ""

        yield one
        process.stdin.close()


def test_importing_urzoo_imports_neither_torch_nor_transformers():
    code = "import sys, urzoo; assert not {'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize(
    "imports",
    [
        "import urzoo; from transformers import AutoModelForImageClassification",
        "from transformers import AutoModelForImageClassification; import urzoo",
        "import urzoo, transformers.modeling_layers; from transformers import AutoModelForImageClassification",
        "import urzoo, transformers.pipelines; from transformers import AutoModelForImageClassification",
        "import urzoo.models.modeling_urlstm; from transformers import AutoModelForImageClassification",
        "from urzoo import PixelSequenceImageProcessor; from transformers import AutoModelForImageClassification",
    ],
)
def test_the_auto_classes_know_urzoo_in_any_order_of_imports(run, imports, folder):
    run(f"{imports}\n{LOADS}", folder)


def test_the_auto_classes_do_not_know_the_models_without_urzoo(run, folder):
    run(
        "from transformers import AutoModelForImageClassification\n"
        f"try: {LOADS}\n"
        "except ValueError as error: assert 'urlstm' in str(error)\n"
        "else: raise AssertionError('loaded')",
        folder,
    )


def test_registering_twice_is_harmless(run, folder):
    run(
        "import urzoo, transformers.models.auto.modeling_auto\n"
        "from urzoo.models.registration import register\n"
        "register()\n"
        f"from transformers import AutoModelForImageClassification\n{LOADS}",
        folder,
    )


def test_code_beside_a_checkpoint_is_never_run(run, folder, tmp_path):
    URLSTMForImageClassification.from_pretrained(folder).save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    for name in ("configuration_evil", "modeling_evil"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the code of the checkpoint was run')")
    auto_map = (
        '"auto_map": {"AutoConfig": "configuration_evil.E", "AutoModelForImageClassification": "modeling_evil.E"},'
    )
    (tmp_path / "config.json").write_text(config.replace("{", "{" + auto_map, 1))
    run(f"import urzoo; from transformers import AutoModelForImageClassification\n{LOADS}", tmp_path)
    run(
        "import urzoo; from transformers import AutoModelForImageClassification\n"
        "model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True)\n"
        "assert type(model).__module__ == 'urzoo.models.classification_urlstm'",
        tmp_path,
    )


def test_the_tables_of_names_know_the_models(run, folder):
    run(
        "import urzoo\n"
        "from transformers.models.auto import modeling_auto as auto\n"
        "assert 'URLSTMForCausalLM' in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()\n"
        "assert 'URLSTMForImageClassification' in auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()\n"
        "assert 'URLSTMForSequenceClassification' in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.values()\n"
        "assert 'URLSTMModel' in auto.MODEL_MAPPING_NAMES.values()\n"
        # What transformers makes of its tables still works.
        "names = [value.__name__ for value in auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING._extra_content.values()]\n"
        "assert names == ['URLSTMForImageClassification'], names\n"
        "assert 'urlstm' not in auto.CONFIG_MAPPING_NAMES\n"
        "assert len(auto.MODEL_FOR_CAUSAL_LM_MAPPING) > 0",
        folder,
    )
