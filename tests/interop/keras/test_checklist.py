"""All that Keras's documents promise, line by line: what tests it, and against what.

Keras 2 is tf_keras, which is run with TensorFlow.
"""

import ast
import functools
from pathlib import Path
from typing import NamedTuple

import pytest

import jopt


TESTS = Path(__file__).parents[2]
PARITY = "parity/test_parity: test_every_step_equals_the_library"
RECIPES = (
    "keras/test_front_door: "
    "test_a_factory_is_the_recipe_of_the_parity_rows_or_has_their_numbers"
)
TOGETHER = "keras/test_front_door: test_options_together_have_the_numbers_of_keras"
LEGACY = "test_keras2: test_every_step_and_what_is_kept_are_those_of_keras_2"
SCHEDULES = "test_schedules: test_every_value_equals_the_library"


class Line(NamedTuple):
    """One line of the list."""

    what: str
    against: str
    tests: tuple[str, ...]


def optimizers(against, *more):
    """A line about optimizers that the table of parity has."""
    return against, (PARITY, RECIPES, TOGETHER, *more)


LINES = {
    1: Line(
        "a name in any case",
        "the configs of the real Keras",
        (
            "keras/test_front_door: test_names_in_any_case_have_the_config_of_keras",
            "keras/test_front_door: test_wrong_input_says_what_is_wrong",
        ),
    ),
    2: Line(
        "a dict with class_name and config, of Keras 3, 2.11 and before",
        "serialize of the real Keras 3 and of Keras 2; that of Keras 1 as published",
        (
            "keras/test_front_door: test_configs_of_keras_go_through_get_and_back",
            "keras/test_front_door: test_legacy_configs_are_told_apart",
            "keras/test_front_door: test_no_config_is_changed_by_reading_it",
            "test_keras2: test_configs_of_keras_2_are_read_and_written",
            "test_text: test_a_dict_of_keras_gives_keras_numbers",
        ),
    ),
    3: Line(
        "aliases: experimental names, three loss scales",
        "configs of Keras 2; TensorFlow's table of names, as published",
        (
            "keras/test_front_door: test_legacy_configs_are_told_apart",
            "test_keras2: test_loss_scales_of_keras_2_are_read_and_written",
        ),
    ),
    4: Line("SGD", *optimizers("Keras, torch")),
    5: Line(
        "RMSprop, and the one of Keras 2",
        *optimizers(
            "Keras 3, Keras 2, torch",
            LEGACY,
        ),
    ),
    6: Line(
        "Adam, AdamW, amsgrad",
        *optimizers(
            "Keras, torch; the formula of the documents",
            "test_keras_examples: "
            "test_four_methods_of_keras_and_two_of_ours_give_the_same_adam",
        ),
    ),
    7: Line("Adadelta", *optimizers("Keras, torch")),
    8: Line("Adagrad, from zero too", *optimizers("Keras, torch")),
    9: Line("Adamax", *optimizers("Keras, torch")),
    10: Line(
        "Nadam, and the one of Keras 2",
        *optimizers(
            "Keras 3, Keras 2, torch",
            LEGACY,
        ),
    ),
    11: Line(
        "Ftrl: powers, regularization, exact zeros",
        *optimizers(
            "Keras, pytorch_optimizer",
            "test_ftrl: test_l1_of_ftrl_makes_weights_exactly_zero",
            "laws: zero_tiny_and_huge_gradients_give_finite_updates",
        ),
    ),
    12: Line(
        "Lion, Lamb, Adafactor, Muon, ScheduleFreeAdamW",
        *optimizers(
            "Keras on its JAX backend; torch, the authors' packages",
            "test_schedule_free: test_both_points_are_those_of_the_authors_package",
        ),
    ),
    13: Line(
        "LossScaleOptimizer of Keras 3 and 2, torch, flax, jmp",
        "scales recorded of each",
        (
            "test_keras2: test_the_loss_scale_of_keras_2_goes_as_there",
            "test_loss_scale: test_every_scale_count_and_gradient_is_the_librarys",
            "test_loss_scale: test_no_scale_reaches_zero_or_infinity",
            "test_guards: test_a_fault_at_any_step_changes_nothing_but_counters",
            "keras/test_front_door: test_the_loss_scales_of_tensorflow_2_3_are_read",
        ),
    ),
    14: Line(
        "clipnorm, clipvalue, global_clipnorm",
        *optimizers(
            "Keras; infinite norms by law",
            "test_clipping: "
            "test_clipping_a_norm_that_is_not_finite_gives_nan_and_never_zeros",
        ),
    ),
    15: Line("weight decay of every optimizer, and exclusions", *optimizers("Keras")),
    16: Line(
        "averages of the parameters",
        *optimizers(
            "Keras",
            "test_averaging: "
            "test_an_ema_overwrites_the_parameters_as_often_as_it_is_told",
        ),
    ),
    17: Line("gradient accumulation, and its two clocks", *optimizers("Keras")),
    18: Line(
        "the schedules of Keras 3, at steps beyond float32 too",
        "Keras; exact fractions",
        (
            SCHEDULES,
            "keras/test_front_door: test_a_schedule_is_that_of_the_parity_rows",
            "test_schedules: "
            "test_every_value_is_exact_at_steps_that_float32_does_not_have",
            "test_schedules: "
            "test_a_restart_is_at_the_step_that_the_decimal_number_means",
        ),
    ),
    19: Line(
        "decay, LinearCosineDecay, NoisyLinearCosineDecay of Keras 1 and 2",
        "Keras 2 and TensorFlow; exact fractions; for the noise its formula",
        (
            LEGACY,
            "test_keras2: test_linear_cosine_decay_is_that_of_tensorflow",
            "keras/test_front_door: test_the_other_old_optimizers_are_those_of_keras_3",
            "keras/test_front_door: test_the_noisy_schedule_of_keras_2_is_its_formula",
            "test_schedules: "
            "test_every_value_is_exact_at_steps_that_float32_does_not_have",
        ),
    ),
    20: Line(
        "every scheduler of torch, and the momentum that two of them turn",
        "torch",
        (
            SCHEDULES,
            "test_schedules: test_every_scheduler_of_the_library_has_a_row",
            "torch/test_front_door: test_a_scheduler_has_the_rates_of_torch",
            "torch/test_front_door: "
            "test_groups_clipping_and_schedulers_have_the_numbers_of_torch",
        ),
    ),
    21: Line(
        "ReduceLROnPlateau by three rules",
        "Keras, torch, optax",
        (
            "transforms/test_plateau: test_every_learning_rate_equals_the_library",
            "transforms/test_plateau: test_the_rules_differ_by_one_value",
            "keras/test_plateau: test_it_sets_the_rates_of_keras",
            "keras/test_plateau: test_training_goes_as_with_the_callback_of_keras",
        ),
    ),
    22: Line(
        "apply_gradients, with Keras's errors; TrainState; optax.chain",
        "Keras's messages; flax and optax themselves",
        (
            "keras/test_front_door: "
            "test_variables_without_a_gradient_stay_and_so_does_what_is_kept_for_them",
            "keras/test_front_door: test_wrong_input_says_what_is_wrong",
            "test_keras_examples: "
            "test_a_list_of_gradients_is_applied_to_a_list_of_variables",
            "test_flax: test_flax_train_state_takes_jopt_as_it_is",
            "test_optax: test_inside_an_optax_wrapper_jopt_gives_the_same_numbers",
        ),
    ),
    23: Line(
        "gradients of replicas, before clipping",
        "one device",
        (
            "test_aggregate: test_in_shard_map_it_is_the_gradient_of_the_whole_batch",
            "test_aggregate: "
            "test_under_pmap_and_over_two_axes_an_optimizer_steps_as_on_one_device",
            "test_keras_examples: "
            "test_gradients_of_replicas_add_up_by_hand_and_in_a_chain",
        ),
    ),
    24: Line(
        "get_weights and set_weights in three layouts",
        "Keras 3, both ways; Keras 2; the documents' example",
        (
            LEGACY,
            "interop/test_states: test_the_example_of_keras_2_works_as_it_is_printed",
            "interop/test_states: test_six_steps_there_and_six_here_are_twelve_there",
            "interop/test_states: "
            "test_three_more_steps_there_after_three_here_are_twelve_there",
            "interop/test_states: test_each_layout_of_keras_is_read_and_written",
            "keras/test_files: "
            "test_weights_of_the_wrong_number_shape_or_order_are_refused",
        ),
    ),
    25: Line(
        ".keras and .h5 files",
        "files that Keras 3 and 2 saved",
        (
            "test_keras2: test_files_of_keras_2_go_on_as_there",
            "keras/test_files: test_what_a_file_of_keras_holds_goes_on_as_in_keras",
            "interop/test_states: test_a_file_of_keras_is_loaded",
            "interop/test_states: test_a_file_of_an_old_keras_is_loaded",
        ),
    ),
    26: Line(
        "sparse gradients",
        "torch's SparseAdam, Keras on BCOO",
        (
            "test_row_sparse: "
            "test_lazy_steps_are_those_of_torch_and_dense_ones_those_of_keras",
            "test_row_sparse: "
            "test_a_step_makes_no_array_of_the_tables_size_but_writes_rows_in_place",
            "test_row_sparse: test_rows_are_summed_up_and_padding_is_dropped",
            "test_row_sparse: "
            "test_touched_rows_are_a_leaf_of_their_own_and_others_stay",
        ),
    ),
    27: Line(
        "an optimizer of one's own",
        "Keras's four methods in NumPy; the built-in one",
        (
            "test_keras_examples: "
            "test_four_methods_of_keras_and_two_of_ours_give_the_same_adam",
            "test_examples: test_the_optimizer_of_ones_own_has_at_most_twenty_lines",
            "keras/test_front_door: test_custom_objects_are_found_by_name",
        ),
    ),
    28: Line(
        "numbers that are set while training",
        "counts of traces and compilations",
        (
            "test_hyperparams: test_a_hundred_learning_rates_take_one_compilation",
            "test_hyperparams: test_setting_changes_the_value_and_nothing_else",
        ),
    ),
    29: Line(
        "the chapter on the prices of houses",
        "ten seeds, recorded in examples/boston_housing.py",
        (
            "test_keras_examples: "
            "test_the_chapter_prints_its_table_and_findings_and_draws_its_pictures",
            "test_keras_examples: "
            "test_the_chapters_optimizers_are_those_of_its_formulas",
        ),
    ),
    30: Line(
        "three learning rates of RMSprop",
        "the losses of examples/keras/three_learning_rates.py",
        ("test_keras_examples: test_a_lower_learning_rate_is_not_a_better_one",),
    ),
    31: Line(
        "an optimizer for each layer",
        "Keras's MultiOptimizer on its JAX backend",
        (
            TOGETHER,
            "test_groups: "
            "test_one_set_of_rules_gives_each_leaf_its_optimizer_in_every_container",
            "interop/test_states: test_six_steps_there_and_six_here_are_twelve_there",
        ),
    ),
    32: Line(
        "bfloat16 and float16",
        "float32, with Keras beside it",
        (
            "keras/test_front_door: "
            "test_parameters_of_low_precision_train_and_some_of_keras_do_not",
            "laws: a_bfloat16_run_tracks_the_float32_run",
            "laws: zero_tiny_and_huge_gradients_give_finite_updates",
        ),
    ),
    33: Line(
        "checkpoints",
        "the uninterrupted run, bit for bit; flax and orbax themselves",
        (
            "test_resume: "
            "test_every_optimizer_and_wrapper_goes_on_to_the_same_bits_from_every_form",
            "test_laws: test_every_state_passes_through_other_libraries_checkpoints",
            "test_state_dict: "
            "test_the_state_of_every_transformation_is_restored_bit_for_bit",
        ),
    ),
    34: Line(
        "tables of what equals what, with what was measured",
        "this repository",
        (
            "test_examples: test_readme_has_the_table_of_optimizers_that_the_registry"
            "_and_tests_give",
            "test_examples: "
            "test_readme_has_the_tables_of_names_and_defaults_that_were_recorded",
            "test_examples: test_jopts_own_defaults_are_as_far_away_as_the_readme_says",
        ),
    ),
}


@functools.cache
def named_in(module):
    """The names of a module's tests, or of the laws of every optimizer."""
    if module == "laws":
        return set(jopt.testing.names())
    (path,) = TESTS.rglob(f"{module}.py")
    body = ast.parse(path.read_text()).body
    return {
        x.name
        for x in body
        if isinstance(x, ast.FunctionDef) and x.name.startswith("test_")
    }


@pytest.mark.parametrize("number", LINES, ids=lambda n: f"{n}-{LINES[n].what}")
def test_each_line_has_its_tests(number):
    line = LINES[number]
    assert line.what and line.against and line.tests
    for test in line.tests:
        module, name = test.split(": ")
        assert name in named_in(module), test


def test_no_line_is_missing():
    assert list(LINES) == list(range(1, 35))
