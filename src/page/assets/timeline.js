// Draws windows: the past on the left, one row per pod (or per shard, for many pods), coverage below.
// Built by DOM methods only: every text from the cluster becomes a text node.

const SVG = 'http://www.w3.org/2000/svg';
const UNITS = { y: 31536000, w: 604800, d: 86400, h: 3600, m: 60, s: 1, ms: 0.001 };
/** The longest retention, in seconds; an older bound means no end. */
const OPEN = 36500 * 86400;
const DAY = 86400;
/** With more pods, a row is a shard. */
const MAX_POD_ROWS = 40;
/** How many rows are drawn. */
const MAX_ROWS = 60;
const ROW = 20, BAR = 12, GROUP_GAP = 8;

const SIGNS = { confirmed: '✓', joining: '◔', settling: '…', terminating: '…', absent: '✕', broken: '✕', unreachable: '?', not_injected: '○' };
export const STATE_NAMES = { not_injected: 'not injected' };
export const isLost = (pod) => ['absent', 'broken', 'unreachable', 'not_injected'].includes(pod.state);

/** An element with attributes and children; strings become text nodes. */
export function el(name, attributes = {}, ...children) {
  const svg = attributes.xmlns === SVG;
  const node = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key !== 'xmlns' && value !== undefined && value !== null && value !== false) node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const draw = (name, attributes, ...children) => el(name, { xmlns: SVG, ...attributes }, ...children);

/** Seconds of a Prometheus duration such as -124d8h. */
function seconds(text) {
  let all = 0;
  for (const [, number, unit] of text.matchAll(/(\d+)(ms|[ywdhms])/g)) all += Number(number) * UNITS[unit];
  return text.startsWith('-') ? -all : all;
}
/** The age of a bound in seconds; negative in the future. */
function age(bound, now) {
  const at = /^\d{4}-/.test(bound) ? Date.parse(bound) / 1000 : NaN;
  return Number.isNaN(at) ? -seconds(bound) : now - at;
}
/** The ages of a window's older and newer end. */
export const ages = (window, now) => [age(window.min_time, now), age(window.max_time, now)];
export const same = (a, b) => a === b || (!!a && !!b && a.min_time === b.min_time && a.max_time === b.max_time);
export const text = (window) => (window ? `${window.min_time} .. ${window.max_time}` : '–');

/** Seconds in at most two units: 124d8h. */
export function length(all) {
  let rest = Math.round(Math.abs(all));
  const parts = [];
  for (const [unit, size] of [['d', 86400], ['h', 3600], ['m', 60], ['s', 1]]) {
    const number = Math.floor(rest / size);
    rest -= number * size;
    if (number > 0 || parts.length > 0) parts.push(number > 0 ? `${number}${unit}` : '');
    if (parts.length === 2) break;
  }
  return parts.join('') || '0s';
}
/** An age as text. */
export const aged = (all) => (all >= OPEN ? 'the beginning' : Math.abs(all) < 1 ? 'now' : all > 0 ? `${length(all)} ago` : `in ${length(all)}`);
export const dated = (all, now) => (all >= OPEN ? 'the beginning' : new Date((now - all) * 1000).toISOString().slice(0, 10));

/** Whether the oldest window has no older end (`retention: forever`). */
export const isOpen = (set, now) => extent(set, now)[0] >= OPEN;
/** From the oldest end to now or later. */
function extent(set, now) {
  const all = set.required ? [ages(set.required, now)] : set.shards.map((shard) => ages(shard.window, now));
  return all.length ? [Math.max(...all.map((a) => a[0])), Math.min(0, ...all.map((a) => a[1]))] : [1, 0];
}
/** The ages to draw; a window without an older end extends a quarter beyond the oldest finite end. */
export function span(set, now) {
  const [oldest, newest] = extent(set, now);
  if (oldest < OPEN) return [oldest, newest];
  const ends = set.shards.flatMap((shard) => ages(shard.window, now)).filter((end) => end < OPEN);
  return [Math.max(...ends, DAY) * 1.25, newest];
}

