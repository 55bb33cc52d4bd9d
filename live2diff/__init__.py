"""live2diff: train, fine-tune and stream causal video diffusion models."""

__version__ = "0.1.0"
