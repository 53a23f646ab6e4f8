"""Composition, what is refused in it, and the way from YAML to objects."""

from pathlib import Path

import pytest

from crgan_cli.config.build import build_from, build_group, import_class
from crgan_cli.config.choices import Choices
from crgan_cli.config.compose import compose
from crgan_cli.config.messages import quote_overrides
from crgan_cli.config.resolve import flatten, to_plain
from crgan_cli.config.settings import Run
from crgan_cli.config.stored import (
    Typed,
    difference,
    differing_keys,
    from_text,
    read_stored,
    to_text,
)
from crgan_cli.errors import UserError
from crgan_cli.gan.losses import Hinge
from crgan_cli.gan.regularizers.consistency import BalancedConsistency, LatentConsistency


def refused(*overrides: str, config_dir: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        compose(overrides, str(config_dir) if config_dir else None)
    return str(caught.value)


def test_every_choice_composes_and_is_right() -> None:
    groups = Choices().groups
    del groups["experiment"]
    for i in range(max(map(len, groups.values()))):
        overrides = [f"{group}={names[i % len(names)]}" for group, names in groups.items()]
        dataset = groups["dataset"][i % len(groups["dataset"])]
        needs_root = dataset in Choices().with_key("dataset", "root")
        needs_path = "extractor=torchscript" in overrides
        given = [*(["dataset.root=x"] * needs_root), *(["extractor.path=x"] * needs_path)]
        given += ["dataset.attributes=[Male]"] * (dataset == "attributes")
        compose([*overrides, *given])


@pytest.mark.parametrize("name", Choices().groups["experiment"])
def test_every_experiment_composes_and_is_right(name: str) -> None:
    published = compose([f"experiment={name}"]).published
    ours = name.startswith(
        ("demo", "sweep_", "cifar10_cpu", "r3gan")
    )  # nothing published that they are to reproduce
    without_fid = ("_facades", "_mnist", "stargan_celeba")  # nor have the papers of PGGAN's presets
    if ours or name.endswith(without_fid) or name.startswith("pggan_"):
        assert published.fid is None
        return
    assert published.fid > 0
    assert "arXiv" in published.source


def test_every_group_can_be_chosen_in_train_yaml() -> None:
    assert set(Choices().groups) == {*Choices().defaults(), "experiment"}


def test_the_defaults_are_those_of_the_readme() -> None:
    cfg = compose([])
    assert cfg.regularizer.lambda_cr == 10.0
    assert "demo" in cfg.dataset._target_.lower()
    assert cfg.metrics.num_samples == compose(["metrics=demo"]).metrics.num_samples
    assert "hydra" not in cfg


def test_the_command_line_wins_over_the_metrics_of_a_dataset() -> None:
    cfg = compose(["dataset=demo", "metrics=none"])
    assert cfg.metrics == {"_target_": {}}


def test_a_sum_of_regularizers_is_typed_as_a_list() -> None:
    cfg = compose(["regularizer=[cr,gp]", "regularizer.lambda_gp=3"])
    assert list(cfg.regularizer._target_) == ["cr", "gp"]
    assert (cfg.regularizer.lambda_cr, cfg.regularizer.lambda_gp) == (10.0, 3)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("regularizr=icr", "Unknown setting 'regularizr'. Did you mean 'regularizer'?"),
        ("+regularizr=icr", "Unknown setting 'regularizr'. Did you mean 'regularizer'?"),
        (
            "regularizer=icrr",
            "'icrr' in regularizer. Did you mean 'regularizer=icr'? Choices: ac,",
        ),
        (
            "regularizer=[cr,gpp]",
            "Unknown choice 'gpp' in regularizer. Did you mean 'regularizer=gp'?",
        ),
        (
            "regularizer.lambda_crr=3",
            "Unknown key 'lambda_crr' in regularizer. Did you mean 'regularizer.lambda_cr'?",
        ),
        (
            "+regularizer.lambda_crr=3",
            "Unknown key 'lambda_crr' in regularizer. Did you mean 'regularizer.lambda_cr'?",
        ),
        (
            "++regularizer.foo=3",
            "Unknown key 'foo' in regularizer. Keys: classes, every, lambda_cr.",
        ),
        ("regularizr.lambda_cr=3", "Did you mean 'regularizer.lambda_cr'?"),
        ("lambda_cr=3", "Did you mean 'regularizer.lambda_cr'?"),
        # the place of a key that was typed without its group, or with another one
        ("lr=1e-4", "Unknown setting 'lr'. Did you mean 'optimizer.lr_g' or 'optimizer.lr_d'?"),
        ("optimizer.lr=1e-4", "Did you mean 'optimizer.lr_g' or 'optimizer.lr_d'? Keys: lr_g,"),
        ("loss.lr_g=1e-4", "Unknown key 'lr_g' in loss. Did you mean 'optimizer.lr_g'?"),
        ("decay=0.9", "Did you mean 'ema.decay' or 'optimizer.decay'?"),
        # what other programs call it
        ("regularizer=wgan_gp", "Did you mean 'regularizer=gp'? Choices: ac,"),
        ("regularizer=[cr,wgan_gp]", "Did you mean 'regularizer=gp'?"),
        ("loss=wgan", "Did you mean 'loss=wasserstein'?"),
        ("regularizer.cr_lambda=3", "Did you mean 'regularizer.lambda_cr'?"),
        ("optimizer.n_critic=5", "'n_critic' in optimizer. Did you mean 'optimizer.n_dis'?"),
        ("lamda_cr=3", "Did you mean 'regularizer.lambda_cr'?"),
        ("lambda_gp=3", "regularizer=max_gp: type regularizer=gp regularizer.lambda_gp=VALUE"),
        ("defaults=3", "Unknown setting 'defaults'. 'crgan train --help'"),
        (
            "regularizer.lambda_gp=3",
            "Unknown key 'lambda_gp' in regularizer. It is a key of regularizer=",
        ),
        ("regularizer.lambda_cr=abc", "must be a number of at least 0, not 'abc'."),
        ("steps=2.5", "steps must be a whole number of at least 1, not 2.5."),
        ("seed=99999999999999999999", "seed must be a whole number from 0 to 2^63 - 1"),
        ("regularizer.lambda_cr=inf", "regularizer.lambda_cr must be a number of at least 0"),
        ("optimizer.beta1=1", "optimizer.beta1 must be a number of at least 0 and below 1"),
        ("out=2024", "out must be text or null, not 2024. Put it in quotes twice"),
        ("steps", "'steps' is not a setting of the form key=value. Type steps=VALUE."),
        ("icr", "Did you mean regularizer=icr?"),
        ("steps=", "steps=' has nothing on one side. Type key=value, without spaces"),
        ("=3", "'=3' has nothing on one side"),
        ("dataset.root=/a(b", "cannot be read"),
        ("seed=1,2", "'seed=1,2' has several values. Add -m to make one run of each."),
        ("regularizer=cr,gp", "or regularizer=[cr,gp] for their sum in one run"),
        (
            "regularizer=[cr,cr_gp]",
            "regularizer=cr_gp cannot be combined: both set 'cr' of regularizer",
        ),
        (
            "loss=[hinge,minimax]",
            "loss=hinge and loss=minimax cannot be combined: both set the only class of loss",
        ),
        (
            "~regularizer",
            "regularizer cannot be removed from the configuration. Type regularizer=none.",
        ),
        ("~loss", "'~loss': loss cannot be removed from the configuration."),
        ("~ema.decay", "'~ema.decay': ema.decay cannot be removed"),
        ("~loss._target_", "loss._target_ cannot be removed"),
        ("~architecture.widht", "Unknown key 'widht' in architecture. Did you mean"),
        ("~architecture.width", "architecture.width has no value yet"),
        ("+experiment=x", "experiment is always there. Type experiment=x"),
        ("++loss=hinge", "loss is always there. Type loss=hinge"),
        ("loss@x=hinge", "Type it without '@...'"),
        ("experiment=typo", "Unknown choice 'typo' in experiment."),
        ("foo/bar=x", "Unknown group 'foo/bar'. Groups: architecture, augment,"),
        (
            "hydra/launcher=x",
            "Unknown configuration file 'hydra/launcher/x'. Configuration files: basic",
        ),
        ("hydra.searchpath=[x]", "Type --config-dir DIR instead"),
        ("seed=${sed}", "seed refers to 'sed', which does not exist. Type its value."),
        ("dataset=folder", "dataset.root has no value yet. Type dataset.root=PATH"),
        ("loss._target_=os.system", "There is no class 'os.system' that crgan may build."),
    ],
)
def test_bad_input_is_answered_with_the_remedy(override: str, said: str) -> None:
    message = refused(override)
    assert said in message
    assert "append to your config" not in message  # Hydra's advice, which trains the default


