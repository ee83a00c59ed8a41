"""Where the mix comes from: one file per source, and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prism_tune.quickstart.sources.animals import draw_animals
from prism_tune.quickstart.sources.charts import draw_charts
from prism_tune.quickstart.sources.counting import draw_scenes
from prism_tune.quickstart.sources.digits import draw_digits
from prism_tune.quickstart.sources.example import Source
from prism_tune.quickstart.sources.facts import draw_facts
from prism_tune.quickstart.sources.shapes import draw_shapes
from prism_tune.quickstart.sources.words import draw_words


@dataclass(frozen=True)
class Share:
    """A source, and how many of its examples are held out, in the pool, and captions.

    `num_spare` are in none of these: a pool with faults is over-full of them.
    """

    draw: Source
    num_test: int
    num_pool: int
    num_captions: int = 0
    num_spare: int = 0


MIX: Mapping[str, Share] = {
    "shapes": Share(draw_shapes, num_test=300, num_pool=110, num_captions=600),
    "animals": Share(draw_animals, num_test=300, num_pool=300, num_captions=600),
    "digits": Share(draw_digits, num_test=300, num_pool=260, num_captions=600, num_spare=200),
    "words": Share(draw_words, num_test=300, num_pool=260, num_captions=600),
    "charts": Share(draw_charts, num_test=300, num_pool=240, num_captions=600),
    "counting": Share(draw_scenes, num_test=300, num_pool=240, num_captions=600),
    "facts": Share(draw_facts, num_test=150, num_pool=120),
}
