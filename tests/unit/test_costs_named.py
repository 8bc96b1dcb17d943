"""Every public protocol and circuit has a test that asserts what it costs, exactly; a new one without such a test fails here."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTOCOL = ROOT / "mpc_ops" / "protocol"

CIRCUITS, STEPS, ORDER = "test_costs_circuits", "test_costs_steps", "test_costs_order"
RELATIONAL, MATCHING = "test_costs_relational", "test_costs_matching"

_BARRIER = "test_a_stage_that_ends_without_an_opening_costs_a_barrier_in_an_active_session_only"
_PROOFS = "test_gates_of_every_kind_are_proven_side_by_side_behind_one_flush"
_OPENINGS = "test_openings_to_all_and_to_one"
_MESSAGES = "test_messages_cost_their_bytes_and_protocols_together_the_rounds_of_the_longest"

ASSERTED: dict[tuple[str, str], tuple[str, ...]] = {
    (CIRCUITS, "test_comparisons_of_two_shares"): ("less", "less_equal", "equal", "difference"),
    (CIRCUITS, "test_comparisons_with_public_values"): (
        "less_public", "less_equal_public", "greater_public", "greater_equal_public", "equal_public",
    ),
    (CIRCUITS, "test_carries"): ("carry_out", "carries_out"),
    (CIRCUITS, "test_bits_of_arithmetic_shares"): ("most_significant_bit", "is_zero", "arithmetic_bits"),
    (CIRCUITS, "test_signs_and_wraps"): ("negative", "wraps"),
    (CIRCUITS, "test_mux"): ("mux",),
    (CIRCUITS, "test_quotient"): ("quotient",),
    (CIRCUITS, "test_circuits_side_by_side_share_their_steps"): ("side_by_side",),
    (CIRCUITS, "test_counts_of_units"): ("popcount", "any_unit"),
    (CIRCUITS, "test_counts_of_planes"): ("count_planes",),
    (CIRCUITS, "test_any_in_groups"): ("any_in_groups",),
    (CIRCUITS, "test_any_row"): ("any_row",),
    (CIRCUITS, "test_rows_like_the_next"): ("same_as_next",),
    (CIRCUITS, "test_first_smallest"): ("first_smallest",),
    (CIRCUITS, "test_circuits_of_a_slice"): tuple(
        f"SliceGate.{name}" for name in ("tested", "passes", "top", "smallest", "paths", "decide")
    ),
    (STEPS, "test_gates_of_several_widths_share_a_message"): ("and_many",),
    (STEPS, "test_circuits_of_several_depths_share_their_rounds"): ("evaluate",),
    (STEPS, "test_products_of_vectors"): ("multiply", "square", "fresh", "dot"),
    (STEPS, "test_dot_products_over_segments_send_one_element_each"): ("dots",),
    (STEPS, "test_tables_of_dot_products"): ("dot_table",),
    (STEPS, "test_products_of_many_pairs_share_a_message_and_go_in_portions"): ("multiply_all",),
    (STEPS, "test_bits_to_the_ring"): ("planes_to_ring", "bits_to_ring", "values_to_ring"),
    (STEPS, "test_the_ring_to_bits"): ("ring_to_bits",),
    (STEPS, "test_injection_of_bits"): ("inject", "inject_sums"),
    (STEPS, "test_counters_send_half_and_are_proven_over_their_ring"): ("bits_to_counters", "multiply_counters"),
    (STEPS, "test_dabits_are_made_in_two_rounds_and_spent_in_one"): ("make_dabits", "bits_to_ring_with"),
    (STEPS, "test_division_by_a_public_number"): ("divide_public",),
    (STEPS, "test_truncation_is_a_division_by_a_power_of_two"): ("truncate",),
    (STEPS, "test_division_of_bits"): ("divide_bits",),
    (STEPS, "test_division_by_shared_values"): ("divide_shared",),
    (STEPS, _MESSAGES): ("together", "ActiveStage.exchange", "PassiveStage.exchange"),
    (STEPS, "test_inputs_of_the_operators"): ("input_of_all",),
    (STEPS, _OPENINGS): (
        "open_to_all", "open_to", "open_passive", "ActiveFlow.open", "ActiveFlow.open_to", "PassiveFlow.open",
        "PassiveFlow.open_to",
    ),
    (STEPS, _BARRIER): ("ActiveFlow.finish", "PassiveFlow.finish", "ActiveStage.barrier", "ActiveSession.run"),
    (STEPS, _PROOFS): ("AndLog.prove", "RingGateLog.prove", "prove_batch", "TagLog.prove", "open_tag_keys"),
    (STEPS, "test_a_batch_that_reaches_the_limit_is_proven_at_once"): ("ActiveStage.settle",),
    (STEPS, "test_steps_with_checkpoints_between_them"): ("run_steps",),
    (STEPS, "test_suppression"): ("suppress",),
    (STEPS, "test_the_gate"): ("gate",),
    (ORDER, "test_shuffles"): ("shuffle", "shuffle_in_stage", "two_passes", "add_tags"),
    (ORDER, "test_moves_to_secret_places"): ("move_to", "move_numbered"),
    (ORDER, "test_partitions"): ("partition", "compact"),
    (ORDER, "test_places_by_a_digit"): ("digit_places",),
    (ORDER, "test_null_keys_are_cleared_in_one_round"): ("sort_planes",),
    (ORDER, "test_radix_sort"): ("radix_sort",),
    (ORDER, "test_quick_sort"): ("quick_sort",),
    (ORDER, "test_sort_takes_digits_for_narrow_keys_and_comparisons_for_others"): ("sort",),
    (ORDER, "test_order_of_shuffled_keys"): ("quick_order",),
    (ORDER, "test_comparisons_in_blocks"): ("compared", "opened_bits"),
    (ORDER, "test_merge"): ("merge_sorted",),
    (ORDER, "test_select"): ("select",),
    (ORDER, "test_select_places"): ("select_places",),
    (ORDER, "test_quantile"): ("quantile",),
    (RELATIONAL, "test_keys_put_together"): ("key_planes",),
    (RELATIONAL, "test_rows_put_to_zero"): ("blank_rows",),
    (RELATIONAL, "test_rows_put_back_in_their_places"): ("put_back",),
    (RELATIONAL, "test_spreading"): ("spread", "spread_by_copying", "spread_by_shuffle"),
    (RELATIONAL, "test_sums_over_a_tiny_domain"): ("domain_sums",),
    (RELATIONAL, "test_groups_of_a_tiny_domain"): ("domain_groups",),
    (RELATIONAL, "test_what_is_summed"): ("summands",),
    (RELATIONAL, "test_group_by_sums"): ("group_by",),
    (RELATIONAL, "test_distinct_rows_are_groups_without_figures"): ("distinct",),
    (RELATIONAL, "test_top_k"): ("top_k",),
    (RELATIONAL, "test_windows"): ("windows",),
    (MATCHING, "test_rows_that_may_match"): ("TwoTables.usable",),
    (MATCHING, "test_joins"): ("join",),
    (MATCHING, "test_a_join_that_keeps_a_secret_whether_keys_repeat_opens_it_later"): ("require_unique",),
    (MATCHING, "test_many_to_many_joins"): ("join_many", "require_bound"),
    (MATCHING, "test_intersections"): ("intersection", "open_intersection"),
    (MATCHING, "test_the_size_alone"): ("intersection_size",),
    (MATCHING, "test_common_rows_for_one_position"): ("intersection_rows",),
}  # fmt: skip
"""By (file, test): the functions whose rounds and bytes it asserts, in both kinds of session where there are both."""

INSIDE = {
    "two_passes", "add_tags", "open_tag_keys", "prove_batch", "AndLog.prove", "RingGateLog.prove", "TagLog.prove", "open_to_all",
    "open_to", "open_passive", "ActiveStage.barrier", "ActiveSession.run",
}  # fmt: skip
"""Functions that tests call through others only: a shuffle, a barrier, an opening is nothing else."""


def named(tree: ast.Module) -> set[str]:
    """Names in `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
            return set(ast.literal_eval(node.value))
    return set()


def is_primitive(node: ast.stmt) -> bool:
    """Whether a function returns rounds or a circuit, and is no abstract one."""
    if not isinstance(node, ast.FunctionDef) or node.returns is None:
        return False
    abstract = any(ast.unparse(one) == "abstractmethod" for one in node.decorator_list)
    return not abstract and ast.unparse(node.returns).split("[")[0] in {"Steps", "Circuit"}


@cache
def primitives() -> dict[str, ast.FunctionDef]:
    """Public functions, and public methods of public classes, that are protocols or circuits."""
    found: dict[str, ast.FunctionDef] = {}
    for path in sorted(PROTOCOL.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        public = named(tree)
        for node in tree.body:
            if getattr(node, "name", "") not in public:
                continue
            if isinstance(node, ast.ClassDef):
                methods = [one for one in node.body if is_primitive(one) and not one.name.startswith("_")]
                new = {f"{node.name}.{one.name}": one for one in methods}
            else:
                new = {node.name: node} if is_primitive(node) else {}
            assert not new.keys() & found.keys(), "two primitives of one name"
            found |= new
    return found


@cache
def source_of(name: str) -> ast.Module:
    return ast.parse((Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8"))


def words_of(tree: ast.AST) -> set[str]:
    out = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    out |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return out | {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_primitive_has_a_test_of_its_cost() -> None:
    listed = [name for names in ASSERTED.values() for name in names]
    assert sorted(listed) == sorted(set(listed))
    assert set(primitives()) - set(listed) == set(), "write a test of its rounds and bytes, and name it here"
    assert set(listed) - set(primitives()) == set(), "there is no such primitive any more"


@pytest.mark.parametrize(("file", "test"), ASSERTED)
def test_the_tests_are_there_and_use_what_they_assert(file: str, test: str) -> None:
    (found,) = [node for node in source_of(file).body if getattr(node, "name", "") == test]
    said = words_of(found)
    for name in set(ASSERTED[file, test]) - INSIDE:
        assert name.rpartition(".")[2] in said, name


def test_every_primitive_says_what_it_costs() -> None:
    """In its own words, or by naming another one, or the module, in its first line."""
    silent = []
    for name, node in primitives().items():
        circuit = ast.unparse(node.returns or node).startswith("Circuit")
        wanted = ("ANDs", "AND words", "`slice_cost`") if circuit else ("ounds",)
        said = ast.get_docstring(node) or ""
        named_other = re.search(r"\bas `|^See `|\bsee the module", said.partition("\n")[0])
        if not named_other and not any(word in said for word in wanted):
            silent.append(name)
    assert silent == []
