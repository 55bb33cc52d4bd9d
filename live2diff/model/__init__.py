"""The causal UNet and its parts."""
