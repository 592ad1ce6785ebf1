"""Recipe vgs against the numbers of the published run (docs/vgs.md); what they follow from is in its code and README."""

from __future__ import annotations

from dataclasses import replace

from pipelines.evaluate import block_rows, explorers
from pipelines.recipes import vgs

LABELS = 44_509 * 56


def test_search_has_the_readme_and_the_headline_budget() -> None:
    config = vgs().evaluate
    tree = replace(config.beam, groups=1)
    assert (tree.keep, tree.branch, tree.block, tree.budget) == (4, 2, 4096, 8)  # --num_blocks 8, beam2
    assert replace(tree, groups=16).budget == 128  # --num_repetitions 16
    assert config.beam.budget == max(config.budgets) == 256
    assert 128 in config.budgets
    # A budget is reported when whole trees make it, and beside the same number of samples.
    assert all(budget % tree.budget == 0 and budget <= config.samples for budget in config.budgets)
    assert (tree.finished, tree.rank, tree.choose) == ("retire", "tree", "value")
    assert (config.sampling.temperature, config.sampling.top_p, config.sampling.max_tokens) == (0.6, 0.95, 16_384)


def test_every_actor_of_the_evaluation_has_searches() -> None:
    config = vgs().evaluate
    searches, actors = 120 * len(explorers(config)), config.resources.replicas  # four contests of 30 problems
    assert searches // block_rows(searches, actors) >= 3 * actors
    assert block_rows(searches, 1) == 32
    assert block_rows(3, 8) == 1


def test_training_has_the_published_numbers() -> None:
    config = vgs().resolved_train
    assert config.steps == 5 * (LABELS // config.batch_size)  # five epochs
    assert config.steps / config.checkpoint_every > 25
    assert (config.lr, config.min_lr_share, config.warmup_share, config.min_warmup_steps) == (1e-4, 0.1, 0.05, 100)
    assert (config.betas, config.eps, config.weight_decay, config.clip_norm) == ((0.9, 0.95), 1e-6, 0.1, 5.0)
    assert (config.dropout, config.attention_dropout, config.group_size, config.batch_size, vgs().seed) == (
        0.05,
        0.0,
        2,
        1024,
        1337,
    )
    assert (config.loss, config.num_labels, config.init) == ("outcome", 3, vgs().policy.model)


def test_data_has_the_published_counts() -> None:
    recipe = vgs()
    assert recipe.roll_in.per_problem * recipe.roll_out.cuts == 56
    assert [generator.name for generator in recipe.roll_in.generators] == ["1.5B", "7B", "14B", "32B"]
    assert (recipe.clean.validation, recipe.clean.test, recipe.clean.contamination) == (500, 500, 0.0)
    assert recipe.label.hopeless_share == 0
