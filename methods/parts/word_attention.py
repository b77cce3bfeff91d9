"""Cross-attention of an image to all states or all objects, whose weights are logits themselves (VP-CMJL).

The words' keys and values depend on no image, so they are made once per candidate list by `memory`.

B images, n words, d joint width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from errors import UserError
from methods.backbone.heads import key_value_heads, query_heads
from methods.parts.attention import KeysValues
from methods.parts.feed_forward import feed_forward


class WordAttention(nn.Module):
    """One pre-norm layer of cross-attention with a feed-forward part, from image features to features of their words.

        u = g + Attention(LayerNorm(g), LayerNorm'(T)),    f = u + W2 QuickGELU(W1 LayerNorm''(u) + b1) + b2

    for image features g [B, d] and the raw text features T [n, d] of all words; hidden width 4 d, no dropout. An image
    is a query that never sees another image. A number of heads that does not divide the width is a `UserError`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise UserError(
                f"Attention to words with {heads} heads was asked for.",
                f"The backbone's joint space has {width} channels, which they do not divide.",
                f"Set heads to a divisor of {width}.",
            )
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)  # holds the weights
        self.norm_image = nn.LayerNorm(width)
        self.norm_words = nn.LayerNorm(width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def memory(self, words: Tensor) -> KeysValues:
        """Return keys and values, each [heads, n, d / heads], of raw text features [n, d]."""
        with torch.autocast(words.device.type, enabled=False):
            return key_value_heads(self.attention, self.norm_words(words.float()))

    def forward(self, image: Tensor, memory: KeysValues) -> tuple[Tensor, Tensor]:
        """Return the features f [B, d] and the attention weights [B, n], the mean over heads, whose rows sum to 1.

        fp32 under autocast too: the weights are logits after a factor of 100.
        """
        keys, values = memory
        with torch.autocast(image.device.type, enabled=False):
            image = image.float()
            queries = query_heads(self.attention, self.norm_image(image))  # [heads, B, d / heads]
            weights = (queries @ keys.mT / keys.shape[-1] ** 0.5).softmax(dim=-1)
            found = self.attention.out_proj((weights @ values).transpose(0, 1).flatten(1))
            return feed_forward(image, found, self.norm, self.widen, self.narrow, 0.0), weights.mean(dim=0)