/** Maps an age to 0 (oldest) .. 1 (newest). Logarithmic around now, so that recent days stay visible. */
function scale([oldest, newest], kind) {
  const unit = Math.max(oldest / 30, 1);
  const bend = kind === 'log' ? (all) => Math.asinh(all / unit) : (all) => all;
  const [from, to] = [bend(oldest), bend(newest)];
  return (all) => Math.min(1, Math.max(0, (from - bend(all)) / (from - to || 1)));
}

function ticks([oldest, newest], kind, x, width) {
  const nice = kind === 'log'
    ? [3600, 21600, 86400, 3 * 86400, 7 * 86400, 14 * 86400, 30 * 86400, 90 * 86400, 180 * 86400, 365 * 86400, 730 * 86400, 1825 * 86400, 3650 * 86400]
    : steps(oldest, Math.max(2, Math.floor(width / 110)));
  const wanted = [oldest, 0, ...nice.filter((tick) => tick < oldest), ...(newest < 0 ? [newest] : [])];
  const kept = [];
  // The ends and now take precedence; other ticks where there is room.
  for (const tick of wanted) {
    if (kept.every((other) => Math.abs(x(other) - x(tick)) * width > 46)) kept.push(tick);
  }
  return kept;
}
function steps(oldest, most) {
  const sizes = [3600, 21600, 43200, 86400, 2 * 86400, 7 * 86400, 14 * 86400, 30 * 86400, 60 * 86400, 90 * 86400, 180 * 86400, 365 * 86400, 1825 * 86400];
  const size = sizes.find((one) => oldest / one <= most) ?? oldest;
  return Array.from({ length: Math.floor(oldest / size) }, (_, i) => (i + 1) * size);
}

const served = (part) => (part.serving >= 3 ? 'served-more' : `served-${part.serving}`);

/** Only the coverage, as a thin line. */
export function strip(set, kind, now) {
  const x = scale(span(set, now), kind);
  const svg = draw('svg', { class: 'strip', viewBox: '0 0 1000 6', preserveAspectRatio: 'none', 'aria-hidden': 'true' });
  for (const part of set.coverage) {
    const [from, to] = [x(part.oldest_age_seconds) * 1000, x(part.newest_age_seconds) * 1000];
    svg.append(draw('rect', { class: served(part), x: from, y: 0, width: Math.max(to - from, part.serving ? 0.5 : 4), height: 6 }));
  }
  return svg;
}

/** One row: label, bars, and a title for screen readers and pointers. */
function podRow(set, pod) {
  const row = { shard: pod.shard, sign: SIGNS[pod.state], label: pod.name, short: `-${pod.ordinal}`, lost: isLost(pod), bars: [], title: podTitle(pod) };
  const note = STATE_NAMES[pod.state] ?? pod.state;
  if (pod.state === 'confirmed' || pod.state === 'joining') row.bars.push([pod.applied ?? pod.published, pod.state, '']);
  else if (row.lost) row.bars.push([pod.published ?? pod.desired, 'lost', note]);
  else row.bars.push([pod.published ?? pod.desired, 'moving', pod.phase && pod.phase !== 'serving' ? pod.phase : note]);
  if (!same(pod.desired, pod.published)) row.goal = pod.desired;
  return row;
}
const podTitle = (pod) =>
  `${pod.name}, shard ${pod.shard}: ${STATE_NAMES[pod.state] ?? pod.state}${pod.phase ? ` (${pod.phase})` : ''}, serves ${text(pod.applied)}, published ${text(pod.published)}, planned ${text(pod.desired)}${pod.why ? `; ${pod.why}` : ''}`;

