"""Networks whose errors come back through weights of their own."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dib_jax.models.cnn import cnn
from dib_jax.models.convolution import convolve, max_pool
from dib_jax.models.feedback import FEEDBACK, fed_back
from dib_jax.models.lenet import lenet
from dib_jax.models.resnet import resnet

pytestmark = pytest.mark.once

KEY = jax.random.key(0)


@pytest.mark.parametrize("stride", [0, 1, 2])
def test_the_error_goes_back_through_b_and_the_weights_get_their_own_gradient(stride):
    """Of a dense layer (stride 0) and of convolutions."""
    shapes = ((3, 4), (5, 3)) if stride == 0 else ((3, 3, 2, 4), (2, 7, 6, 2))

    def linear(x, kernel):
        return convolve(x, kernel, stride) if stride else x @ kernel

    kernel, back = (jax.random.normal(key, shapes[0]) for key in jax.random.split(KEY))
    x = jax.random.normal(KEY, shapes[1])
    y, pull = jax.vjp(lambda *a: fed_back(linear, *a), x, kernel, back)
    np.testing.assert_array_equal(y, linear(x, kernel))
    change = jnp.cos(y)
    error, of_kernel, of_back = pull(change)
    through_w = jax.vjp(linear, x, kernel)[1](change)
    through_b = jax.vjp(linear, x, back)[1](change)
    np.testing.assert_allclose(error, through_b[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(of_kernel, through_w[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(of_back, of_kernel)
    assert not np.allclose(error, through_w[0], atol=0.1)


@pytest.mark.parametrize(
    ("network", "layers"),
    [(cnn(widths=(2, 3), convolutions=2, pools=1, feedback="mirror"), 3),
     (lenet(widths=(2, 3), dense=(4, 5), feedback="mirror"), 3),
     (resnet(depth=8, width=2, feedback="mirror"), 8)],
)  # fmt: skip
def test_all_layers_but_the_first_have_a_way_back(network, layers):
    x, found = jnp.zeros((2, 16, 16, 3)), []
    for stage in network:
        x, variables = jax.eval_shape(
            lambda key, x, stage=stage: stage.init_with_output(key, x, train=False),
            KEY, x,
        )  # fmt: skip
        found.append(variables.get(FEEDBACK, {}))
        for name, entry in found[-1].items():
            chex.assert_equal_shape(
                (entry["kernel"], variables["params"][name]["kernel"])
            )
    assert sum(map(len, found)) == layers
    assert len(found[0]) == (1 if isinstance(network[0], type(cnn()[0])) else 0)


def test_the_first_dense_layer_of_a_lenet_sees_all_of_the_last_map():
    x = jnp.zeros((2, 28, 28, 1))
    for stage in lenet():
        x = jax.eval_shape(
            lambda x, s=stage: s.init_with_output(KEY, x, train=False)[0], x
        )
    assert x.shape == (2, 84)


def test_max_pooling_cuts_an_odd_border_off_and_refuses_a_single_pixel():
    x = jnp.arange(2 * 5 * 4 * 3.0).reshape(2, 5, 4, 3)
    np.testing.assert_array_equal(max_pool(x), x[:, 1:4:2, 1::2])
    with pytest.raises(ValueError, match="1 × 4 feature map cannot be pooled"):
        max_pool(x[:, :1])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"widths": ()}, "widths must be"), ({"dense": (0,)}, "dense must be"),
     ({"size": 4}, "size must be odd"), ({"feedback": "b"}, "feedback must be one of")],
)  # fmt: skip
def test_an_impossible_option_of_a_lenet_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        lenet(**options)