@pytest.mark.parametrize("choice", ["r1", "r2"])
def test_gamma_is_the_weight_of_the_penalty_that_was_chosen(choice: str) -> None:
    """And not the keys of JSR and of top-k that have this name."""
    with pytest.raises(UserError, match=rf"Did you mean 'regularizer.lambda_{choice}'\? Keys: "):
        compose([f"regularizer={choice}", "regularizer.gamma=10"])
    with pytest.raises(UserError, match="It is a key of regularizer=jsr and regularizer=top_k"):
        compose(["regularizer=cr", "regularizer.gamma=10"])


def test_a_key_given_twice_counts_as_typed_last() -> None:
    assert quote_overrides(["seed=1,2", "steps=3", "seed=4"]) == ["seed=4", "steps=3"]
    assert compose(["seed=1", "seed=2"]).seed == 2


def test_a_path_is_taken_as_it_is_typed() -> None:
    for value in ("my photos/été 2025", "a~/x", "a#b"):
        (typed,) = quote_overrides([f"data_root={value}"])
        assert compose([typed]).data_root == value
    assert quote_overrides(["dataset.root=~/a b,c,2"]) == ["dataset.root='~/a b',c,2"]  # a sweep
    assert quote_overrides(["regularizer=[cr"]) == [
        "regularizer=[cr"
    ]  # a mistake in the grammar stays one


