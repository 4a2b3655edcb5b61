"""What a page must be for everybody to use it, found out in the browser itself."""

from __future__ import annotations

NAMELESS = """() => {
  const named = (e) => {
    const by = (e.getAttribute('aria-labelledby') ?? '').split(/\\s+/).filter(Boolean)
      .map((id) => document.getElementById(id)?.textContent ?? '').join('');
    const labels = e.labels ? [...e.labels].map((l) => l.textContent).join('') : '';
    return (by || e.getAttribute('aria-label') || labels || e.getAttribute('alt') || e.textContent
      || e.getAttribute('title') || '').trim() !== '';
  };
  const seen = (e) => e.checkVisibility() && !e.closest('[aria-hidden=true]');
  const wanted = 'a[href], button, input, select, textarea, dialog, section, [role=img], [role=radiogroup]';
  const found = [...document.querySelectorAll(wanted)].filter((e) => seen(e) && !named(e));
  const pictures = [...document.querySelectorAll('img:not([alt])')];
  return [...found, ...pictures].map((e) => e.outerHTML.slice(0, 160));
}"""  # noqa: E501

# WCAG 2: the text's colour against what lies behind it, alpha composed layer by layer.
FAINT = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) =>
    [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const behind = (e) => {
    const layers = [];
    for (let at = e; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faint = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility({ opacityProperty: true }) || e.closest('button:disabled, svg, .hidden')) continue;
    const style = getComputedStyle(e);
    const ground = behind(e);
    const [a, b] = [light(over(rgba(style.color), ground)), light(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) faint.push(`${ratio.toFixed(2)} ${e.outerHTML.slice(0, 120)}`);
  }
  return faint;
}"""  # noqa: E501

SMALL = """() => [...document.querySelectorAll('button, input, a[href]')]
  .filter((e) => e.checkVisibility() && !e.matches('.skip, p a'))
  .map((e) => [e.getBoundingClientRect(), e.outerHTML.slice(0, 120)])
  .filter(([box]) => box.width < 24 || box.height < 24).map(([, html]) => html)"""

SPILLS = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"

HEADINGS = "() => [...document.querySelectorAll('h1, h2, h3')].map((e) => +e.tagName[1])"

FOCUSED = "() => document.activeElement?.getAttribute('href') ?? document.activeElement?.tagName"