function shardRow(set, shard, index, pods) {
  const confirmed = pods.filter((pod) => pod.state === 'confirmed').length;
  const lost = pods.filter(isLost).length;
  const kind = confirmed === pods.length && pods.length ? 'confirmed' : confirmed ? 'joining' : lost === pods.length ? 'lost' : 'moving';
  const title = `shard ${index}, ${text(shard.window)}: ${confirmed} of ${pods.length} pods confirmed${lost ? `, ${lost} lost` : ''}`;
  return { shard: index, sign: SIGNS[kind] ?? (lost ? '✕' : '…'), label: `${confirmed} of ${pods.length} pods`, short: `${confirmed}/${pods.length}`, lost: lost > 0, bars: [[shard.window, kind, lost ? `${lost} lost` : '']], title };
}
const plannedRow = (shard, index) => ({
  shard: index, sign: '', label: `${shard.replicas} planned`, short: `${shard.replicas}`, bars: [[shard.window, 'planned', '']],
  title: `shard ${index}, planned: ${text(shard.window)}, ${shard.replicas} pods`,
});

/** Returns the rows and how many are not drawn. Rows that need attention take precedence. */
function rows(set) {
  let all;
  if (set.state === 'unknown') all = set.shards.map(plannedRow);
  else if (set.pods.length <= MAX_POD_ROWS) all = [...set.pods].sort((a, b) => a.shard - b.shard || a.ordinal - b.ordinal).map((pod) => podRow(set, pod));
  else {
    const pods = set.shards.map(() => []);
    for (const pod of set.pods) pods[pod.shard]?.push(pod);
    all = set.shards.map((shard, i) => shardRow(set, shard, i, pods[i]));
  }
  const shown = all.length <= MAX_ROWS ? all : [...all.filter((row) => row.sign !== '✓'), ...all.filter((row) => row.sign === '✓')].slice(0, MAX_ROWS);
  return [shown.sort((a, b) => a.shard - b.shard), all.length - shown.length];
}

