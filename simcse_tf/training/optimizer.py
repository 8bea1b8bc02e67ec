"""AdamW in as few passes over the weights as it takes."""

from __future__ import annotations

import keras
import tensorflow as tf

# Names of variables: what a dense layer adds, what a LayerNorm multiplies by and adds, and a learned temperature.
# Keras hands over its own variables ("gamma") or TensorFlow's ("encoder/layer_norm/gamma:0").
_WITHOUT_DECAY = (r"(^|/)(bias|gamma|beta|log_temperature)(:\d+)?$",)


@keras.saving.register_keras_serializable(package="simcse_tf")
class AdamW(keras.optimizers.Adam):
    """Keras' AdamW, with the same numbers and variables, but one kernel for each variable's update.

    Weight decay leaves out biases and LayerNorm, as in the SimCSE paper's code and Hugging Face's trainer, and a
    learned temperature, unless `exclude_from_weight_decay` says otherwise.

    Keras puts the update together from ten element-wise passes over weights, moments and gradients, most of them over
    an embedding table larger than the rest of the encoder.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Decoupled; 0 costs nothing.
        **kwargs: As for `keras.optimizers.Adam`.

    Raises:
        ValueError: `amsgrad` is asked for, which the kernel does not have.
    """

    def __init__(self, learning_rate=0.001, weight_decay: float = 0.0, **kwargs):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay or None, **kwargs)
        if self.amsgrad:
            raise ValueError("amsgrad=True: this AdamW has none. Use keras.optimizers.AdamW.")
        self.exclude_from_weight_decay(var_names=_WITHOUT_DECAY)

    def update_step(self, gradient, variable, learning_rate):
        dtype = variable.dtype
        index = self._get_variable_index(variable)
        steps = tf.cast(tf.convert_to_tensor(self.iterations) + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=tf.pow(tf.cast(self.beta_1, dtype), steps),
            beta2_power=tf.pow(tf.cast(self.beta_2, dtype), steps),
            lr=tf.cast(learning_rate, dtype),
            beta1=tf.cast(self.beta_1, dtype),
            beta2=tf.cast(self.beta_2, dtype),
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(tf.convert_to_tensor(gradient), dtype),
        )

    def _clip_gradients(self, grads):
        if not self.global_clipnorm:
            return super()._clip_gradients(grads)
        # One pass for the norm instead of two.
        return tf.clip_by_global_norm(grads, self.global_clipnorm)[0]


def _handle(variable):
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
