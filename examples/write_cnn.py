"""Write a MobileNetV2-, ResNet-50- or U-Net-like ONNX model with seeded random weights.

    python examples/write_cnn.py mobilenet.onnx --network mobilenetv2
    python examples/write_cnn.py resnet.onnx --network resnet50 --image 128 --batch 8
    python examples/write_cnn.py unet.onnx --network unet --no-weights

The networks are those of arXiv 1801.04381 (table 2), 1512.03385 (table 1, the stride of a bottleneck
on its 3x3 convolution as in later implementations) and 1505.04597 (figure 1, with padding, so that
the output has the size of the input). Batch norms are folded into the convolutions, as exporters
do. The model takes `image` [b, channels, size, size], b images; it returns `logits` [b, 1000], or of the
U-Net [b, 2, size, size].
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
from model_writer import ModelWriter, add_file_options, embedded, linear_std, save_as_asked

CLASSES = 1000
MOBILENET_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
    (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
"""Expansion, output channels, repeats and first stride."""
RESNET_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Inner channels, repeats and first stride."""
UNET_CHANNELS = (64, 128, 256, 512, 1024)


@dataclass(slots=True, kw_only=True)
class CnnWriter(ModelWriter):
    """Collects the parts of a CNN; knows how many images it takes and each tensor's channels."""

    channels: dict[str, int]
    batch: int

    def conv(self, x: str, name: str, out: int, kernel: int, stride: int = 1) -> str:
        """Convolve with bias; padding keeps the size."""
        return self._conv(x, name, out, kernel, stride, groups=1)

    def depthwise(self, x: str, name: str, kernel: int, stride: int) -> str:
        """Convolve each channel by itself."""
        return self._conv(x, name, self.channels[x], kernel, stride, groups=self.channels[x])

    def _conv(self, x: str, name: str, out: int, kernel: int, stride: int, groups: int) -> str:
        inner = self.channels[x] // groups
        std = linear_std(inner * kernel * kernel)
        w = self.weight(f"{name}.weight", out, inner, kernel, kernel, std=std)
        b = self.weight(f"{name}.bias", out, std=0.1)
        attributes = {
            "kernel_shape": [kernel] * 2,
            "strides": [stride] * 2,
            "pads": [kernel // 2] * 4,
            "group": groups,
        }
        return self.known(self.op("Conv", x, w, b, out=name, **attributes), out)

    def relu(self, x: str) -> str:
        """max(x, 0)."""
        return self.known(self.op("Relu", x, out=f"{x}.relu"), self.channels[x])

    def relu6(self, x: str) -> str:
        """min(max(x, 0), 6)."""
        clipped = self.op("Clip", x, self.floats(0.0), self.floats(6.0), out=f"{x}.relu6")
        return self.known(clipped, self.channels[x])

    def add(self, x: str, y: str, name: str) -> str:
        """x + y."""
        return self.known(self.op("Add", x, y, out=name), self.channels[x])

    def known(self, name: str, channels: int) -> str:
        """Note a tensor's channels and return its name."""
        self.channels[name] = channels
        return name

    def classifier(self, x: str) -> None:
        """Add the mean over the image and a linear layer."""
        flat = self.op("Flatten", self.op("GlobalAveragePool", x, out="pooled"), out="flat", axis=1)
        width = self.channels[x]
        w = self.weight("classifier.weight", CLASSES, width, std=linear_std(width))
        b = self.weight("classifier.bias", CLASSES, std=0.1)
        self.op("Gemm", flat, w, b, out="logits", transB=1)
        self.output("logits", self.batch, CLASSES)


def _writer(channels: int, size: int, batch: int) -> CnnWriter:
    writer = CnnWriter(channels={"image": channels}, batch=batch)
    writer.input("image", batch, channels, size, size)
    return writer


def mobilenetv2_graph(size: int, batch: int = 1) -> CnnWriter:
    """Return the graph of a MobileNetV2 for images of `size` x `size` pixels."""
    w = _writer(3, size, batch)
    x = w.relu6(w.conv("image", "stem", 32, 3, stride=2))
    for stage, (expansion, out, repeats, first_stride) in enumerate(MOBILENET_STAGES):
        for repeat in range(repeats):
            prefix, stride = f"stage{stage}.{repeat}", first_stride if repeat == 0 else 1
            y = x
            if expansion > 1:
                y = w.relu6(w.conv(x, f"{prefix}.expand", w.channels[x] * expansion, 1))
            y = w.relu6(w.depthwise(y, f"{prefix}.depthwise", 3, stride))
            y = w.conv(y, f"{prefix}.project", out, 1)
            keeps = stride == 1 and w.channels[x] == out
            x = w.add(x, y, f"{prefix}.residual") if keeps else y
    w.classifier(w.relu6(w.conv(x, "last", 1280, 1)))
    return w


def resnet50_graph(size: int, batch: int = 1) -> CnnWriter:
    """Return the graph of a ResNet-50 for images of `size` x `size` pixels."""
    w = _writer(3, size, batch)
    x = w.relu(w.conv("image", "stem", 64, 7, stride=2))
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    x = w.known(w.op("MaxPool", x, out="stem.pool", **attributes), 64)
    for stage, (inner, repeats, first_stride) in enumerate(RESNET_STAGES):
        for repeat in range(repeats):
            prefix, stride = f"stage{stage}.{repeat}", first_stride if repeat == 0 else 1
            y = w.relu(w.conv(x, f"{prefix}.reduce", inner, 1))
            y = w.relu(w.conv(y, f"{prefix}.spatial", inner, 3, stride=stride))
            y = w.conv(y, f"{prefix}.expand", 4 * inner, 1)
            if repeat == 0:
                x = w.conv(x, f"{prefix}.shortcut", 4 * inner, 1, stride=stride)
            x = w.relu(w.add(y, x, f"{prefix}.residual"))
    w.classifier(x)
    return w


def unet_graph(size: int, batch: int = 1) -> CnnWriter:
    """Return the graph of a U-Net for images of `size` x `size` pixels, a multiple of 16."""
    if size % 16:
        raise ValueError(f"the image has {size} pixels a side, a U-Net needs a multiple of 16")
    w = _writer(1, size, batch)

    def twice(x: str, name: str, out: int) -> str:
        return w.relu(w.conv(w.relu(w.conv(x, f"{name}.0", out, 3)), f"{name}.1", out, 3))

    x, skipped = "image", []
    for level, width in enumerate(UNET_CHANNELS):
        if level:
            attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
            pooled = w.op("MaxPool", x, out=f"down{level}.pool", **attributes)
            x = w.known(pooled, w.channels[x])
        x = twice(x, f"down{level}", width)
        skipped.append(x)
    for level in reversed(range(len(UNET_CHANNELS) - 1)):
        width, name = UNET_CHANNELS[level], f"up{level}"
        std = linear_std(2 * width)
        kernel = w.weight(f"{name}.grow.weight", 2 * width, width, 2, 2, std=std)
        bias = w.weight(f"{name}.grow.bias", width, std=0.1)
        attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
        grown = w.op("ConvTranspose", x, kernel, bias, out=f"{name}.grow", **attributes)
        joined = w.op("Concat", skipped[level], grown, out=f"{name}.joined", axis=1)
        x = twice(w.known(joined, 2 * width), name, width)
    w.op("Identity", w.conv(x, "classes", 2, 1), out="logits")
    w.output("logits", batch, 2, size, size)
    return w


NETWORKS: dict[str, tuple[Callable[[int, int], CnnWriter], int]] = {
    "mobilenetv2": (mobilenetv2_graph, 224),
    "resnet50": (resnet50_graph, 224),
    "unet": (unet_graph, 256),
}
"""Each network with its default image size, [pixels]."""


def build_cnn(
    network: str, size: int | None = None, seed: int = 0, batch: int = 1
) -> onnx.ModelProto:
    """Return a model with its weights inside.

    Args:
        network: A key of `NETWORKS`.
        size: Pixels of a side of the image, the network's own when None.
        seed: Seed of the weights.
        batch: Images in a call.
    """
    graph, default = NETWORKS[network]
    writer = graph(size or default, batch)
    return writer.model(network, embedded(writer.weights, seed))


def main(arguments: list[str] | None = None) -> None:
    """Write one model as the command line asks, and print what was written."""
    parser = argparse.ArgumentParser(description="Write a CNN as an ONNX model.")
    parser.add_argument("output", type=Path, help="the .onnx file to write")
    parser.add_argument("--network", choices=list(NETWORKS), default=next(iter(NETWORKS)))
    parser.add_argument("--image", type=int, help="pixels of a side of the image")
    parser.add_argument("--batch", type=int, default=1, help="images in a call")
    add_file_options(parser)
    options = parser.parse_args(arguments)
    graph, default = NETWORKS[options.network]
    size = default if options.image is None else options.image
    try:
        if size < 1:
            raise ValueError(f"the image has {size} pixels a side, must be at least 1")
        if options.batch < 1:
            raise ValueError(f"the batch is {options.batch}, must be at least 1")
        writer = graph(size, options.batch)
        parameters = save_as_asked(writer, options.network, options.output, options)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{options.output}: {options.network}, {parameters:,} parameters, {size} x {size}")


if __name__ == "__main__":
    main()
