"""How the pair, state and object branches of a model become one score for each pair.

A state's or an object's probability is a softmax over all states or objects, never over the candidates at hand, and a
pair's own probability needs one number per image (`pair_normaliser`). With these given, the score of a pair needs that
pair alone: any chunk of candidates may be scored by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from operator import add, mul
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["logit_product", "logit_sum", "probability_product", "probability_sum", "log_sum", "pair"]
Weights = tuple[float, float, float]


@dataclass(frozen=True)
class ScoreFusion:
    """A rule and its weights (pair, state, object), for branch logits z_p, z_s, z_o and their softmaxes p.

    logit_product: w_p z_p + (w_s p_s)(w_o p_o), what the released codes of Troika and MSCI compute. A logit is a cosine
        times 100, so the product, at most 1, decides little.
    logit_sum: w_p z_p + w_s p_s + w_o p_o, what the released code of VP-CMJL computes
    probability_product: w_p p_p + (w_s p_s)(w_o p_o), as the paper of Troika writes it; p_p, and with it a score, then
        depends on what else is a candidate
    probability_sum: w_p p_p + w_s p_s + w_o p_o
    log_sum: w_p z_p + w_s log p_s + w_o log p_o, which is the sum of log-probabilities up to a number per image
    pair: z_p

    In a product a weight of 0 makes that factor 1, as in the released codes: it leaves the factor out. A branch that
    does not exist (None) is left out of every rule.

    divisor: the released test scripts of Troika and MSCI list every state and object once per text batch, so that with
    n batches each probability in the product is p / n. 1 is right; other values reproduce that.
    """

    rule: Rule = "logit_product"
    weights: Weights = (1.0, 1.0, 1.0)
    divisor: int = 1

    @property
    def needs_normaliser(self) -> bool:
        """Whether a pair's score depends on what else is a candidate."""
        return self.rule in ("probability_product", "probability_sum")

    def __call__(
        self,
        pair_logits: Tensor | None,
        state_log_probability: Tensor | None,
        object_log_probability: Tensor | None,
        states: Tensor,
        objects: Tensor,
        pair_normaliser: Tensor | None = None,
    ) -> Tensor:
        """Return the scores, fp32 [B, n], of n pairs.

        pair_logits: [B, n]
        state_log_probability: [B, A]
        object_log_probability: [B, O]
        states, objects: int64 [n], the primitives of the pairs
        pair_normaliser: [B], log of the sum of exp(pair logits) over all candidates

        ValueError when no branch or a needed normaliser is missing.
        """
        pair = self._pair_term(pair_logits, pair_normaliser)
        primitives = [
            (weight, log_probability[:, index].float())
            for weight, log_probability, index in (
                (self.weights[1], state_log_probability, states),
                (self.weights[2], object_log_probability, objects),
            )
            if log_probability is not None
        ]
        if pair is None and not primitives:
            raise ValueError("no branch to score with")
        if self.rule == "pair" and pair is not None:
            return pair
        if self.rule in ("logit_sum", "probability_sum", "log_sum"):
            terms = [weight * (value if self.rule == "log_sum" else value.exp()) for weight, value in primitives]
            return reduce(add, terms if pair is None else [pair, *terms])
        factors = [self._factor(weight, value) for weight, value in primitives]
        if pair is None:
            return reduce(mul, factors)
        return pair + reduce(mul, factors) if factors else pair

    def _factor(self, weight: float, log_probability: Tensor) -> Tensor:
        if weight == 0:
            return torch.ones_like(log_probability)
        return weight * (log_probability - math.log(self.divisor)).exp()

    def _pair_term(self, logits: Tensor | None, normaliser: Tensor | None) -> Tensor | None:
        if logits is None:
            return None
        if self.rule == "pair":
            return logits.float()
        if not self.needs_normaliser:
            return self.weights[0] * logits.float()
        if normaliser is None:
            raise ValueError(f"the rule {self.rule} needs the normaliser of the pair logits")
        return self.weights[0] * (logits.float() - normaliser[:, None]).exp()
