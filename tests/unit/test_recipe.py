import re
import shlex

import pytest
import yaml

from toasterft import recipe
from toasterft.errors import RecipeError


def test_file_words_and_flags_become_one_recipe(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("method: sft\nlearning_rate: 2e-4\nlora:\n  r: 8\nmodel: a/b\n")
    found = recipe.load(
        "sft", str(file), ["lora.lora_alpha=64", "learning_rate=5e-5"], {"model": "c/d", "seed": None}
    )
    assert (found.learning_rate, found.lora.r, found.lora.lora_alpha, found.model, found.seed) == (
        5e-5,
        8,
        64,
        "c/d",
        42,
    )


def test_yaml_floats_without_a_dot_are_numbers():
    # PyYAML reads 2e-4 as a string.
    assert recipe.load("sft", None, ["learning_rate=2e-4"]).learning_rate == 2e-4


def test_dump_and_load_are_inverse():
    found = recipe.load(
        "sft", None, ["lora.r=4", "report_to=[tensorboard]", "prompt.system=Be brief.", "max_steps=3"]
    )
    assert recipe.validate(recipe.Sft, yaml.safe_load(recipe.dump(found)), "x") == found


def test_null_switches_a_section_off_and_a_dotted_key_on_again():
    assert recipe.load("sft", None, ["lora=null", "load_in_4bit=false"]).lora is None
    assert recipe.load("sft", None, ["lora=null", "lora.r=2"]).lora.r == 2


def test_every_mistake_is_reported_at_once_with_suggestions():
    words = ["lr=1", "lora.rnk=8", "max_length=abc", "engine=foo", "per_device_train_batch_size=0", "zzz=1"]
    with pytest.raises(RecipeError) as caught:
        recipe.load("sft", None, words)
    text = str(caught.value)
    assert "6 problems" in text
    for expected in (
        "lr: unknown key — did you mean learning_rate?",
        "lora.rnk: unknown key — did you mean lora.r?",
        "max_length: ",
        "got 'abc'",
        "engine: input should be 'auto', 'plain' or 'unsloth', got 'foo'",
        "per_device_train_batch_size: input should be greater than or equal to 1, got 0",
        "zzz: unknown key",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lora=null"], "4-bit weights cannot be trained"),
        (["load_best_model_at_end=true"], "needs eval_steps"),
        (["load_best_model_at_end=true", "eval_steps=20"], "multiple of"),
    ],
)
def test_settings_that_contradict_each_other(words, says):
    with pytest.raises(RecipeError, match=says):
        recipe.load("sft", None, words)


def test_a_recipe_for_another_method_is_refused(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("method: grpo\n")
    with pytest.raises(RecipeError, match="for `grpo`, not `sft`"):
        recipe.load("sft", str(file))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1\n", "mapping"),
        ("\xff", "unknown key|cannot be read|mapping|valid YAML"),
    ],
)
def test_broken_files(tmp_path, content, says):
    file = tmp_path / "x.yaml"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(RecipeError, match=says):
        recipe.load("sft", str(file))


def test_unknown_recipe_names_the_nearest():
    name = next(iter(recipe.shipped()))
    with pytest.raises(RecipeError, match="did you mean"):
        recipe.find(name[:-1] + "x")


@pytest.mark.parametrize("name", sorted(recipe.shipped()))
def test_shipped_recipes_load_and_say_how_to_launch_them(name):
    path = recipe.shipped()[name]
    data = recipe.read_yaml(path)
    if "stages" not in data and "matrix" not in data:
        recipe.load(data["method"], str(path))
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("toasterft " in line for line in header), "no launch line in the header"


def test_fields_are_documented():
    for method, schema in recipe.RECIPES.items():
        for key, (_, about) in recipe.fields(schema).items():
            assert about or key == "method", f"{method}: {key} says nothing about itself"


