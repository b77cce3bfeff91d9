"""Whether methods can run on a backbone, known before anything is loaded."""

from __future__ import annotations

from methods.offers import Offers, offers_of, require_fit
from registry import BACKBONES, METHODS


def require_fitting(method: str, backbone: str) -> None:
    """Raise `UserError` if a method needs what a backbone does not offer.

    backbone: a name to load it by. What a plugin's backbone offers is known once it is loaded, and asked then.
    """
    offers = known_offers(backbone)
    if offers is not None and offers.names:  # what cannot be a backbone at all is refused on loading, which says why
        require_fit(method, METHODS.get(method).info.needs, backbone, offers.names, methods_on(offers))


def known_offers(backbone: str) -> Offers | None:
    """Return what a backbone offers by its definition, None where that is not known."""
    from methods.backbone.clip import load_backbone

    return offers_of(backbone) if BACKBONES.serves(load_backbone, backbone) else None


def methods_on(offers: Offers) -> list[str]:
    """Return the methods that run on a backbone with these offers."""
    return [name for name in METHODS.names() if not offers.lacking(METHODS.get(name).info.needs)]
