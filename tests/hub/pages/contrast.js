// Elements whose text stands out from its ground by less than arguments[0]: [[contrast, markup], …], by WCAG 2.2, 1.4.3.
const parse = (c) => (c.match(/[0-9.]+/g) || []).map(Number);
const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const luminance = (c) => 0.2126 * linear(c[0] / 255) + 0.7152 * linear(c[1] / 255) + 0.0722 * linear(c[2] / 255);
const ground = (e) => {
  for (; e; e = e.parentElement) {
    const said = getComputedStyle(e).backgroundColor;
    const c = parse(said);
    if (said.startsWith("rgb") && (c.length < 4 || c[3] === 1)) return c;
  }
  return [255, 255, 255];
};
const contrast = (e) => {
  const [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(ground(e))];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
};
const hasText = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
return [...document.querySelectorAll("main *, header *")]
  .filter((e) => hasText(e) && e.checkVisibility() && !(e instanceof SVGElement))
  .map((e) => [contrast(e), e.outerHTML.slice(0, 80)])
  .filter(([ratio]) => ratio < arguments[0]);