@pytest.mark.parametrize("words", [["steps", "=", "20"], ["steps=", "20"], ["steps", "=20"]])
def test_spaces_around_the_sign_are_named(words: list[str]) -> None:
    assert "without spaces around '='" in refused(*words)


def test_a_sum_in_which_one_value_would_be_lost_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "regularizer"
    folder.mkdir()
    lazy = "_target_: {lazy: crgan_cli.gan.R1}\nlambda_r1: 1.0\nevery: 16\n"
    (folder / "lazy.yaml").write_text(lazy)
    with pytest.raises(UserError, match=r"=cr and regularizer=lazy .* both set 'every' of reg"):
        compose(["regularizer=[cr,lazy]"], config_dir=str(tmp_path))


def test_several_mistakes_are_told_together() -> None:
    message = refused("seed=-1", "regularizer.lambda_cr=x", "+foo=1")
    assert message.startswith("The configuration has 3 problems:\n  - ")


def test_a_folder_of_ones_own_adds_choices(tmp_path: Path) -> None:
    folder = tmp_path / "it's mine"
    (folder / "regularizer").mkdir(parents=True)
    (folder / "experiment").mkdir()
    (folder / "regularizer" / "strong.yaml").write_text("defaults: [cr]\nlambda_cr: 99.0\n")
    (folder / "experiment" / "row.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /regularizer: strong\nsteps: 7\n"
    )
    cfg = compose(["experiment=row", "steps=8"], str(folder))
    assert (cfg.regularizer.lambda_cr, cfg.steps) == (99.0, 8)
    assert "strong" in refused("regularizer=strog", config_dir=folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\nb: 2\n", "row.yaml, line 3 is not valid YAML"),
        ("steps: 1\nsteps: 2\n", "row.yaml, line"),
        ("defaults:\n  - override /regularizer: icrr\n", "Did you mean 'regularizer=icr'?"),
        ("defaults:\n  - override /regularizr: icr\n", "Did you mean 'regularizer'?"),
        ("regularizer:\n  lambda_crr: 3\n", "Did you mean 'regularizer.lambda_cr'?"),
        ("stepz: 3\n", "Did you mean 'steps'?"),
        ("steps: ${batch_sise}\n", "steps refers to 'batch_sise', which does not exist"),
        ("steps: ${oc.env:CRGAN_NO_SUCH}\n", "steps cannot be resolved"),
        ("regularizer: 3\n", "regularizer"),
    ],
)
def test_a_mistake_in_ones_own_file_is_found(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "row.yaml").write_text(f"# @package _global_\n{text}")
    message = refused("experiment=row", config_dir=tmp_path)
    assert said in message
    assert "Traceback" not in message


