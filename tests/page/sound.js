// What must hold of every scene, width and colour scheme: returns a list of what does not.
const wrong = [];
const say = (what, node) => wrong.push(`${what}: ${node ? node.outerHTML.slice(0, 160) : ''}`);
const visible = (node) => node.checkVisibility({ visibilityProperty: true, contentVisibilityAuto: true });
const all = (selector) => [...document.querySelectorAll(selector)].filter(visible);

// Nothing is wider than the window.
if (document.documentElement.scrollWidth > innerWidth) {
  const wide = [...document.body.querySelectorAll('*')].filter((node) => node.getBoundingClientRect().right > innerWidth + 1 && visible(node));
  say(`${document.documentElement.scrollWidth} px in a window of ${innerWidth}`, wide.at(-1));
}

// Landmarks, headings, names.
for (const landmark of ['header', 'main', 'footer']) if (all(landmark).length !== 1) say(`one ${landmark}`);
if (all('h1').length !== 1) say('one h1');
let before = 0;
for (const heading of all('h1, h2, h3, h4')) {
  const level = Number(heading.tagName[1]);
  if (level > before + 1) say(`a heading of level ${level} after ${before}`, heading);
  if (!heading.textContent.trim()) say('an empty heading', heading);
  before = level;
}
if (!document.documentElement.lang) say('no language');
const ids = [...document.querySelectorAll('[id]')].map((node) => node.id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) say(`id ${id} twice`);
for (const node of all('a, button, summary, input, progress')) {
  const name = node.getAttribute('aria-label') || node.labels?.[0]?.textContent || node.textContent;
  if (!name?.trim()) say('no name', node);
  if (node.tabIndex > 0) say('an order of its own', node);
}
for (const node of document.querySelectorAll('[aria-labelledby], [aria-describedby]')) {
  for (const id of (node.getAttribute('aria-labelledby') ?? node.getAttribute('aria-describedby')).split(' ')) {
    if (!document.getElementById(id)?.textContent.trim()) say(`it is named by ${id}, which is empty`, node);
  }
}
for (const svg of all('svg')) if (svg.getAttribute('aria-hidden') !== 'true' && svg.getAttribute('role') !== 'img') say('a picture without a role', svg);
for (const node of document.querySelectorAll('svg[role=img]')) if (node.querySelector('a, button, [tabindex]')) say('something to focus within a picture', node);
for (const node of document.querySelectorAll('table')) {
  if (!node.caption) say('a table without a caption', node);
  if ([...node.querySelectorAll('th')].some((cell) => !cell.scope)) say('a head cell without a scope', node);
}
for (const node of document.querySelectorAll('*')) {
  for (const { name, value } of node.attributes) {
    if (name.startsWith('on') || name === 'style') say(`an inline ${name}`, node);
    const documentation = name === 'href' && node.tagName === 'A' && value.startsWith('https://github.com/thanos-timeshard/thanos-timeshard/blob/main/docs/') && node.rel === 'noopener noreferrer';
    if ((name === 'href' || name === 'src') && !/^(#|[a-z.]+$)/.test(value) && !documentation) say(`${name} leads elsewhere`, node);
  }
}

// Contrast: WCAG's ratio of text to what is behind it, 4.5 at least. What is stale fades on purpose.
const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
const over = ([r, g, b, a = 1], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
const light = (rgb) => rgb.map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (node) => {
  const layers = [];
  for (let at = node; at; at = at.parentElement) {
    const colour = numbers(getComputedStyle(at).backgroundColor);
    if ((colour[3] ?? 1) > 0) layers.push(colour);
    if ((colour[3] ?? 1) === 1) break;
  }
  return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255]);
};
const reported = new Set();
for (const node of all('body *')) {
  if (![...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()) || document.body.classList.contains('stale')) continue;
  const style = getComputedStyle(node), text = node instanceof SVGElement ? style.fill : style.color;
  if (text === 'none' || node.closest('.hidden, .skip') || ['title', 'desc'].includes(node.tagName)) continue;
  const under = behind(node), [a, b] = [light(over(numbers(text), under)), light(under)];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const key = `${text} on ${under}`;
  if (ratio < 4.5 && !reported.has(key)) {
    reported.add(key);
    say(`contrast ${ratio.toFixed(2)} (${key})`, node);
  }
}
return wrong;
