"""Recipes by name and from files, and mistakes are answered with what is near."""

import pytest
import yaml

from botvision.errors import BotvisionError
from botvision.recipes.reading import check_recipe, read_recipe, recipe_names


def test_every_recipe_is_valid_and_round_trips(tmp_path):
    path = tmp_path / "recipe.yaml"
    for name in recipe_names():
        recipe = read_recipe(name, ["data.folder=some where", "training.milestones=[0.1, 1]"])
        path.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
        assert read_recipe(str(path)) == recipe
        assert str(recipe.data.folder) == "some where"
        assert recipe.name == name


def test_a_recipe_of_ones_own(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text("name: mine\ntraining: {epochs: 3}\n")
    recipe = read_recipe(str(path))
    assert recipe.training.epochs == 3
    assert recipe.training.batch_size == 8
    assert (recipe.task, recipe.kind) == ("detection", "instance_segmentation")


@pytest.mark.parametrize(
    ("override", "where", "value"),
    [
        ("training.epochs=3", "training.epochs", 3),
        ("training.learning_rate=1e-3", "training.learning_rate", 0.001),
        ("training.clip_grad_norm=null", "training.clip_grad_norm", None),
        ("training.milestones=[0.5, 0.75]", "training.milestones", (0.5, 0.75)),
        ("model.backbone=resnet18", "model.backbone", "resnet18"),
        (
            "model.backbone_arguments.position=none",
            "model.backbone_arguments",
            {"position": "none"},
        ),
        ("name=a=b", "name", "a=b"),
    ],
)
def test_override(override, where, value):
    found = read_recipe("demo", [override])
    for part in where.split("."):
        found = getattr(found, part)
    assert found == value


def test_the_last_override_counts():
    assert read_recipe("demo", ["name=a", "name=b"]).name == "b"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nam=x", r"demo: nam: no such key; did you mean name\?"),
        ("modle.backbone=x", r"demo: modle: no such key; did you mean model\?"),
        ("model.backbones=x", r"demo: model\.backbones: no such key; did you mean backbone"),
        ("data.fliip=0", r"demo: data\.fliip: no such key; did you mean flip\?"),
        ("training.lerning_rate=1", r"training\.lerning_rate: no such key; did you mean learning_"),
        # Nothing is near, so all are named.
        ("data.zzz=0", r"data\.zzz: no such key; known are folder, train_split, .*flip"),
        ("training.epochs=0", r"training\.epochs: .*greater than or equal to 1, got 0"),
        ("training.epochs=1.5", r"training\.epochs: .*integer.*, got 1\.5"),
        ("training.optimizer=adam", r"training\.optimizer: .*'sgd' or 'adamw', got 'adam'"),
        ("training.precision=float16", r"training\.precision: .*got 'float16'"),
        ("training.learning_rate=fast", r"training\.learning_rate: .*number.*got 'fast'"),
        ("training.learning_rate=.nan", r"training\.learning_rate: .*got nan"),
        ("training.seed=-1", r"training\.seed: .*greater than or equal to 0, got -1"),
        ("training.milestones=[0.5, 2]", r"training\.milestones\.1: .*got 2"),
        ("data.scale_jitter=[1]", r"data\.scale_jitter\.1: Field required"),
        ("data.scale_jitter=[0, 1]", r"data\.scale_jitter\.0: .*greater than 0, got 0"),
        ("model.box_score_thresh=2", r"model\.box_score_thresh: .*got 2"),
        ("training=3", r"demo: training: .*got 3"),
        ("about.tite=x", r"demo: about\.tite: no such key; did you mean title or time\?"),
        ("training.epochs.more=3", r"override training\.epochs\.more=3: epochs is a value"),
        ("training.epochs", r"override training\.epochs: expected key\.key=value"),
        ("=3", r"override =3: expected key\.key=value"),
        ("name=[1", r"override name=\[1: the value is not YAML"),
        ("name=!!python/name:os.system", r"the value is not YAML"),
    ],
)
def test_mistake(override, message):
    with pytest.raises(BotvisionError, match=message) as raised:
        read_recipe("demo", [override])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.clasifier=x", r"model\.clasifier: no such key; did you mean classifier"),
        ("model.xyz=x", r"model\.xyz: no such key; known are classifier, "),
        (
            "data.scale_jitter=[1, 1]",
            r"data\.scale_jitter: no such key; did you mean color_jitter",
        ),
        ("model.dropout=2", r"model\.dropout: .*got 2"),
    ],
)
def test_mistake_about_a_classifier(override, message):
    with pytest.raises(BotvisionError, match=message) as raised:
        read_recipe("imagenet_canonical_botnet50", [override])
    assert "\n" not in str(raised.value)


def test_missing_name():
    with pytest.raises(BotvisionError, match="x: name: Field required"):
        check_recipe({}, source="x")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "dmo",
            r"'dmo' is unknown; did you mean demo\? .*train --list.*ends in \.yaml",
        ),
        ("quite different", r"'quite different' is unknown\. .*train --list"),
        ("nowhere.yaml", r"nowhere\.yaml: no such recipe file"),
    ],
)
def test_no_such_recipe(name, message):
    with pytest.raises(BotvisionError, match=message):
        read_recipe(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: [1", "not YAML"),
        (b"- 1\n- 2", "expected keys and values, got list"),
        (b"", "expected keys and values, got NoneType"),
        (b"name: x\n\ttraining: 1", "not YAML"),
        (b"\xff\xfe\x00", "not"),
        (b"1: 2\nname: x", "1"),
    ],
)
def test_file_that_is_no_recipe(content, message, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    with pytest.raises(BotvisionError, match=message) as raised:
        read_recipe(str(path))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch executed']",
        "!!python/object/new:os.system ['touch executed']",
        "!!python/object/apply:pathlib.Path.touch [executed]",
    ],
)
def test_python_in_yaml_executes_nothing(tag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "malicious.yaml"
    path.write_text(f"name: {tag}\n")
    with pytest.raises(BotvisionError, match="not YAML") as raised:
        read_recipe(str(path))
    assert "\n" not in str(raised.value)
    with pytest.raises(BotvisionError, match="not YAML"):
        read_recipe("demo", [f"name={tag}"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["malicious.yaml"]
