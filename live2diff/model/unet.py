"""The causal video UNet: diffusers' `UNetMotionModel` with our temporal transformer and depth branch.

One set of weights, two ways to run it. `forward` sees a whole clip under a mask; `warm_up` and `step` see the
same clip frame by frame through a memory. They agree to float rounding.
"""

from __future__ import annotations

from typing import cast

import torch
from diffusers import UNetMotionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn

from live2diff.memory import Precision, StreamMemory
from live2diff.model import convolution, masks
from live2diff.model.attention import ClipView, StepView, View, WarmUpView
from live2diff.model.constants import Constants, TextAttention, project_encoding
from live2diff.model.depth_branch import DepthBranch
from live2diff.model.masks import Mask
from live2diff.model.temporal import TemporalBlock, TemporalTransformer
from live2diff.weights import realign


class CausalUNet(UNetMotionModel):
    """Video UNet that can be trained with a mask and streamed with a memory.

    The defaults are SD1.5's sizes with AnimateDiff v1's motion modules. Args beyond `UNetMotionModel`'s:
        window: L, frames a query sees at most (paper: 16).
        warmup: Lw, frames at the start that see each other and are never evicted (paper: 8).
        depth_channels: channels of the depth latents, or None for no depth branch.
    """

    # Conditioning of other backbones, which this one does not take: kept out of its configuration.
    ignore_for_config = [
        "reverse_transformer_layers_per_block",
        "reverse_temporal_transformer_layers_per_block",
        "reverse_motion_num_attention_heads",
        "transformer_layers_per_mid_block",
        "temporal_transformer_layers_per_mid_block",
        "mid_block_layers",
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "addition_embed_type",
        "addition_time_embed_dim",
        "projection_class_embeddings_input_dim",
        "time_cond_proj_dim",
    ]

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (
            "CrossAttnDownBlockMotion",
            "CrossAttnDownBlockMotion",
            "CrossAttnDownBlockMotion",
            "DownBlockMotion",
        ),
        up_block_types: tuple[str, ...] = (
            "UpBlockMotion",
            "CrossAttnUpBlockMotion",
            "CrossAttnUpBlockMotion",
            "CrossAttnUpBlockMotion",
        ),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        downsample_padding: int = 1,
        mid_block_scale_factor: float = 1,
        act_fn: str = "silu",
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int = 768,
        transformer_layers_per_block: int = 1,
        temporal_transformer_layers_per_block: int = 1,
        use_linear_projection: bool = False,
        num_attention_heads: int | tuple[int, ...] = 8,
        motion_max_seq_length: int = 24,
        motion_num_attention_heads: int | tuple[int, ...] = 8,
        use_motion_mid_block: bool = False,
        window: int = 16,
        warmup: int = 8,
        depth_channels: int | None = 4,
    ):
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            downsample_padding=downsample_padding,
            mid_block_scale_factor=mid_block_scale_factor,
            act_fn=act_fn,
            norm_num_groups=norm_num_groups,
            norm_eps=norm_eps,
            cross_attention_dim=cross_attention_dim,
            transformer_layers_per_block=transformer_layers_per_block,
            temporal_transformer_layers_per_block=temporal_transformer_layers_per_block,
            use_linear_projection=use_linear_projection,
            num_attention_heads=num_attention_heads,
            motion_max_seq_length=motion_max_seq_length,
            motion_num_attention_heads=motion_num_attention_heads,
            use_motion_mid_block=use_motion_mid_block,
        )
        self._install_temporal_transformers()
        self._install_text_attention()
        convolution.install(self)
        # Whoever changes weights of a model that may be streaming adds one: streams then compute their
        # `Constants` anew.
        self.revision = 0
        self.depth_branch = DepthBranch(depth_channels, block_out_channels[0]) if depth_channels else None
        self._views: dict[tuple[str, int, torch.device], ClipView] = {}
        self.set_window(window, warmup)

    def set_window(self, window: int, warmup: int) -> None:
        """Change L and Lw; no weight depends on them. Raises ValueError when they cannot be."""
        if not 0 <= warmup < window:
            raise ValueError(f"warmup={warmup}, window={window}: expected 0 <= warmup < window")
        longest = self.config.motion_max_seq_length
        if window > longest:
            raise ValueError(f"window={window}: the model has positional encodings for {longest} frames")
        self.register_to_config(window=window, warmup=warmup)
        self.window, self.warmup = window, warmup
        self._views.clear()

    def _install_temporal_transformers(self) -> None:
        """Replace diffusers' temporal transformers, parameters kept, and note each one's resolution level."""
        self.temporal: list[tuple[TemporalTransformer, int]] = []  # in layer order
        deepest = len(self.down_blocks) - 1
        levels = [*enumerate(self.down_blocks), (deepest, self.mid_block)]
        levels += [(deepest - i, block) for i, block in enumerate(self.up_blocks)]
        layer = 0
        for level, block in levels:
            modules = getattr(block, "motion_modules", ())
            for i, stock in enumerate(modules):
                assert isinstance(stock, AnimateDiffTransformer3D)
                modules[i] = TemporalTransformer(stock, layer)
                self.temporal.append((modules[i], level))
                layer += modules[i].layers

    def _install_text_attention(self) -> None:
        """Let every cross-attention find its keys and values in `Constants`."""
        blocks = [module for module in self.modules() if isinstance(module, BasicTransformerBlock)]
        self.cross = [cast(Attention, block.attn2) for block in blocks]  # in layer order
        for layer, attention in enumerate(self.cross):
            attention.processor = TextAttention(layer)

    @classmethod
    def from_pretrained(cls, *args, **kwargs) -> CausalUNet:
        """As diffusers', and bit-exact: the loaded model computes what the saved one did."""
        loaded = super().from_pretrained(*args, **kwargs)
        realign(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded

    # -- the whole clip -----------------------------------------------------------------------------------

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | int,
        encoder_hidden_states: torch.Tensor,
        depth: torch.Tensor | None = None,
        mask: Mask = "warmup_causal",
    ) -> torch.Tensor:
        """Predict the noise of whole clips.

        Args:
            sample: noisy latents (B, C, F, H, W). `causal` and `warmup_causal` take any F; beyond the window
                they evict as the stream does. `bidirectional` takes as many frames as there are encodings.
            timestep: one per clip, (B,), or a scalar.
            encoder_hidden_states: text states, (B, S, D) or (1, S, D) for all; not repeated over frames.
            depth: depth latents (B, C, F, H, W); None leaves the depth branch out.
            mask: who sees whom, see `masks.visible`.

        Returns:
            What it predicts, of the sample's shape: eps, or v (`settings.NoiseSchedule.prediction`).
        """
        return self._denoise_clips(
            sample, timestep, encoder_hidden_states, depth, self._clip_view(mask, sample)
        )

    def _clip_view(self, mask: Mask, sample: torch.Tensor) -> ClipView:
        frames = sample.shape[2]
        key = (mask, frames, sample.device)
        if key not in self._views:
            visible = masks.visible(mask, frames, self.window, self.warmup)
            position = masks.positions(visible)
            longest = int(position[visible].max()) + 1
            if longest > self.config.motion_max_seq_length:
                raise ValueError(
                    f"mask={mask!r} over {frames} frames needs {longest} positional encodings, "
                    f"the model has {self.config.motion_max_seq_length}"
                )
            with torch.inference_mode(False):  # the view outlives this call and must serve training too
                self._views[key] = ClipView(visible.to(sample.device), position.to(sample.device))
        return self._views[key]

    # -- the stream ---------------------------------------------------------------------------------------

    def new_memory(
        self,
        rows: int,
        height: int,
        width: int,
        dtype: torch.dtype | None = None,
        warmup: int | None = None,
        precision: Precision = "exact",
        device: torch.device | str | None = None,
    ) -> StreamMemory:
        """An empty memory for `rows` denoising rows and latents of `height` x `width`.

        Args:
            warmup: 0 streams under the plain causal mask; None takes the model's.
            precision: see `live2diff.memory.Slots`.
            device: None: our own. On "meta" it takes no memory: to ask for its `nbytes`.
        """
        warmup = self.warmup if warmup is None else warmup
        layers = []
        for module, level in self.temporal:
            # Each downsampler halves, rounding up.
            pixels = -(-height // 2**level) * -(-width // 2**level)
            layers += [(pixels, module.heads, module.channels // module.heads)] * module.layers
        return StreamMemory(
            layers, rows, self.window, warmup, dtype or self.dtype, device or self.device, precision
        )

    @torch.no_grad()
    def constants(self, timesteps: torch.Tensor, encoder_hidden_states: torch.Tensor) -> Constants:
        """What the steps of a stream share, see `Constants`. It must be made anew when weights change.

        Args:
            timesteps: of all rows, (T,).
            encoder_hidden_states: (B, S, D); B prompts for T rows, T a multiple of B.
        """
        projected = [TextAttention.project(attention, encoder_hidden_states) for attention in self.cross]
        blocks = [block for module, _ in self.temporal for block in module.transformer_blocks]
        return Constants(
            text=encoder_hidden_states,
            keys=[key for key, _ in projected],
            values=[value for _, value in projected],
            time=self._embed_time(timesteps),
            encodings=[
                project_encoding(attention, block.pos_embed.pe[0].to(self.dtype))
                for block in cast(list[TemporalBlock], blocks)
                for attention in (block.attn1, block.attn2)
            ],
        )

    @torch.no_grad()
    def warm_up(
        self,
        memory: StreamMemory,
        row: int,
        sample: torch.Tensor,
        timestep: torch.Tensor | int,
        encoder_hidden_states: torch.Tensor,
        depth: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Denoise the warm-up frames together and start `row` of the memory with them.

        Args:
            sample: (1, C, Lw, H, W) at the row's noise level; `depth` alike.
            timestep: the row's timestep, scalar or (1,).
            encoder_hidden_states: (1, S, D).

        Returns:
            eps (1, C, Lw, H, W).
        """
        if sample.ndim != 5 or sample.shape[0] != 1 or sample.shape[2] != memory.warmup:
            raise ValueError(f"warm-up takes (1, C, {memory.warmup}, H, W), not {tuple(sample.shape)}")
        if memory.warmup == 0:
            raise ValueError("this memory has no warm-up frames: begin with step()")
        if not 0 <= row < memory.rows:
            raise ValueError(f"row={row}: the memory has rows 0 to {memory.rows - 1}")
        memory.start_row(row)
        return self._denoise_clips(sample, timestep, encoder_hidden_states, depth, WarmUpView(memory, row))

    @torch.no_grad()
    def step(
        self,
        memory: StreamMemory,
        sample: torch.Tensor,
        timesteps: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        depth: torch.Tensor | None = None,
        live: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Denoise one frame in every row, each against its own past, and remember it. No host sync.

        Args:
            sample: (T, C, H, W), row r at `timesteps[r]`; `depth` alike.
            timesteps: (T,).
            encoder_hidden_states: (1, S, D) or (T, S, D).
            live: (T,) bool. A row that is not live carries no frame: its output is meaningless and it leaves
                no trace in the memory, whatever its input holds. None: all rows are live.

        Returns:
            eps (T, C, H, W).
        """
        if sample.ndim != 4 or sample.shape[0] != memory.rows:
            raise ValueError(
                f"step takes ({memory.rows}, C, H, W), one frame a row, not {tuple(sample.shape)}"
            )
        constants = self.constants(timesteps, encoder_hidden_states)
        residual = None if depth is None else self.depth_residual(depth)
        return self.advance(memory, sample, constants, residual, live)

    @torch.no_grad()
    def advance(
        self,
        memory: StreamMemory,
        sample: torch.Tensor,
        constants: Constants,
        residual: torch.Tensor | None = None,
        live: torch.Tensor | None = None,
        fused: bool = False,
    ) -> torch.Tensor:
        """`step` with all that need not be computed at every step given: what an engine calls.

        Args:
            residual: `depth_residual` of the rows' frames.
            fused: run temporal attention as one Triton kernel.
        """
        tick = memory.tick(live)
        view = StepView(memory, tick, constants.encodings, fused)
        eps = self._denoise(sample.unsqueeze(2), constants.time, constants, residual, view)
        memory.commit(tick)
        return eps.squeeze(2)

    # -- shared -------------------------------------------------------------------------------------------

    def depth_residual(self, depth: torch.Tensor) -> torch.Tensor:
        """What the depth branch adds to `conv_in`'s output: depth latents (N, C, H, W) -> (N, C0, H, W)."""
        if self.depth_branch is None:
            raise ValueError("depth was given, but this model has no depth branch (depth_channels=None)")
        return self.depth_branch(depth)

    def _embed_time(self, timesteps: torch.Tensor) -> torch.Tensor:
        return self.time_embedding(self.time_proj(timesteps).to(self.dtype))

    def _denoise_clips(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | int,
        encoder_hidden_states: torch.Tensor,
        depth: torch.Tensor | None,
        view: View,
    ) -> torch.Tensor:
        """`_denoise` of clips with one timestep and one text each, as `forward` describes them."""
        batch, _, frames, _, _ = sample.shape
        timestep = torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(batch)
        emb = self._embed_time(timestep).repeat_interleave(frames, dim=0)
        residual = None if depth is None else self.depth_residual(_fold_frames(depth))
        return self._denoise(sample, emb, encoder_hidden_states, residual, view)

    def _denoise(
        self,
        sample: torch.Tensor,
        emb: torch.Tensor,
        text: torch.Tensor | Constants,
        residual: torch.Tensor | None,
        view: View,
    ) -> torch.Tensor:
        """The UNet proper. diffusers' blocks hand `num_frames`, here the view, on to the motion modules.

        Args:
            sample: (B, C, F, H, W).
            emb, residual: one per frame, (B * F, ...).
            text: one per clip or one for all, (B, S, D) or (1, S, D), or keys and values of all layers.
        """
        batch, _, frames, _, _ = sample.shape
        x = self.conv_in(_fold_frames(sample))
        if residual is not None:
            x = x + residual

        skips = [x]
        for block in self.down_blocks:
            cross = {"encoder_hidden_states": text} if hasattr(block, "attentions") else {}
            x, block_skips = block(x, emb, num_frames=view, **cross)
            skips += block_skips
        motion = {"num_frames": view} if hasattr(self.mid_block, "motion_modules") else {}
        x = self.mid_block(x, emb, encoder_hidden_states=text, **motion)
        for block in self.up_blocks:
            count = len(cast(nn.ModuleList, block.resnets))
            block_skips, skips = tuple(skips[-count:]), skips[:-count]
            cross = {"encoder_hidden_states": text} if hasattr(block, "attentions") else {}
            # Stated always: it only matters where an odd size was rounded up on the way down.
            size = skips[-1].shape[-2:] if skips else None
            x = block(x, block_skips, emb, upsample_size=size, num_frames=view, **cross)
        x = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        return x.unflatten(0, (batch, frames)).transpose(1, 2)


def _fold_frames(x: torch.Tensor) -> torch.Tensor:
    """(B, C, F, H, W) -> (B * F, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)
