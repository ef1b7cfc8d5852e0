"""Waiting for what a page does, in place of waiting for some time."""

_DRAWN = "() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"

_STILL = """() => new Promise((still) => {
  let [before, unchanged] = [null, 0];
  const look = () => {
    const now = [scrollX, scrollY].join();
    unchanged = now === before ? unchanged + 1 : 0;
    before = now;
    if (unchanged >= 10) still();
    else requestAnimationFrame(look);
  };
  look();
})"""


def wait_until_drawn(page) -> None:
    """What was to be drawn in the next animation frame is drawn."""
    page.evaluate(_DRAWN)


def wait_until_still(page) -> None:
    """The page has ended its smooth scrolling: ten frames show the same place."""
    page.evaluate(_STILL)
