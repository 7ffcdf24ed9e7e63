from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melange.catalog.bundled import find_model, models
from melange.catalog.model import Model
from melange.errors import InputError

TINY = Model(
    name="tiny",
    layers=2,
    hidden_size=8,
    heads=4,
    kv_heads=2,
    head_size=2,
    intermediate_size=16,
    vocabulary_size=10,
    max_context=64,
)
TINY_MOE = replace(TINY, experts=4, experts_per_token=2, expert_intermediate_size=4, dense_layers=1)

every_model = st.sampled_from(sorted(models()))


def test_parameters_of_a_tiny_model_by_hand() -> None:
    """Attention 8(2*4+2*2)2, feed-forward 3*8*16, twice; embeddings 2*10*8; norms 5*8."""
    assert TINY.kinds[0].mixer[0].parameters == 192
    assert TINY.body_parameters() == 2 * (192 + 384)
    assert TINY.parameters() == 2 * (192 + 384) + 160 + 40
    assert TINY.active_parameters() == 2 * (192 + 384) + 80
    assert TINY.active_parameters(output_head=False) == 2 * (192 + 384)


def test_parameters_of_a_tiny_mixture_of_experts_by_hand() -> None:
    """One dense layer, one with four experts of 3*8*4 and a router of 8*4."""
    assert TINY_MOE.moe_layers == 1
    assert TINY_MOE.routed_parameters() == 4 * 96
    assert TINY_MOE.router_parameters() == 32
    assert TINY_MOE.parameters() == 2 * 192 + 384 + 4 * 96 + 32 + 160 + 40
    assert TINY_MOE.active_parameters() == 2 * 192 + 384 + 2 * 96 + 32 + 80


def test_tied_embeddings_count_once_but_multiply_all_the_same() -> None:
    """The output head works for each token whether or not its matrix is also the input embedding."""
    tied = replace(TINY, tied_embeddings=True)
    assert tied.parameters() == TINY.parameters() - 80
    assert tied.active_parameters() == TINY.active_parameters()
    assert tied.weight_bytes_read(1) == TINY.weight_bytes_read(1)


def test_quantisation_leaves_embeddings_and_norms_in_sixteen_bits() -> None:
    """fp8 halves the linear layers and nothing else."""
    assert TINY.weight_bytes() == 2 * TINY.parameters()
    assert replace(TINY, weight_dtype="fp8").weight_bytes() == TINY.weight_bytes() - TINY.body_parameters()


@pytest.mark.parametrize(("name", "gib"), [("openai/gpt-oss-20b", 12.8), ("openai/gpt-oss-120b", 60.8)])
def test_gpt_oss_checkpoints_have_their_published_size(name: str, gib: float) -> None:
    """The model card gives 12.8 and 60.8 GiB: experts in MXFP4 with their scales, the rest in bf16."""
    assert find_model(name).weight_bytes() / 2**30 == pytest.approx(gib, rel=0.01)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("openai/gpt-oss-20b", 3.6), ("openai/gpt-oss-120b", 5.1), ("deepseek-ai/DeepSeek-V3", 37), ("glm-4.5", 32)],
)
def test_active_parameters_are_near_the_published_count(name: str, billions: float) -> None:
    """Makers count the active parameters with or without an embedding: within 4 %."""
    assert find_model(name).active_parameters() / 1e9 == pytest.approx(billions, rel=0.04)


@given(every_model, st.floats(1, 1e6), st.floats(1, 1e6))
def test_a_larger_batch_reads_no_less(name: str, one: float, other: float) -> None:
    """Weights read per step grow with the batch, from at least the active ones to all but the input embedding."""
    model = models()[name]
    few, many = sorted((one, other))
    assert model.weight_bytes_read(few) <= model.weight_bytes_read(many) <= model.weight_bytes() * (1 + 1e-12)
    assert model.experts_touched(1) == pytest.approx(model.experts_per_token)
    assert model.experts_touched(many) <= model.experts


@given(every_model, st.integers(0, 100_000), st.sampled_from([1, 2, 4, 8, 16]))
def test_kv_cache_is_linear_up_to_the_window_and_never_more(name: str, context: int, degree: int) -> None:
    """A window only saves memory; splitting never costs an accelerator more."""
    model = models()[name]
    full = context * model.kv_bytes_per_token(degree)
    assert model.kv_bytes(context, degree) <= full
    if not model.sliding_layers or context <= model.sliding_window:
        assert model.kv_bytes(context, degree) == full
    assert model.kv_bytes_per_token(degree) <= model.kv_bytes_per_token(1)


def test_kv_heads_are_copied_when_accelerators_outnumber_them() -> None:
    """Two KV heads on four accelerators: each holds one."""
    assert [TINY.kv_bytes_per_layer(degree) for degree in (1, 2, 4)] == [16, 8, 8]


def test_latent_attention_is_held_whole_on_every_accelerator() -> None:
    """DeepSeek-V3: 576 values of two bytes a token and layer, whatever the degree."""
    model = find_model("deepseek-v3")
    assert model.kv_bytes_per_layer(1) == model.kv_bytes_per_layer(8) == 1152


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers must be >= 1"),
        ({"weight_dtype": "fp3"}, "weight_dtype must be one of"),
        ({"kv_heads": 3}, "must be a multiple of kv_heads"),
        ({"experts": 4}, "experts_per_token must be 1 to 4"),
        ({"sliding_layers": 1}, "sliding_window >= 1"),
    ],
)
def test_shapes_that_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    """Each refusal names the field."""
    with pytest.raises(InputError, match=message):
        replace(TINY, **change)  # type: ignore[arg-type]
