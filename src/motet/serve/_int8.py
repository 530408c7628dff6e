"""Layers with weights of one byte, for the runtime's own product with them."""

from typing import TYPE_CHECKING

import numpy as np

from motet._errors import require

if TYPE_CHECKING:
    from onnx import GraphProto

DOMAIN = "com.microsoft"
BLOCK = 32  # weights that share a scale
ZERO = 128  # the code of zero, where none is given
BYTE_PRODUCTS = 4  # the runtime's word for: activations are bytes too, a scale for each block of each row


def narrow(graph: "GraphProto") -> None:
    """Turns every layer with a constant matrix into ONNX Runtime's product with weights of eight bits.

    Weights are rounded in blocks of 32 along a row, each with its own scale; activations likewise, row by row, so a row
    gets the same answer alone and in any batch. What is not a plain layer, such as stacked heads, stays as it is.
    """
    numpy, helper = require("onnx.numpy_helper", "onnx"), require("onnx.helper", "onnx")
    constants = {constant.name: constant for constant in graph.initializer}
    for node in graph.node:
        if node.op_type != "Gemm" or node.input[1] not in constants:
            continue
        asked = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        weights_NK = numpy.to_array(constants[node.input[1]])
        weights_NK = weights_NK if asked.get("transB") else weights_NK.T
        codes, scales = rounded_weights(weights_NK)
        name, bias = node.input[1], list(node.input[2:])
        graph.initializer.append(numpy.from_array(codes, f"{name}.codes"))
        graph.initializer.append(numpy.from_array(scales, f"{name}.scales"))
        node.input[:] = [node.input[0], f"{name}.codes", f"{name}.scales", *(["", "", *bias] if bias else [])]
        node.op_type, node.domain = "MatMulNBits", DOMAIN
        del node.attribute[:]
        sizes = {"N": weights_NK.shape[0], "K": weights_NK.shape[1], "bits": 8, "block_size": BLOCK}
        for key, value in (sizes | {"accuracy_level": BYTE_PRODUCTS}).items():
            node.attribute.append(helper.make_attribute(key, value))


def rounded_weights(weights_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N, blocks, 32) uint8 and scales (N · blocks,) float32; the last block is filled up with zeros."""
    outputs, inputs = weights_NK.shape
    blocks = -(-inputs // BLOCK)
    padded = np.zeros((outputs, blocks * BLOCK), dtype=np.float32)
    padded[:, :inputs] = weights_NK
    by_block = padded.reshape(outputs, blocks, BLOCK)
    scales = np.abs(by_block).max(axis=2, keepdims=True) / (ZERO - 1)
    codes = np.rint(by_block / np.where(scales > 0, scales, 1.0)) + ZERO
    return codes.astype(np.uint8), scales.astype(np.float32).ravel()
