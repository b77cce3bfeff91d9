"""Methods: what turns an image and candidate pairs into scores. The tables of built-in methods and backbones.

Targets are lazy strings, so that importing this package imports no torch and `list` starts fast.
"""

from registry import BACKBONES, METHODS

METHODS.add(
    "clip_zero_shot",
    "methods.clip_zero_shot:CLIPZeroShot",
    title="CLIP zero-shot",
    paper="Radford et al., ICML 2021",
)
METHODS.add("coop", "methods.coop:CoOp", title="CoOp", paper="Zhou et al., IJCV 2022")
METHODS.add("csp", "methods.csp:CSP", title="CSP", paper="Nayak et al., ICLR 2023")
METHODS.add("dfsp", "methods.dfsp:DFSP", title="DFSP", paper="Lu et al., CVPR 2023")
METHODS.add("troika", "methods.troika:Troika", title="Troika", paper="Huang et al., CVPR 2024")
METHODS.add("msci", "methods.msci:MSCI", title="MSCI", paper="Wang et al., IJCAI 2025")
METHODS.add("cams", "methods.cams:CAMS", title="CAMS", paper="arXiv, November 2025")
METHODS.add(
    "refiner_style",
    "methods.refiner_style:RefinerStyle",
    title="Refiner-style",
    paper="our design, after ICASSP 2025",
)
METHODS.add("caila", "methods.caila:CAILA", title="CAILA", paper="Zheng et al., WACV 2024")
METHODS.add("vp_cmjl", "methods.vp_cmjl:VPCMJL", title="VP-CMJL", paper="Zhang et al., ICCV 2025")

# One loader serves them all. These are listed because the suite uses or recommends them.
for _name, _title in {
    "tiny-icons": "tiny CLIP pretrained on rendered icons, part of this project",
    "tiny-icons-siglip": "the same with towers like SigLIP's: attention pooling, text both ways",
    "ViT-L-14-quickgelu/openai": "OpenAI CLIP ViT-L/14, the backbone of the published results",
    "ViT-B-16-quickgelu/openai": "OpenAI CLIP ViT-B/16",
    "ViT-B-32-quickgelu/openai": "OpenAI CLIP ViT-B/32",
}.items():
    BACKBONES.add(_name, "methods.backbone.clip:load_backbone", title=_title, named=True)
BACKBONES.add_family(
    "*/*", "methods.backbone.clip:load_backbone", title="any model of the table below: <model>/<tag or local file>"
)
