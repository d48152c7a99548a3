"""Evaluation protocols of the PRD and PTD papers: views, CLIP models, open points, quoted rows.

A protocol is data. What a paper prescribes is in its fields; what it leaves open is chosen here, named
in `Protocol.open_points` and written into every result.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ViewSettings:
    """How an object is rendered: unlit base colour, transparent background, 2 x 2 supersampling.

    Attributes:
        azimuths: degrees from the front (+x) toward +y.
        elevations: degrees above the horizon; every azimuth is rendered at every elevation.
        size: side of an image in pixels.
        radius: distance of the cameras from the origin.
        fovy: full vertical field of view in degrees.
        half_extent: the bounding box of an object is centred and its longest side scaled to twice this.
    """

    azimuths: tuple[float, ...]
    elevations: tuple[float, ...]
    size: int
    radius: float
    fovy: float
    half_extent: float

    @property
    def angles(self) -> list[tuple[float, float]]:
        """Azimuth and elevation of each view, in order."""
        return [(azimuth, elevation) for elevation in self.elevations for azimuth in self.azimuths]


@dataclass(frozen=True)
class QuotedRow:
    """One row of a paper's table, as printed there; "-": not reported.

    Attributes:
        method: name of the method.
        clip: the CLIP model that the paper names.
        cosine: 100 times the cosine similarity.
        clip_score: CLIPScore.
        r_at_1: R@1 in percent.
        latency: seconds from text to mesh.
    """

    method: str
    clip: str
    cosine: str = "-"
    clip_score: str = "-"
    r_at_1: str = "-"
    latency: str = "-"


@dataclass(frozen=True)
class Protocol:
    """An evaluation protocol.

    Attributes:
        name: as users write it.
        source: the paper and its section.
        views: the rendered views.
        clips: open_clip models as NAME/TAG.
        prefix: text in front of each prompt when it is embedded.
        background: sRGB bytes behind the object.
        open_points: what the paper leaves open, and what is used here.
        quoted_from: where the quoted rows are printed, and how their columns are read.
        quoted: rows of the paper.
    """

    name: str
    source: str
    views: ViewSettings
    clips: tuple[str, ...]
    prefix: str
    background: tuple[int, int, int]
    open_points: dict[str, str]
    quoted_from: str
    quoted: tuple[QuotedRow, ...]


_B32, _L14, _BIGG14 = "ViT-B-32/openai", "ViT-L-14/openai", "ViT-bigG-14/laion2b_s39b_b160k"


def _prd(method: str, clip_score: str, r_at_1: str, latency: str) -> QuotedRow:
    return QuotedRow(method, "ViT-B-32", clip_score=clip_score, r_at_1=r_at_1, latency=latency)


def _ptd(method: str, l14: str, bigg14: str) -> tuple[QuotedRow, QuotedRow]:
    return QuotedRow(method, "ViT-L-14", cosine=l14), QuotedRow(method, "ViT-bigG-14", cosine=bigg14)


_FRAMING = "bounding box centred, its longest side scaled to 1.8"

PRD = Protocol(
    name="prd",
    source="PRD paper (arXiv 2503.21694), section 4.1",
    views=ViewSettings((0, 90, 180, 270), (15,), size=512, radius=3.0, fovy=50.0, half_extent=0.9),
    clips=(_B32,),
    prefix="A photo depicts ",
    background=(255, 255, 255),
    open_points={
        "CLIP model": 'ViT-B-32 of OpenAI; the paper prints "ViT-B/34", which does not exist, and its'
        " released script loads ViT-B/32",
        "radius and field of view": "3 and 50 degrees, the defaults of the renderer in the released script",
        "framing": f"{_FRAMING}, as that renderer does",
        "light and background": "none (base colour) on white, as that renderer does",
        "text": 'prefixed with "A photo depicts ", as CLIPScore defines; the released script omits the space'
        " after the prefix",
        "R@1": "the released script ranks each view; R@1 per object ranks the mean of the views' unit"
        " embeddings",
        "latency": "mean over all meshes but the first of each process; the paper's was measured on an H20",
    },
    quoted_from="PRD paper, Table 1: C.S. read as CLIPScore and R@1 as R@1 per view, as its released script"
    " computes them; latency from text to mesh on an H20",
    quoted=(
        _prd("Shape-E", "55.1", "27.1", "13.0"),
        _prd("Direct3D", "60.8", "4.33", "16.0"),
        _prd("3DTopia", "59.7", "11.2", "23.7"),
        _prd("PI3D", "65.9", "25.2", "3.00"),
        _prd("GVGEN", "51.1", "2.44", "49.2"),
        _prd("LN3Diff", "55.9", "5.09", "8.16"),
        _prd("LGM", "67.4", "28.3", "56.1"),
        _prd("PRD (360K prompts)", "68.2", "32.3", "1.23"),
        _prd("PRD (1.6M prompts)", "75.1", "46.0", "1.23"),
    ),
)

PTD = Protocol(
    name="ptd",
    source="PTD paper (under review for ICLR 2025), section 6.1",
    views=ViewSettings(tuple(range(0, 360, 45)), (0, 45), size=512, radius=4.0, fovy=40.0, half_extent=0.9),
    clips=(_L14, _BIGG14),
    prefix="",
    background=(255, 255, 255),
    open_points={
        "CLIP weights": "OpenAI's ViT-L-14, and ViT-bigG-14 of laion2b_s39b_b160k, the only ones",
        "score": "100 times the cosine similarity, which the paper's 27.16 fits",
        "image size and field of view": "512 x 512 and 40 degrees",
        "framing": _FRAMING,
        "light and background": "none (base colour) on white",
        "text": "the prompt alone",
    },
    quoted_from="PTD paper, section 6.1: read as 100 times the cosine similarity",
    quoted=(
        *_ptd("DreamFusion", "23.60", "37.46"),
        *_ptd("ProlificDreamer", "27.39", "42.98"),
        *_ptd("Instant3D", "26.87", "41.77"),
        *_ptd("LucidDreamer", "25.99", "40.27"),
        *_ptd("PTD", "27.16", "42.36"),
    ),
)

PROTOCOLS = {protocol.name: protocol for protocol in (PRD, PTD)}
