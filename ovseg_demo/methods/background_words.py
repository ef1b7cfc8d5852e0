"""Background words: what photos mostly show besides the words of a vocabulary.

A pixel that looks more like a background word than like any word of the vocabulary shows none of the words. Background
words are surroundings, because things that are absent from a vocabulary look less like its words than surroundings do:
with things among the background words, more pixels of the vocabulary's own things were lost, and no fewer surroundings
were given a word. The first list of this kind is that of SCLIP (Wang et al., ECCV 2024), which NACLIP uses too.
"""

from collections.abc import Sequence

from ovseg_demo.vocabulary import readable_text

RELATED_WORDS = {
    "sky": "cloud, heaven, air, sunset, sunrise, horizon, fog, smoke",
    "cloud": "sky, fog, smoke, steam",
    "tree": (
        "forest, wood, trunk, palm, plant, leaf, bush, branch, pine, oak, jungle, foliage, vegetation, "
        "nature, hedge, orchard"
    ),
    "bush": "plant, hedge, shrub, leaf, tree, flower, foliage, vegetation, garden, nature",
    "leaves": "plant, foliage, flower, tree, bush, vegetation, vegetable, salad, nature",
    "wood": "tree, forest, log, plank, timber, board, furniture, bark, trunk, bench, table, floor, fence",
    "grass": (
        "lawn, meadow, field, pasture, turf, playingfield, pitch, park, garden, vegetation, ground, hay, plant, nature"
    ),
    "field": "meadow, lawn, pasture, grass, farm, pitch, playingfield, crop, court, land, landscape, ground",
    "ground": (
        "floor, soil, earth, dirt, land, gravel, grass, field, sand, road, pavement, path, street, sidewalk, "
        "court, snow, mud, rug, carpet"
    ),
    "dirt": "soil, earth, mud, ground, gravel, sand, land, road, path, trail",
    "hill": "mountain, land, landscape, slope, dune, cliff",
    "road": (
        "street, highway, asphalt, lane, runway, pavement, ground, path, track, way, bridge, tarmac, "
        "crossing, crosswalk"
    ),
    "path": "trail, way, track, road, pavement, walkway, sidewalk, ground",
    "pavement": "sidewalk, road, street, path, ground, floor, asphalt, walkway, platform, crossing, crosswalk",
    "water": (
        "sea, ocean, lake, river, pond, pool, wave, waterfall, canal, fountain, rain, stream, swimming pool, "
        "puddle, ice"
    ),
    "sea": "ocean, water, wave, lake, coast, beach",
    "river": "water, stream, canal, lake, sea, waterfall, pond",
    "sand": "beach, desert, dune, shore, ground, dirt, gravel",
    "snow": "ice, glacier, frost, slope, winter",
    "mountain": "hill, peak, cliff, rock, volcano, glacier, landscape, alps",
    "rock": "stone, cliff, boulder, mountain, gravel, coral",
    "stone": "rock, gravel, brick, boulder, pebble, wall, statue, cliff",
    "wall": "brick, tile, building, panel, plaster, facade, house",
    "building": (
        "house, tower, church, skyscraper, city, town, castle, facade, architecture, wall, shop, store, "
        "hotel, window, temple, barn, hut, cathedral, home"
    ),
    "house": "building, home, cottage, hut, barn, villa, cabin, roof, facade",
    "roof": "house, building, ceiling, tile",
    "window": "glass, pane, windshield, shutter, facade, blind",
    "door": "gate, entrance, doorway",
    "floor": "ground, carpet, rug, tile, parquet, mat, pavement",
    "carpet": "rug, mat, floor, blanket, towel",
    "ceiling": "roof",
    "bed": "pillow, blanket, mattress, bedding, duvet, sheet, furniture, sofa, couch",
    "desk": "table, furniture, counter, workbench, tabletop, countertop",
    "shelf": "bookshelf, bookcase, rack, cupboard, cabinet, furniture, book",
    "wardrobe": "closet, cupboard, cabinet, furniture, drawer, dresser",
    "cabinet": (
        "cupboard, drawer, closet, wardrobe, shelf, furniture, kitchen, dresser, fridge, refrigerator, counter"
    ),
    "curtain": "drape, blind, fabric, cloth, textile",
    "fabric": (
        "cloth, clothes, clothing, textile, blanket, towel, curtain, sheet, shirt, dress, pillow, cushion, "
        "jacket, pants, trousers, skirt, coat, sofa, couch, person, man, woman, suit, scarf, hat"
    ),
    "fence": "railing, gate, rail, barrier, hedge, guardrail",
    "rail": "railing, railroad, railway, track, fence, guardrail, handrail, train track",
    "lamp": "light, lantern, chandelier, bulb, street light, candle",
    "stair": "step, staircase, stairway, ladder, escalator",
    "bridge": "viaduct, overpass",
}
"""Every background word, with the words that rule it out, parted by commas, beside itself.

They are other names for it, wholes it is part of, and things that it looks like: whoever asks for "lawn" does not want
to lose it to "grass".
"""

OTHERS = "others"
"""The background word where a vocabulary rules out all of them; OVSeg's demo adds it to a vocabulary of one word."""


def background_words(words: Sequence[str]) -> tuple[str, ...]:
    """The background words for a vocabulary, at least one.

    Args:
        words: all words of the vocabulary, synonyms included. A word of several parts, such as "brick wall" or
            "street-light", rules out what each of its parts does; a plural rules out what its singular does.

    Example:
        >>> "grass" in background_words(["cat"]), "grass" in background_words(["Mowed lawns"])
        (True, False)
    """
    asked_for = {form for word in words for form in _forms(word)}
    kept = tuple(word for word, ruled_out_by in _RULED_OUT_BY.items() if not ruled_out_by & asked_for)
    return kept or (OTHERS,)


def _forms(word: str) -> set[str]:
    """The singular of a word and of each of its parts, in lower case."""
    text = readable_text(word).casefold().replace("-", " ").replace("_", " ")
    return {_singular(part) for part in (text, *text.split())}


_ENDINGS = {
    "eaves": "eaf",
    "elves": "elf",
    "arves": "arf",
    "ies": "y",
    "shes": "sh",
    "ches": "ch",
    "sses": "ss",
    "xes": "x",
    "ss": "ss",
    "us": "us",
    "s": "",
}
"""Endings of English plurals, and what they are in the singular; the first one that fits counts."""


def _singular(word: str) -> str:
    """The singular of an English noun, by rules that suffice to compare words that went through the same rules."""
    for ending, singular in _ENDINGS.items():
        if word.endswith(ending):
            return word.removesuffix(ending) + singular
    return word


_RULED_OUT_BY = {
    word: {_singular(each) for each in (word, *related.split(", "))} for word, related in RELATED_WORDS.items()
}
