"""Prints how far the Triton kernels are from plain PyTorch; run with TRITON_INTERPRET=1."""

from __future__ import annotations

import torch

from ksr_recbole.model.kernels import memory, memory_triton
from tests.test_memory import random_inputs


def results(write_then_read, write_all) -> list[torch.Tensor]:
    inputs = random_inputs()
    weights = inputs["weights"].requires_grad_()
    read, after = write_then_read(**inputs)
    (read * torch.arange(6.0)).sum().backward()
    del inputs["weights"]
    return [read.detach(), after, weights.grad, write_all(**inputs)]


def main() -> None:
    plain = results(
        lambda **inputs: memory.write_then_read(**inputs, backend="torch"),
        lambda **inputs: memory.write_all(**inputs, backend="torch"),
    )
    kernels = results(memory_triton.write_then_read, memory_triton.write_all)
    for expected, got in zip(plain, kernels, strict=True):
        print((expected - got).abs().max().item())


if __name__ == "__main__":
    main()
