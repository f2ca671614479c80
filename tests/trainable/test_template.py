from tests.commands import ROOT
from trainable.config import TrainConfig
from trainable.config.template import VALUES, render
from trainable.config_file import read_mapping, validate

TEMPLATE = ROOT / "configs" / "template.yaml"


def test_the_template_is_up_to_date_and_holds_every_key_with_its_explanation() -> None:
    assert TEMPLATE.read_text() == render(), "python -m trainable.config.template > configs/template.yaml"
    values = read_mapping(TEMPLATE)
    assert values.keys() == TrainConfig.model_fields.keys()
    assert validate(TrainConfig, values, str(TEMPLATE)) == TrainConfig(**VALUES)
    lines = TEMPLATE.read_text().splitlines()
    for key in values:
        (place,) = [number for number, line in enumerate(lines) if line.startswith(f"{key}: ")]
        assert lines[place - 1].startswith("# "), key
