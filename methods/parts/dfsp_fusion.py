"""DFSP's fusion of image tokens with decomposed text tokens (sections 5 to 7 of its description).

Text into image (`TextToImage`): every image attends to a fixed memory made of the decomposed text. Image into text
(`ImageToText`): the decomposed text attends to rows made of the image tokens. Only the class token of the image and the
end token of a text are read out, so the last layer computes no other row: exact, and most of the work saved.

B images, V image tokens of width D; L text tokens of width T; P = A + O primitives, states first; C candidates.
"""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

from methods.backbone.heads import attend, head_count
from methods.backbone.products import Linear
from methods.parts.attention import quick_gelu
from methods.parts.shares import CommonDropout, ImageDropout

Fusion = Literal["t2i", "i2t", "bif", "none"]
Layout = Literal["per_image", "released"]


class QuickGELU(nn.Module):
    """`quick_gelu` as a layer; DFSP uses it whatever the backbone does."""

    def forward(self, values: Tensor) -> Tensor:
        """Return the activation of values of any shape."""
        return quick_gelu(values)


class FusionBlock(nn.Module):
    """Pre-norm attention and MLP, with PyTorch's initial weights.

    cross: whether the memory is another sequence, which then has a LayerNorm of its own
    dropout: on the hidden layer of the MLP (0.3 in self blocks, none in cross blocks)
    per_image: whether the query's first axis are the images of a batch
    """

    def __init__(self, width: int, cross: bool = False, dropout: float = 0.0, per_image: bool = True) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, head_count(width), batch_first=True)
        self.ln_query = nn.LayerNorm(width)
        self.ln_memory = nn.LayerNorm(width) if cross else None
        self.ln_mlp = nn.LayerNorm(width)
        drop = ImageDropout(dropout) if per_image else CommonDropout(dropout)
        self.mlp = nn.Sequential(Linear(width, 4 * width), QuickGELU(), drop, nn.Linear(4 * width, width))

    def attend(self, query: Tensor, memory: Tensor) -> Tensor:
        """Return query [..., Lq, width] plus what it reads from memory [..., Lk, width]; leading axes are broadcast."""
        norm = self.ln_query if self.ln_memory is None else self.ln_memory
        return query + attend(self.attention, self.ln_query(query), norm(memory))

    def feed(self, tokens: Tensor) -> Tensor:
        """Return tokens [..., width] plus their MLP."""
        return tokens + self.mlp(self.ln_mlp(tokens))

    def forward(self, query: Tensor, memory: Tensor | None = None) -> Tensor:
        """Return `feed` of `attend`; memory None is the query itself."""
        return self.feed(self.attend(query, query if memory is None else memory))


def self_blocks(width: int, depth: int, dropout: float, per_image: bool = True) -> nn.ModuleList:
    """Return a stack of self blocks."""
    return nn.ModuleList([FusionBlock(width, dropout=dropout, per_image=per_image) for _ in range(depth)])


def run_to_row(blocks: nn.ModuleList, tokens: Tensor, row: int) -> Tensor:
    """Return row `row` [..., width] of tokens [..., L, width] after self blocks; the last computes that row alone."""
    for block in blocks[:-1]:
        tokens = block(tokens)
    query = tokens[..., row : row + 1, :]
    return (blocks[-1](query, tokens) if len(blocks) else query)[..., 0, :]


class TextToImage(nn.Module):
    """Image tokens attend to a memory of V rows that the decomposed text makes; it is the same for every image."""

    def __init__(self, vision_width: int, text_width: int, image_tokens: int, text_rows: int, dropout: float) -> None:
        super().__init__()
        self.channels = nn.Linear(text_width, vision_width)
        self.tokens = nn.Linear(text_rows, image_tokens)
        self.dropout = CommonDropout(dropout)
        self.cross = FusionBlock(vision_width, cross=True)

    def memory(self, decomposed: Tensor) -> Tensor:
        """Return the memory [V, D] of decomposed text [P, L, T]; in training under one dropout mask for the batch."""
        rows = self.channels(decomposed.transpose(0, 1)).flatten(0, 1)  # [L * P, D], the position is the slow index
        return self.dropout(self.tokens(rows.T).T)

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        """Return image tokens [B, any length, D] after the cross block."""
        return self.cross(tokens, memory)