/** Draws a StatefulSet, `width` pixels wide. */
export function timeline(set, width, kind, now, summary, id) {
  const ends = span(set, now), open = isOpen(set, now);
  const wide = width > 560;
  const [shown, more] = rows(set);
  const digits = 7 * Math.max(0, `${shown.at(-1)?.shard ?? 0}`.length - 2);
  const LEFT = (wide ? 200 : 92) + digits, RIGHT = 12;
  const x01 = scale(ends, kind);
  const x = (all) => LEFT + x01(all) * (width - LEFT - RIGHT);
  const top = 14;
  const places = [];
  let y = top, before = null;
  for (const row of shown) {
    if (before !== null && before !== row.shard && shown.length <= MAX_POD_ROWS) y += GROUP_GAP;
    places.push(y);
    y += ROW;
    before = row.shard;
  }
  const bottom = y + 4;
  const known = set.coverage.length > 0;
  const axis = bottom + (known ? 34 : 6);
  const svg = draw('svg', { class: 'timeline', 'data-width': width, height: axis + 34, role: 'img', 'aria-labelledby': `${id}-t ${id}-d` },
    draw('title', { id: `${id}-t` }, `Time windows of ${set.namespace}/${set.name}`), draw('desc', { id: `${id}-d` }, summary));
  svg.append(draw('rect', { class: 'back', x: LEFT, y: top - 6, width: Math.max(0, width - LEFT - RIGHT), height: bottom - top + 2, rx: 4 }));
  for (const tick of ticks(ends, kind, x01, width - LEFT - RIGHT)) {
    svg.append(draw('line', { class: tick === 0 ? 'now' : 'grid', x1: x(tick), x2: x(tick), y1: top - 6, y2: axis }));
    const anchor = x(tick) > width - 40 ? 'end' : x(tick) < LEFT + 20 ? 'start' : 'middle';
    svg.append(draw('text', { class: 'quiet', x: x(tick), y: axis + 13, 'text-anchor': anchor }, tick === 0 ? 'now' : open && tick === ends[0] ? 'older' : tick < 0 ? `+${length(tick)}` : `-${length(tick)}`));
    if (wide && tick > 0 && (tick === ends[0] ? !open : tick >= 86400)) {
      const crowded = tick !== ends[0] && x(tick) - LEFT < 90;
      if (!crowded && kind === 'linear') svg.append(draw('text', { class: 'quiet', x: x(tick), y: axis + 27, 'text-anchor': anchor }, `${dated(tick, now)}${tick === ends[0] ? ' UTC' : ''}`));
    }
  }
  if (wide && kind === 'log' && !open) svg.append(draw('text', { class: 'quiet', x: x(ends[0]), y: axis + 27, 'text-anchor': 'start' }, `${dated(ends[0], now)} UTC`));
  before = null;
  shown.forEach((row, i) => {
    const at = places[i];
    const group = draw('g', {}, draw('title', {}, row.title));
    if (row.shard !== before) group.append(draw('text', { class: 'shard', x: 0, y: at + 11 }, wide ? `shard ${row.shard}` : `s${row.shard}`));
    before = row.shard;
    const label = wide && row.label.length <= 16 ? row.label : wide ? `…${row.label.slice(-15)}` : row.short;
    group.append(draw('text', { class: row.lost ? 'lost' : '', x: (wide ? 64 : 36) + digits, y: at + 11 }, `${row.sign} ${label}`));
    for (const [window, style, note] of row.bars.filter(([window]) => window)) {
      const [old, young] = ages(window, now).map(x);
      group.append(draw('rect', { class: `bar ${style}`, x: old, y: at, width: Math.max(young - old, 2), height: BAR, rx: 3 }));
      if (note) {
        const inside = young - old > 20 + note.length * 7;
        const fits = inside || width - RIGHT - young > note.length * 7;
        if (fits) group.append(draw('text', { class: row.lost ? 'alarm' : 'quiet', x: inside ? (old + young) / 2 : young + 5, y: at + 10, 'text-anchor': inside ? 'middle' : 'start' }, note));
      }
    }
    if (row.goal) {
      const [old, young] = ages(row.goal, now).map(x);
      group.append(draw('line', { class: 'goal', x1: old, x2: young, y1: at + BAR + 3, y2: at + BAR + 3 }));
    }
    svg.append(group);
  });
  if (known) coverage(svg, set, x, bottom, top, wide);
  if (more > 0) svg.append(draw('text', { class: 'quiet', x: 0, y: axis + 27 }, `${more} more rows are not drawn`));
  return svg;
}

/** Draws how many ready pods serve each part. */
function coverage(svg, set, x, y, top, wide) {
  svg.append(draw('text', { class: 'shard', x: 0, y: y + 11 }, wide ? 'ready pods' : 'ready'));
  let last = -Infinity;
  for (const part of set.coverage) {
    const [from, to] = [x(part.oldest_age_seconds), x(part.newest_age_seconds)];
    const gap = part.serving === 0;
    const title = `${aged(part.oldest_age_seconds)} .. ${aged(part.newest_age_seconds)}: ${gap ? 'GAP, no ready pod' : `${part.serving} ready, ${part.confirmed} confirmed`}`;
    if (gap) svg.append(draw('rect', { class: 'column', x: from, y: top - 6, width: Math.max(to - from, 2), height: y - top + 6 }));
    svg.append(draw('g', {}, draw('title', {}, title), draw('rect', { class: served(part), x: from, y, width: Math.max(to - from, gap ? 3 : 0.5), height: 14 })));
    const middle = (from + to) / 2;
    const label = gap ? 'GAP' : `${part.serving}`;
    if ((gap || to - from > 9) && middle - last > (gap ? 18 : 12)) {
      svg.append(draw('text', { class: gap ? 'alarm' : 'quiet', x: middle, y: y + 27, 'text-anchor': 'middle' }, label));
      last = middle + (gap ? 8 : 0);
    }
  }
}
