"""Models of host regions come with a program: what they may not do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import onnx
from google.protobuf.message import DecodeError, Message

from tilewright.errors import ProgramError


@lru_cache(maxsize=64)
def check_host_model(model_bytes: bytes) -> None:
    """Refuse a model that takes data from files: it would read whatever the user may read.

    Raises:
        ProgramError: The bytes are no ONNX model, or a tensor of it lies in another file.
    """
    try:
        model = onnx.load_model_from_string(model_bytes)
    except DecodeError as error:
        raise ProgramError("host region: found bytes that are no ONNX model") from error
    for tensor in _tensors(model):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ProgramError(
                f"host region: tensor '{tensor.name}' lies in another file, expected all data in the "
                "program; compile the model again"
            )


def _tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Yield all tensors of a message, those of attributes and inner graphs too."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for item in value if isinstance(value, list) or hasattr(value, "add") else (value,):
            if isinstance(item, onnx.TensorProto):
                yield item
            else:
                yield from _tensors(item)
