"""Each case in a process of its own: what counts is what was imported before and after urzoo."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Run
from urzoo import URLSTMConfig, URLSTMForImageClassification

LOADS = (
    "assert type(AutoModelForImageClassification.from_pretrained(folder)).__name__ == 'URLSTMForImageClassification'"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("checkpoint")
    URLSTMForImageClassification(URLSTMConfig(hidden_size=4)).save_pretrained(where)
    return where


@pytest.fixture
def run(run_apart: Run, folder: Path) -> Run:
    """Run code that finds a checkpoint as `folder`."""
    return lambda code, folder=folder: run_apart(f"folder = {str(folder)!r}\n{code}")


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
        "from urzoo.models import ClassifierStream; from transformers import AutoModelForImageClassification",
        "import urzoo.models.pipeline_urlstm; from transformers import AutoModelForImageClassification",
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