def commands_of(path):
    """Every training command in a recipe's comments, lines of settings below it joined: (line, words)."""
    joined = re.sub(r"\n#     (?=[a-z_.]+=)", " ", path.read_text())
    for line in re.findall(r"^# (?:.*?)(toasterft \S.*)$", joined, flags=re.MULTILINE):
        line = re.split(r" {3,}| \(add ", line)[0].replace("<", "").replace(">", "")
        words = shlex.split(re.sub(r"\{.*?\}", lambda braces: f"'{braces[0]}'", line))[1:]
        if words[0] in recipe.RECIPES and words[0] not in ("eval", "ask", "pairs"):
            yield line, words


def resolved(words):
    """The recipe a command line means, as the commands resolve it: a recipe's name, flags, settings."""
    method, *rest = words
    fields, source, settings = {}, None, []
    while rest:
        word = rest.pop(0)
        if word in ("--model", "--data", "--out"):
            fields[word[2:]] = rest.pop(0)
        elif word.startswith("--"):
            continue
        elif "=" in word:
            settings.append(word)
        elif source is None and word in recipe.shipped():
            source = word
    fields.pop("out", None)
    return recipe.load(method, source, settings, fields)


@pytest.mark.parametrize("name", sorted(recipe.shipped()))
def test_commands_in_a_recipe_train_its_model_on_its_data(name):
    """A command in the comments means the recipe's own model and data, unless a placeholder says whose."""
    path = recipe.shipped()[name]
    own = recipe.read_yaml(path)
    found = list(commands_of(path))
    assert found or own["method"] == "eval"
    for line, words in found:
        meant = resolved(words)
        given = " ".join(words)
        if "runs/" not in given and own["method"] != "eval":
            assert meant.model == own.get("model", meant.model), line
        if "--data" not in given and "data=" not in given and own["method"] != "eval":
            assert meant.data == own.get("data", meant.data), line


def settings_of(text):
    """`key=value` words in a line of a recipe's header, braces kept together."""
    return [f"{key}={value}" for key, value in re.findall(r"([a-z_.]+)=(\{.*?\}|\S+)", text)]


def test_every_ablation_in_dyme_s_header_is_a_setting():
    header = [
        line
        for line in recipe.find("dyme").read_text().splitlines()
        if re.match(r"#   [a-z_]+=", line) is not None
    ]
    assert len(header) >= 11
    plain = recipe.load("dyme", "dyme").model_dump()
    for line in header:
        words = settings_of(re.split(r" {3,}", line.removeprefix("#   "))[0])
        found = recipe.load("dyme", "dyme", words).model_dump()
        changed = {key for key, value in found.items() if value != plain[key]}
        assert changed == {word.partition("=")[0] for word in words}, line


def test_what_dyme_is_measured_against_sees_the_same_prompts():
    dyme = recipe.load("dyme", "dyme")
    found = {words[0]: resolved(words) for _, words in commands_of(recipe.find("dyme"))}
    sft, grpo = found["sft"], found["grpo"]
    assert sft.per_device_train_batch_size * sft.gradient_accumulation_steps == dyme.prompts_per_step
    assert sft.learning_rate == dyme.learning_rate
    shared = set(recipe.Grpo.model_fields) - {"method"}
    assert {key for key in shared if getattr(grpo, key) != getattr(dyme, key)} == set()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["anneal=true", "soft_power=2"], "choose one"),
        (["memorise=false", "explore=false"], "nothing would be learned"),
        (["rewards={format: 1}"], "needs accuracy"),
        (["switch_threshold=0.5", "rewards={accuracy: 0, format: 0}"], "positive weight"),
        (["memorise_until=0"], "memorise_until"),
        (["refine=false"], "did you mean refiner"),
    ],
)
def test_a_switch_that_cannot_act_is_refused(words, said):
    with pytest.raises(RecipeError, match=said):
        recipe.load("dyme", None, words)


def test_a_cell_of_a_limited_matrix_has_no_seed_of_its_own():
    cells = {"models": {"a": {"model": "toast-tiny", "seed": 3}}}
    assert recipe.validate(recipe.Matrix, {"method": "eval", "matrix": cells}, "").matrix.models
    with pytest.raises(RecipeError, match="seed is set for all"):
        recipe.validate(recipe.Matrix, {"method": "eval", "matrix": cells, "limit": 2}, "")
