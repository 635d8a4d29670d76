"""Recipes from their bases: what is merged, and mistakes in it."""

import copy

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from botvision.errors import BotvisionError
from botvision.recipes.composition import composed, merged, recipe_names
from botvision.recipes.reading import read_recipe

KEYS = st.sampled_from("abc")
VALUES = st.one_of(st.integers(), st.none(), st.lists(st.integers(), max_size=2))
GROUPS = st.recursive(
    st.dictionaries(KEYS, VALUES, max_size=3),
    lambda inner: st.dictionaries(KEYS, st.one_of(VALUES, inner), max_size=3),
    max_leaves=8,
)


def leaves(group, path=()):
    """Values by their path; an empty group is a value, as it says that there is a group."""
    found = {}
    for key, value in group.items():
        if isinstance(value, dict) and value:
            found |= leaves(value, (*path, key))
        else:
            found[(*path, key)] = value
    return found


def agree(one, other):
    """Whether neither of two paths leads through the other."""
    length = min(len(one), len(other))
    return one[:length] != other[:length]


@given(GROUPS, GROUPS)
def test_what_is_above_counts_and_what_it_does_not_touch_stays(below, above):
    before = copy.deepcopy((below, above))
    found = leaves(merged(below, above))
    assert (below, above) == before
    for path, value in leaves(above).items():
        if value != {}:
            assert found[path] == value
    untouched = {
        path: value
        for path, value in leaves(below).items()
        if all(agree(path, other) for other in leaves(above))
    }
    assert untouched.items() <= found.items()
    assert found.keys() <= leaves(below).keys() | leaves(above).keys()


@given(GROUPS)
def test_nothing_and_the_same_change_nothing(group):
    assert merged(group, {}) == merged({}, group) == merged(group, group) == group