class ImageToText(nn.Module):
    """Decomposed text tokens attend to rows of the image, and a pair is composed of its state and its object.

    layout "per_image": key l of primitive n of image j is row l * P + n of that image. "released": what the reshape of
    the released code makes of it; a primitive attends to L * B rows drawn from all images of the batch, so all images
    get the same text, which changes with any of them.
    """

    def __init__(
        self,
        vision_width: int,
        text_width: int,
        image_tokens: int,
        text_rows: int,
        dropout: float,
        layout: Layout,
    ) -> None:
        super().__init__()
        self.channels = nn.Linear(vision_width, text_width)
        self.tokens = nn.Linear(image_tokens, text_rows)
        self.dropout = ImageDropout(dropout) if layout == "per_image" else CommonDropout(dropout)
        self.cross = FusionBlock(text_width, cross=True)
        self.composer = nn.Linear(text_width, text_width)
        self.layout = layout

    def keys(self, image_tokens: Tensor, primitives: int) -> Tensor:
        """Return what the text attends to: [B, P, L, T] per image, or [P, L * B, T] in the released layout."""
        rows = self.tokens(self.channels(image_tokens).transpose(1, 2)).transpose(1, 2)  # [B, L * P, T]
        if self.layout == "per_image":
            return self.dropout(rows.unflatten(1, (-1, primitives)).transpose(1, 2))
        # The image is the fast index when the released code flattens (row, image) and cuts it into rows of P slots.
        mixed = rows.transpose(0, 1).reshape(-1, primitives, rows.shape[-1])
        return self.dropout(mixed.transpose(0, 1))

    def forward(self, decomposed: Tensor, image_tokens: Tensor, blocks: nn.ModuleList, row: int) -> Tensor:
        """Return row `row` of every primitive after cross and self blocks, [B, P, T], or [1, P, T] if all are equal.

        decomposed: [P, L, T]
        image_tokens: [B, V, D]
        blocks: self blocks over the rows of a primitive
        """
        keys = self.keys(image_tokens, len(decomposed))
        stack = cast(list[FusionBlock], list(blocks))  # a ModuleList forgets
        if self.layout == "per_image":
            if not len(blocks):
                decomposed, row = decomposed[:, row : row + 1], 0
            return run_to_row(blocks, self.cross(decomposed, keys), row)
        # The released code holds a copy of the L rows for each image. The copies are equal until dropout tells them
        # apart, and a softmax over equal copies is the softmax over one.
        length, images, copies = decomposed.shape[1], len(image_tokens), 1
        rows = self.cross(decomposed, keys)  # [P, copies * L, T]
        for number, block in enumerate(stack, start=1):
            query = rows[:, row::length] if number == len(blocks) else rows
            attended = block.attend(query, rows)
            if self.training and copies == 1:
                attended, copies = attended.repeat(1, images, 1), images
            rows = block.feed(attended)
        return (rows if len(blocks) else rows[:, row::length]).transpose(0, 1)

    def compose(self, words: Tensor, states: Tensor, objects: Tensor) -> Tensor:
        """Return the token [G, n, T] of pairs: words [G, P, T], rows of states and objects int64 [n]."""
        return self.composer(words[:, states] * words[:, objects])


class DecomposedFusion(nn.Module):
    """The tensors of one variant and no others (the released code builds all and trains some).

    depth: self blocks per modality, SA_K in the released configurations.
    """

    def __init__(
        self,
        fusion: Fusion,
        layout: Layout,
        *,
        vision_width: int,
        text_width: int,
        image_tokens: int,
        text_rows: int,
        depth: int,
        dropout: float,
    ) -> None:
        super().__init__()
        sizes = (vision_width, text_width, image_tokens, text_rows, dropout)
        self.to_image = TextToImage(*sizes) if fusion in ("t2i", "bif") else None
        self.to_text = ImageToText(*sizes, layout) if fusion in ("i2t", "bif") else None
        self.image_blocks = self_blocks(vision_width, depth, dropout)
        # They run over an image's words, or over the candidates' own tokens, which all images share.
        words = fusion in ("i2t", "bif") and layout == "per_image"
        self.text_blocks = self_blocks(text_width, depth, dropout, per_image=words)

    def image(self, tokens: Tensor, memory: Tensor | None) -> Tensor:
        """Return the fused class token [B, D] of image tokens [B, V, D]; memory is `TextToImage.memory` or None."""
        if self.to_image is not None:
            tokens = self.to_image(tokens if len(self.image_blocks) else tokens[:, :1], memory)
        return run_to_row(self.image_blocks, tokens, 0)

    def text(self, tokens: Tensor, row: int) -> Tensor:
        """Return the fused row `row` [C, T] of the candidates' own tokens [C, L, T]: variants without image-to-text.

        All positions see each other, whatever comes after the end token included.
        """
        return run_to_row(self.text_blocks, tokens, row)

    def words(self, decomposed: Tensor, image_tokens: Tensor, row: int) -> Tensor:
        """Return the fused row `row` of every primitive, [B, P, T] or, if all images share it, [1, P, T]."""
        if self.to_text is None:
            raise ValueError("this variant fuses no words")
        return self.to_text(decomposed, image_tokens, self.text_blocks, row)

    def compose(self, words: Tensor, states: Tensor, objects: Tensor) -> Tensor:
        """Return the token [G, n, T] of pairs, see `ImageToText.compose`."""
        if self.to_text is None:
            raise ValueError("this variant composes no words")
        return self.to_text.compose(words, states, objects)


def primitive_sums(values: Tensor, rows: Tensor, primitives: int) -> Tensor:
    """Return [P, ...]: the sum over the candidates that contain each primitive.

    values: [C, ...]
    rows: int64 [C, 2], each candidate's state row and object row (see `PrimitiveTable.pair_rows`)
    """
    zeros = values.new_zeros(primitives, *values.shape[1:])
    return zeros.index_add(0, rows[:, 0], values).index_add(0, rows[:, 1], values)