def test_a_missing_config_dir_is_named(tmp_path: Path) -> None:
    assert f"--config-dir {tmp_path}/none: there is no such folder." in refused(
        config_dir=tmp_path / "none"
    )


def test_text_and_back_is_the_same_configuration() -> None:
    cfg = compose(["regularizer=icr", "out='1e3'"])
    again = from_text(to_text(cfg))
    assert to_plain(again) == to_plain(cfg)
    assert again.out == "1e3"


@pytest.mark.parametrize("text", ["", "- a", "a: [", "3"])
def test_text_that_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"run\.yaml"):
        from_text(text, "run.yaml")


def test_a_strangers_text_names_no_class_of_theirs() -> None:
    text = to_text(compose([])).replace("crgan_cli.gan.NonSaturating", "os.system")
    with pytest.raises(UserError, match=r"In run.yaml: loss: There is no class 'os.system'"):
        from_text(text, "run.yaml")


def test_the_difference_is_what_matters_to_training() -> None:
    old = compose([])
    new = compose(["regularizer.lambda_cr=5", "device=cpu", "out=x", "checkpoint.keep=9"])
    assert difference(old, new) == ["regularizer.lambda_cr: 10 -> 5"]
    assert difference(old, old) == []
    assert "regularizer.sigma: (absent) -> 0.03" in difference(old, compose(["regularizer=icr"]))


def test_run_gives_the_settings_outside_the_groups() -> None:
    run = Run.from_config(compose(["ema.decay=0.999", "steps=5"]))
    assert (run.steps, run.ema.decay, run.samples.num, run.out) == (5, 0.999, 64, None)


@pytest.mark.parametrize(
    "dotted",
    [
        "crgan_cli.commands.main.os.system",
        "crgan_cli.commands.main.os",
        "crgan_cli.commands.main.main",  # a function
        "crgan_cli.config.compose.Path",  # a class, but defined elsewhere
        "crgan_cli.gan.Hinges",
        "os.system",
        "torch.nn.Linear",
        "subprocess.Popen",
        "x",
        "",
    ],
)
def test_only_classes_defined_here_are_located(dotted: str) -> None:
    with pytest.raises(UserError, match="no class that crgan may build"):
        import_class(dotted)


def test_a_class_is_located_where_it_is_defined() -> None:
    assert import_class("crgan_cli.gan.Hinge") is Hinge
    assert import_class("torch.optim.Adam").__name__ == "Adam"


def test_a_group_of_one_class_is_an_object_and_of_several_a_dict() -> None:
    assert isinstance(build_group({"_target_": "crgan_cli.gan.Hinge"}), Hinge)
    built = build_group(compose(["regularizer=icr", "regularizer.sigma=0.5"]).regularizer)
    assert isinstance(built["bcr"], BalancedConsistency)
    assert isinstance(built["zcr"], LatentConsistency)
    assert built["zcr"].sigma == 0.5
    assert build_group({"_target_": {}}) == {}


def test_a_key_that_no_class_takes_is_refused_when_building() -> None:
    with pytest.raises(UserError, match="lambda_cr: no setting of Hinge"):
        build_group({"_target_": "crgan_cli.gan.Hinge", "lambda_cr": 1})


class Wheel:
    def __init__(self, size: int, colour: str = "red") -> None:
        self.size = size
        self.colour = colour


