"""Saving and pushing from Python: a repository is as complete as that of `urzoo push`."""

import pytest
import yaml

from urzoo import URLSTMConfig, URLSTMForCausalLM, URLSTMForImageClassification, URLSTMForSequenceClassification
from urzoo.models import PixelSequenceImageProcessor

from .conftest import Run
from .server import HubServer

MODEL = """
import urzoo
from urzoo.models import PixelSequenceImageProcessor
model = urzoo.models.URLSTMForImageClassification(urzoo.models.URLSTMConfig(hidden_size=4, num_labels=3))
processor = PixelSequenceImageProcessor(size={"height": 2, "width": 2})
"""


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


@pytest.mark.parametrize(
    "call",
    [
        'model.push_to_hub("alice/m", processing_class=processor, tags=["mine"])',
        'model.add_model_tags("mine"); '
        'model.save_pretrained("out", push_to_hub=True, repo_id="alice/m", processing_class=processor)',
    ],
)
def test_a_pushed_model_has_card_tags_and_processor(hub: HubServer, client: Run, call: str) -> None:
    client(code=MODEL + call, HF_HUB_DISABLE_XET="1")
    files = hub.store.model("alice/m").files()
    assert set(files) == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    card = files["README.md"].decode()
    assert "Model Card for Model ID" not in card
    assert "A UR-LSTM (URLSTMForImageClassification) with 4 units" in card
    assert 'pipeline("image-classification", model="alice/m")' in card
    found = front_matter(card)
    assert found["library_name"] == "transformers"
    assert found["pipeline_tag"] == "image-classification"
    assert {"urzoo", "ur-lstm", "mine"} <= set(found["tags"])
    client(
        code="import urzoo; from transformers import pipeline; from PIL import Image\n"
        'print(len(pipeline("image-classification", model="alice/m")(Image.new("L", (2, 2)))))'
    )


def test_a_card_that_somebody_wrote_on_the_hub_stays(hub: HubServer, client: Run) -> None:
    hub.store.write("alice/m", {"README.md": b"---\nlicense: mit\n---\n# Mine\n\nMy words.\n"})
    client(code=MODEL + 'model.push_to_hub("alice/m")', HF_HUB_DISABLE_XET="1")
    card = hub.store.model("alice/m").files()["README.md"].decode()
    assert "My words." in card
    assert front_matter(card)["license"] == "mit"
    assert "urzoo" in front_matter(card)["tags"]


def test_a_saved_model_has_a_card_that_is_kept(tmp_path) -> None:
    model = URLSTMForCausalLM(URLSTMConfig(vocab_size=9, hidden_size=4, num_layers=2))
    model.save_pretrained(tmp_path / "my *model*")
    card = (tmp_path / "my *model*" / "README.md").read_text()
    assert "with 4 units in each of 2 layers" in card
    assert "# my &#42;model&#42;" in card
    assert front_matter(card)["pipeline_tag"] == "text-generation"
    (tmp_path / "my *model*" / "README.md").write_text("mine")
    model.save_pretrained(tmp_path / "my *model*")
    assert (tmp_path / "my *model*" / "README.md").read_text() == "mine"


def test_a_classifier_of_series_names_no_pipeline(tmp_path) -> None:
    URLSTMForSequenceClassification(URLSTMConfig(hidden_size=4)).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "pipeline_tag" not in front_matter(card)
    assert "AutoModelForSequenceClassification.from_pretrained" in card


def test_a_processor_is_saved_beside_the_model_once(tmp_path) -> None:
    model = URLSTMForImageClassification(URLSTMConfig(hidden_size=4))
    model.save_pretrained(
        tmp_path / "one", processing_class=PixelSequenceImageProcessor(size={"height": 2, "width": 2})
    )
    assert (tmp_path / "one" / "preprocessor_config.json").is_file()
    model.save_pretrained(tmp_path / "two")
    assert not (tmp_path / "two" / "preprocessor_config.json").exists()


def test_tags_of_one_model_are_not_those_of_another() -> None:
    one, other = (URLSTMForImageClassification(URLSTMConfig(hidden_size=4)) for _ in range(2))
    one.add_model_tags("mine")
    assert "mine" not in other.model_tags