@pytest.fixture
def write(tmp_path):
    """Writes a recipe file; gives its path as a string."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        path.write_text(text)
        return str(path)

    return write


def test_a_recipe_on_one_of_ours(write):
    path = write("mine.yaml", "base: demo\nname: mine\ntraining: {epochs: 3}\n")
    mine, demo = read_recipe(path), read_recipe("demo")
    assert mine.name == "mine"
    assert mine.training == demo.training.model_copy(update={"epochs": 3})
    assert mine.model == demo.model
    assert mine.data == demo.data
    # The base's figures and command are not this recipe's.
    assert demo.about is not None
    assert mine.about is None


def test_a_recipe_on_a_row_of_the_paper(write):
    mine = read_recipe(write("mine.yaml", "base: table5_botnet101\nname: mine\ndata: {flip: 0}\n"))
    row = read_recipe("table5_botnet101")
    assert (mine.model, mine.training) == (row.model, row.training)
    assert mine.model.backbone == "botnet101"
    assert mine.data == row.data.model_copy(update={"flip": 0.0})


def test_the_name_is_not_the_bases(write):
    with pytest.raises(BotvisionError, match="name: Field required"):
        read_recipe(write("mine.yaml", "base: demo\n"))


def test_later_bases_override_earlier_ones_and_the_file_all(write, monkeypatch, tmp_path):
    write("parts/one.yaml", {"training": {"epochs": 1, "seed": 1, "num_workers": 1}})
    write("parts/two.yml", {"base": "deep/three.yaml", "training": {"seed": 2, "num_workers": 2}})
    write("parts/deep/three.yaml", {"training": {"seed": 3, "batch_size": 3, "milestones": [0.5]}})
    path = write(
        "mine.yaml",
        {
            "base": ["parts/one.yaml", "parts/two.yml"],
            "name": "mine",
            "training": {"num_workers": 0, "milestones": [0.1, 0.2]},
        },
    )
    monkeypatch.chdir(tmp_path / "parts")  # a path is relative to the file that names it
    found = read_recipe(path).training
    assert (found.epochs, found.seed, found.num_workers, found.batch_size) == (1, 2, 0, 3)
    assert found.milestones == (0.1, 0.2)


def test_a_piece_of_ours_is_no_recipe_but_a_base(write):
    assert "tpu_schedule" not in recipe_names()
    with pytest.raises(BotvisionError, match="'tpu_schedule' is unknown"):
        read_recipe("tpu_schedule")
    path = write("mine.yaml", "base: [small_scenes, tpu_schedule]\nname: mine\n")
    mine = read_recipe(path)
    assert mine.training.learning_rate == 0.08
    assert mine.training.ema_decay == 0.98
    assert mine.model.image_size == 128


def test_one_file_twice_is_no_circle(write):
    write("a.yaml", "training: {epochs: 5}")
    write("b.yaml", "base: a.yaml")
    path = write("mine.yaml", "base: [b.yaml, a.yaml]\nname: mine\n")
    assert read_recipe(path).training.epochs == 5


def test_another_detector_keeps_what_it_has_too(write):
    path = write(
        "mine.yaml", "base: finetune\nname: mine\nmodel: {detector: detr, num_queries: 30}\n"
    )
    mine, finetune = read_recipe(path).model, read_recipe("finetune").model
    assert (mine.detector, mine.num_queries) == ("detr", 30)
    shared = ("backbone", "image_size", "batch_norm")
    assert all(getattr(mine, key) == getattr(finetune, key) for key in shared)
    path = write("boxes.yaml", "base: demo\nname: boxes\nmodel: {detector: faster_rcnn}\n")
    demo = read_recipe("demo").model
    assert read_recipe(path).model == demo.model_copy(update={"detector": "faster_rcnn"})


def test_what_a_run_folder_holds_has_no_base(write, tmp_path):
    recipe = read_recipe(write("mine.yaml", "base: demo\nname: mine\n"))
    content = recipe.model_dump(mode="json")
    assert "base" not in content
    assert read_recipe(write("resolved.yaml", content)) == recipe


def test_a_base_cannot_be_set(write):
    with pytest.raises(BotvisionError, match="base: no such key"):
        read_recipe("demo", ["base=finetune"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"mine.yaml": "base: mine.yaml"}, r"its own base: .*mine\.yaml -> .*mine\.yaml$"),
        (
            {"mine.yaml": "base: x/a.yaml", "x/a.yaml": "base: ../mine.yaml"},
            r"its own base: .*mine\.yaml -> .*a\.yaml -> .*mine\.yaml$",
        ),
        ({"mine.yaml": "base: dmo"}, r"base: 'dmo' is unknown; did you mean demo\?"),
        ({"mine.yaml": "base: tpu_shedule"}, r"did you mean tpu_schedule\?"),
        ({"mine.yaml": "base: quite different"}, r"base: 'quite different' is unknown\. Exp"),
        ({"mine.yaml": "base: nowhere.yaml"}, r"nowhere\.yaml: no such recipe file$"),
        ({"mine.yaml": "base: x.yaml", "x.yaml/a": ""}, r"x\.yaml: no such recipe file$"),
        ({"mine.yaml": "base: a.yaml", "a.yaml": "- 1"}, r"a\.yaml: .*keys and values, got list"),
        ({"mine.yaml": "base: a.yaml", "a.yaml": "a: [1"}, r"a\.yaml: not YAML"),
        ({"mine.yaml": "base: 3"}, r"base: expected a name or a list of names, got 3"),
        ({"mine.yaml": "base: [demo, 3]"}, r"base: expected a name or a list of names, got \["),
        ({"mine.yaml": "base: {a: b}"}, r"base: expected a name or a list of names, got {"),
        ({"mine.yaml": "base: demo\nmodel: 3"}, r"model: .*got 3"),
        (
            {"mine.yaml": "base: a.yaml", "a.yaml": "name: !!python/name:os.system"},
            r"a\.yaml: not YAML",
        ),
    ],
)
def test_mistake(files, message, write):
    for name, content in files.items():
        path = write(name, content)
    path = write("mine.yaml", files["mine.yaml"] + "\nname: mine\n")
    with pytest.raises(BotvisionError, match=message) as raised:
        read_recipe(path)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(path.removesuffix("mine.yaml"))


def test_the_librarys_content_is_not_changed_by_reading_it():
    before = composed("small_table4_content_only")
    read_recipe("small_table4_content_only", ["model.backbone_arguments.position=absolute"])
    assert composed("small_table4_content_only") == before