def test_pick_takes_what_a_class_asks_for() -> None:
    wheel = build_from(Wheel, {"size": 3, "other": 1}, colour="blue")
    assert (wheel.size, wheel.colour) == (3, "blue")
    with pytest.raises(UserError, match="Wheel has no value for size"):
        build_from(Wheel, {})


def test_the_channels_of_a_pair_are_the_sum_and_no_mistake_hides_in_it(tmp_path: Path) -> None:
    pair = ["dataset=pairs", f"dataset.root={tmp_path}"]
    config = compose([*pair, "dataset.channels_in=1"])
    assert config.dataset.channels == 4
    assert from_text(to_text(config)).dataset.channels == 4
    said = refused(*pair, "dataset.channels_in=grey")
    assert "dataset.channels_in must be a whole number of at least 1, not 'grey'" in said


def test_a_value_that_is_not_finite_is_refused() -> None:
    assert "must be a number" in refused("regularizer.lambda_cr=nan")


def test_a_key_of_an_experiment_for_another_choice_is_dropped_as_the_message_says(
    tmp_path: Path,
) -> None:
    (tmp_path / "experiment").mkdir()
    child = tmp_path / "experiment/child.yaml"
    child.write_text("# @package _global_\ndefaults: [demo_cyclegan]\nsteps: 5\n")
    for experiment in ("demo_cyclegan", "child"):
        words = [f"experiment={experiment}", "architecture=unet"]
        message = refused(*words, config_dir=tmp_path)
        said = "experiment/demo_cyclegan.yaml sets it, for its own architecture. "
        assert f"'blocks' in architecture. {said}Add '~architecture.blocks' to drop it" in message
        config = compose([*words, "~architecture.blocks"], str(tmp_path))
        assert "blocks" not in config.architecture
        assert config.architecture.width == 0.25  # what both have stays
        typed = refused(*words, "architecture.blocks=3", config_dir=tmp_path)
        assert "Unknown key 'blocks' in architecture. Keys:" in typed


def test_a_key_of_a_stored_run_cannot_be_dropped() -> None:
    stored = to_text(compose([]))
    with pytest.raises(UserError, match=r"engine\.threads cannot be removed"):
        from_text(stored, "a run", typed=Typed(["~engine.threads"], ("engine",), "--from"))


@pytest.mark.parametrize("name", ["accumulate", "init_from", "freeze_d", "early_stop"])
def test_a_key_of_the_run_that_an_older_crgan_did_not_have_counts_with_its_default(
    name: str,
) -> None:
    now = to_plain(compose([]))
    before = {key: value for key, value in now.items() if key != name}
    assert differing_keys(flatten(before), flatten(now)) == []
    assert difference(before, now) == []
    assert difference({**before, "batch_size": 32}, now) == ["batch_size: 32 -> 64"]


def test_a_run_from_before_there_was_a_group_is_what_it_was(tmp_path: Path) -> None:
    """Read for resuming, and compared with today's settings: nothing differs."""
    now = compose(["regularizer=jsr"])
    lines = to_text(now).splitlines()
    start = lines.index("augment_both:")
    older = "\n".join(lines[:start] + lines[start + 2 :])
    older = older.replace("sampler:\n  _target_: crgan_cli.data.Shuffle\n", "")
    older = older.replace("  anneal: 1.0\n", "").replace("  anneal_steps: null\n", "")
    older = older.replace("accumulate: 1\n", "")
    assert "anneal" not in older
    assert "sampler" not in older
    assert from_text(older).augment_both == {"_target_": {}}
    assert difference(read_stored(older, "OLD"), to_plain(now)) == []
    longer = compose(["regularizer=jsr", "steps=400000", "accumulate=2"])
    assert difference(read_stored(older, "OLD"), to_plain(longer)) == []
    balanced = to_plain(compose(["regularizer=jsr", "sampler=balanced"]))
    assert difference(read_stored(older, "OLD"), balanced) == [
        "sampler._target_: crgan_cli.data.Shuffle -> crgan_cli.data.Balanced"
    ]
