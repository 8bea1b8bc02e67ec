import keras
import numpy as np
import pytest
import tensorflow as tf

from simcse_tf.training.optimizer import AdamW

SHAPES = [(7, 5), (5,), (3, 4, 2)]


def trained(optimizer, *, compiled=False):
    rng = np.random.default_rng(0)
    variables = [keras.Variable(rng.normal(size=shape).astype("float32")) for shape in SHAPES]
    optimizer.build(variables)

    @tf.function(jit_compile=compiled)
    def step(gradients):
        optimizer.apply(gradients, variables)

    for scale in (0.01, 1.0, 30.0):
        step([tf.constant(scale * rng.normal(size=shape), tf.float32) for shape in SHAPES])
    return [v.numpy() for v in [*variables, *optimizer.variables]]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_weights_and_moments_are_those_of_keras(decay, compiled):
    rates = keras.optimizers.schedules.PolynomialDecay(0.1, 4, end_learning_rate=0.0)
    kwargs = {"learning_rate": rates, "weight_decay": decay, "global_clipnorm": 1.0, "epsilon": 1e-8}
    ours = trained(AdamW(**kwargs), compiled=compiled)
    theirs = trained(keras.optimizers.AdamW(**kwargs))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # 1 - 0.999^step has few digits


def test_a_gradient_that_is_not_finite_spoils_every_weight_as_with_keras():
    optimizer = AdamW(0.1, global_clipnorm=1.0)
    variables = [keras.Variable(np.ones(3, "float32")), keras.Variable(np.ones(2, "float32"))]
    optimizer.build(variables)
    optimizer.apply([tf.constant([1.0, np.inf, 1.0]), tf.ones([2])], variables)
    assert all(np.isnan(v.numpy()).all() for v in variables)


def test_weight_decay_leaves_out_biases_and_layer_norm_and_no_table(tiny_preset):
    from simcse_tf import SentenceEncoder

    keras.utils.set_random_seed(1)
    encoder = SentenceEncoder.from_preset(str(tiny_preset), head="always")
    variables = encoder.trainable_variables
    for variable in variables:
        variable.assign(np.ones(variable.shape, "float32"))
    optimizer = AdamW(0.1, weight_decay=0.5)
    optimizer.build(variables)
    optimizer.apply([tf.zeros(v.shape) for v in variables], variables)
    decayed = {v.path: float(np.min(v)) < 1 for v in variables}
    assert decayed == {v.path: len(v.shape) > 1 and "bias" not in v.path for v in variables}
    assert any(decayed.values())
    assert not all(decayed.values())


def test_what_a_caller_excludes_from_weight_decay_is_excluded():
    optimizer = AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["table"])
    table, kernel = (keras.Variable(np.ones(3, "float32"), name=name) for name in ("table", "kernel"))
    optimizer.build([table, kernel])
    optimizer.apply([tf.zeros(3), tf.zeros(3)], [table, kernel])
    np.testing.assert_array_equal(table, np.ones(3))
    assert np.max(kernel) < 1
