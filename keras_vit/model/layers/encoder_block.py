import keras
from keras import layers

from keras_vit.model.layers.dropout import Dropout
from keras_vit.model.layers.mlp import MLP
from keras_vit.model.layers.self_attention import SelfAttention

NORM_EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="keras_vit")
class EncoderBlock(layers.Layer):
    """One pre-norm Transformer block: x + attention(norm(x)), then x + mlp(norm(x)).

    Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929), with the options that came later.

    Args:
        num_heads, head_dim, qkv_bias, qk_norm, attention_dropout_rate: see `SelfAttention`.
        mlp_dim, activation: see `MLP`.
        dropout_rate: dropout on the attention's output and in the MLP.
        drop_path_rate: stochastic depth (Huang et al. 2016, https://arxiv.org/abs/1603.09382): the chance
            that an image skips a branch in training.
        layer_scale: the first value of LayerScale (Touvron et al. 2021, https://arxiv.org/abs/2103.17239),
            a learned weight a channel on each branch; `None` for none.
        remat: whether training computes the branches again in the backward pass to save memory. Not together
            with dropout; stochastic depth is drawn outside and works.

    Input shape:
        `(batch, tokens, dim)`.

    Output shape:
        The input shape.

    Example:
        >>> EncoderBlock(num_heads=4, mlp_dim=128)(keras.random.normal((2, 50, 64))).shape
        (2, 50, 64)
    """

    def __init__(
        self,
        num_heads,
        mlp_dim,
        head_dim=None,
        qkv_bias=True,
        qk_norm=False,
        activation="gelu",
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
        drop_path_rate=0.0,
        layer_scale=None,
        remat=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if remat and (dropout_rate or attention_dropout_rate):
            raise ValueError(
                "remat=True computes a branch twice, and dropout inside it would be drawn twice: use "
                f"drop_path_rate instead. Received: dropout_rate={dropout_rate}, "
                f"attention_dropout_rate={attention_dropout_rate}"
            )
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.head_dim = head_dim
        self.qkv_bias = qkv_bias
        self.qk_norm = qk_norm
        self.activation = activation
        self.dropout_rate = dropout_rate
        self.attention_dropout_rate = attention_dropout_rate
        self.drop_path_rate = drop_path_rate
        self.layer_scale = layer_scale
        self.remat = remat
        dtype = self.dtype_policy
        self.attention_norm = layers.LayerNormalization(
            epsilon=NORM_EPSILON, dtype=dtype, name="attention_norm"
        )
        self.attention = SelfAttention(
            num_heads,
            head_dim=head_dim,
            qkv_bias=qkv_bias,
            qk_norm=qk_norm,
            dropout_rate=dropout_rate,
            attention_dropout_rate=attention_dropout_rate,
            dtype=dtype,
            name="attention",
        )
        self.mlp_norm = layers.LayerNormalization(epsilon=NORM_EPSILON, dtype=dtype, name="mlp_norm")
        self.mlp = MLP(mlp_dim, activation=activation, dropout_rate=dropout_rate, dtype=dtype, name="mlp")
        # One draw an image: the mask is (batch, 1, 1).
        self.drop_path = Dropout(drop_path_rate, noise_shape=(None, 1, 1), dtype=dtype)

    def build(self, input_shape):
        for layer in (self.attention_norm, self.attention, self.mlp_norm, self.mlp):
            layer.build(input_shape)
        if self.layer_scale is not None:
            initializer = keras.initializers.Constant(self.layer_scale)
            shape = (input_shape[-1],)
            self.attention_scale = self.add_weight(
                shape=shape, initializer=initializer, name="attention_scale"
            )
            self.mlp_scale = self.add_weight(shape=shape, initializer=initializer, name="mlp_scale")

    def call(self, x, training=None):
        def attention_branch(x):
            return self._scale(self.attention(self.attention_norm(x), training=training), "attention_scale")

        def mlp_branch(x):
            return self._scale(self.mlp(self.mlp_norm(x), training=training), "mlp_scale")

        if self.remat and training:
            attention_branch, mlp_branch = keras.remat(attention_branch), keras.remat(mlp_branch)
        x = x + self.drop_path(attention_branch(x), training=training)  # b n d
        return x + self.drop_path(mlp_branch(x), training=training)  # b n d

    def attend(self, x):
        """The output and the attention, (batch, heads, tokens, tokens), by the explicit path; no dropout."""
        branch, attention = self.attention.attend(self.attention_norm(x))
        x = x + self._scale(branch, "attention_scale")
        return x + self._scale(self.mlp(self.mlp_norm(x)), "mlp_scale"), attention

    def _scale(self, branch, name):
        return branch if self.layer_scale is None else branch * getattr(self, name)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            head_dim=self.head_dim,
            qkv_bias=self.qkv_bias,
            qk_norm=self.qk_norm,
            activation=self.activation,
            dropout_rate=self.dropout_rate,
            attention_dropout_rate=self.attention_dropout_rate,
            drop_path_rate=self.drop_path_rate,
            layer_scale=self.layer_scale,
            remat=self.remat,
        )
        return config
