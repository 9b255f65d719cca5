"""Functions and classes that public course notebooks define, with the same names and signatures, in Keras 3.

The notebooks are those of Coursera's "Probabilistic Deep Learning with TensorFlow 2" and of Imperial College.
"""

from tfp_flows.bijectors import (
    AffineCouplingLayer,
    Squeeze,
    channel_binary_mask,
    checkerboard_binary_mask,
    get_preprocess_bijector,
)
from tfp_flows.course.coupling import (
    Conv2DResidualBlock,
    affine_coupling_layer_block,
    forward,
    forward_log_det_jacobian,
    get_shift_and_log_scale_fn,
    get_shift_and_log_scale_resnet,
    inverse,
    inverse_log_det_jacobian,
    realnvp_block,
)
from tfp_flows.course.images import RealNVPModel, RealNVPMultiScale, get_datasets
from tfp_flows.course.maf import (
    base_distribution,
    gaussian_mixture,
    get_dataset,
    layer_transformations,
    maf_flow,
    train_model,
)
from tfp_flows.networks import get_conv_resnet

__all__ = [
    "AffineCouplingLayer",
    "Conv2DResidualBlock",
    "RealNVPModel",
    "RealNVPMultiScale",
    "Squeeze",
    "affine_coupling_layer_block",
    "base_distribution",
    "channel_binary_mask",
    "checkerboard_binary_mask",
    "forward",
    "forward_log_det_jacobian",
    "gaussian_mixture",
    "get_conv_resnet",
    "get_dataset",
    "get_datasets",
    "get_preprocess_bijector",
    "get_shift_and_log_scale_fn",
    "get_shift_and_log_scale_resnet",
    "inverse",
    "inverse_log_det_jacobian",
    "layer_transformations",
    "maf_flow",
    "realnvp_block",
    "train_model",
]
