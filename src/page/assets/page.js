// The page: a stream of events becomes a verdict, what needs attention, and a card for each StatefulSet.
// Nothing here asks for a change of anything; every text from the cluster becomes a text node.

import { WORDS, aged, ages, dated, el, isLost, isOpen, length, same, span, strip, text, timeline } from './timeline.js';

/** Cards and table rows that are made; more is found by the search field. */
const MOST_CARDS = 100, MOST_ROWS = 100, MOST_BLOCKS = 8;
/** Milliseconds: without any event for so long the stream is taken for broken. The server says something every 10 s. */
const SILENCE = 25000;
/** Milliseconds before the next try, doubling. */
const RETRY_FIRST = 1000, RETRY_MOST = 30000;

const $ = (id) => document.getElementById(id);
const state = { head: null, sets: new Map(), shown: false, kind: 'log', filter: [], ahead: 0, heard: 0, down: null };
const cards = new Map();

// ---- time ------------------------------------------------------------------------------------------------------------

/** The server's clock, in seconds. */
const now = () => Date.now() / 1000 + state.ahead;
function lasted(seconds) {
  const all = Math.max(0, Math.floor(seconds));
  if (all < 60) return `${all} s`;
  if (all < 3600) return `${Math.floor(all / 60)} min`;
  if (all < 172800) return `${Math.floor(all / 3600)} h ${Math.floor((all % 3600) / 60)} min`;
  return `${Math.floor(all / 86400)} d`;
}
/** A span of time that grows while one looks. */
const growing = (since) => el('span', { 'data-since': since }, lasted(now() - since));
const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour12: false });
const count = (number, what) => `${number} ${what}${number === 1 ? '' : 's'}`;

// ---- the stream ------------------------------------------------------------------------------------------------------

const handlers = {
  set(set) { state.sets.set(`${set.namespace}/${set.name}`, complete(set)); changed.add(`${set.namespace}/${set.name}`); },
  gone({ namespace, name }) { state.sets.delete(`${namespace}/${name}`); changed.add(`${namespace}/${name}`); },
  head(head) { state.head = head; },
  shown(time) { tell(time); state.shown = true; render(); },
  beat: tell,
  bye() { throw new Error('this replica of the server ends'); },
};
const changed = new Set();
function tell(time) { state.ahead = time.now - Date.now() / 1000; }

/** Of a StatefulSet whose pods say nothing of their blocks. */
const NO_BLOCKS = { known_pods: 0, unknown_pods: 0, unserved_total: 0, unserved: [], missing_total: 0, missing: [], outside_windows: null, bucket_total: null };

/** What the server leaves out because it goes without saying. */
function complete(set) {
  for (const pod of set.pods) {
    pod.name = `${set.name}-${pod.ordinal}`;
    pod.desired ??= set.shards[pod.shard]?.window ?? null;
    if (pod.published === undefined) pod.published = pod.desired;
    if (pod.applied === undefined) pod.applied = pod.published;
    pod.state ??= 'confirmed';
    pod.phase ??= '';
    pod.restarts ??= 0;
  }
  set.blocks ??= NO_BLOCKS;
  return set;
}

/** One stream, until it ends or breaks. */
async function listen() {
  const stop = new AbortController();
  const watchdog = setInterval(() => { if (Date.now() - state.heard > SILENCE) stop.abort(new Error(`nothing was heard for ${SILENCE / 1000} s`)); }, 1000);
  state.heard = Date.now();
  try {
    const answer = await fetch('events', { signal: stop.signal, cache: 'no-store' });
    if (!answer.ok) throw new Error((await answer.text()).trim().slice(0, 300) || `status ${answer.status}`);
    const known = new Set(state.sets.keys());
    let first = true, rest = '';
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Error('the server closed the stream');
      state.heard = Date.now();
      const events = (rest + value).split('\n\n');
      rest = events.pop();
      for (const event of events) {
        const [, name, data] = /^event: ([^\n]*)\ndata: ([^\n]*)$/.exec(event) ?? [];
        const body = name && handlers[name] ? JSON.parse(data) : null;
        if (first && name === 'set') known.delete(`${body.namespace}/${body.name}`);
        if (first && name === 'shown') {
          // What went away while the stream was broken.
          for (const key of known) { state.sets.delete(key); changed.add(key); }
          first = false;
          retry = RETRY_FIRST;
          connected();
        }
        if (body) handlers[name](body);
      }
    }
  } finally {
    clearInterval(watchdog);
    stop.abort();
  }
}
let retry = RETRY_FIRST;
async function follow() {
  for (;;) {
    try { await listen(); } catch (error) { broken(error); }
    const wait = retry * (0.75 + Math.random() / 2);
    retry = Math.min(retry * 2, RETRY_MOST);
    state.next = Date.now() + wait;
    tick();
    await new Promise((done) => setTimeout(done, wait));
  }
}
function connected() {
  state.down = null;
  document.body.classList.remove('stale');
  live();
}
function broken(error) {
  state.down ??= { since: Date.now() / 1000, heard: state.heard };
  state.down.why = error instanceof Error ? error.message : String(error);
  if (state.shown) document.body.classList.add('stale');
  live();
  verdict();
}
function live() {
  $('live').dataset.state = state.down ? 'off' : state.shown ? 'on' : 'off';
  const wait = Math.max(0, Math.ceil((state.next - Date.now()) / 1000));
  put($('live-text'), !state.down ? 'live'
    : `${state.shown ? `stale since ${clock(state.down.heard / 1000)}` : 'no connection'}${wait > 0 ? `, next try in ${wait} s` : ', trying again'}`);
}
/** Only what differs is written, so that nothing is announced twice. */
function put(node, words) { if (node.textContent !== words) node.textContent = words; }

// ---- what it means ---------------------------------------------------------------------------------------------------

const STATES = {
  settled: ['settled', 'ok'], rolling: ['rolling', 'busy'], waiting: ['waiting', 'warn'], paused: ['paused', 'warn'],
  blocked: ['blocked', 'bad'], refused: ['refused', 'bad'], unknown: ['not looked yet', 'warn'],
};
const RANK = { gap: 0, unserved: 1, unknown: 3, thin: 2, none: 3, whole: 4 };
const retention = (set) => (isOpen(set, now()) ? 'forever' : length(span(set, now())[0]));
const wanted = (set) => Math.min(...set.shards.map((shard) => shard.replicas));

/** How well a StatefulSet is covered. */
function level(set) {
  if (set.state === 'unknown' || set.not_asked > 0) return 'unknown';
  if (set.replicas === 0) return 'none';
  if (set.gap_seconds > 0) return 'gap';
  if (set.blocks.unserved_total > 0) return 'unserved';
  if (set.least < 2 && wanted(set) > 1 && set.state !== 'rolling') return 'thin';
  return 'whole';
}
const drifts = (pod) => !!pod.applied && !same(pod.applied, pod.published);
const gaps = (set) => set.coverage.filter((part) => part.serving === 0).map((part) => `${aged(part.oldest_age_seconds)} .. ${aged(part.newest_age_seconds)}`);
/** A time of a block, to the minute. */
const minute = (at) => at.replace(/^(\d{4}-\d\d-\d\d)T(\d\d:\d\d)[:.\d]*Z$/, '$1 $2');
const range = (block) => `${minute(block.from)} .. ${minute(block.to)}`;
const since = (set) => (set.gap_since ? Date.parse(set.gap_since) / 1000 : null);

/** What somebody should look at, worst first: kind, sentence, key of the card. */
function attention(set) {
  const key = `${set.namespace}/${set.name}`, found = [];
  const say = (kind, words) => found.push({ kind, words, key });
  const lost = set.pods.some(isLost);
  if (level(set) === 'gap' && !lost) say('bad', `${key}: no ready pod serves ${listed(gaps(set), 3)}`);
  const { blocks } = set;
  if (!set.not_asked && blocks.unserved_total) say('bad', `${key}: no confirmed pod has loaded ${listed(blocks.unserved.map((block) => `${block.ulid} (${range(block)})`), 2, blocks.unserved_total)}`);
  if (!set.not_asked && blocks.missing_total) say('warn', `${key}: ${count(blocks.missing_total, 'block')} ${blocks.missing_total === 1 ? 'is' : 'are'} missing on some pod and served by another`);
  if (level(set) === 'thin') say('warn', `${key}: a part of the time hangs on one pod; the next failure is a gap`);
  if (level(set) === 'none') say('warn', `${key}: no pods, so nothing is served`);
  if (['blocked', 'refused'].includes(set.state)) say('bad', `${key}: ${set.state}: ${set.message}`);
  // What it waits for is said below, if it is a pod that is lost.
  if (set.state === 'paused' || (set.state === 'waiting' && !lost)) say('warn', `${key}: ${set.state}: ${set.message}`);
  for (const [is, words] of [
    [(pod) => pod.state === 'not_injected', 'admitted without injection, so nothing keeps the window right; see timeshard check, then delete to have it admitted anew'],
    [(pod) => pod.state === 'unreachable', 'not to be asked on port 10908 (NetworkPolicy, service mesh?), so no window changes'],
    [(pod) => pod.state === 'broken', 'not serving what is published'],
  ]) {
    const pods = set.pods.filter(is).map((pod) => pod.name);
    if (pods.length) say('bad', `${set.namespace}: ${listed(pods, 3)} ${pods.length === 1 ? 'is' : 'are'} ${words}`);
  }
  if (set.problem) say('warn', `${key}: ${set.problem}`);
  return found;
}
/** The first of them; `total` where not all are known by name. */
function listed(all, most, total = all.length) {
  const shown = all.slice(0, most);
  const more = total - shown.length;
  return shown.join(', ') + (more > 0 ? ` and ${more} more` : '');
}

/** Level, heading, what is under it. */
function judged() {
  const { head } = state;
  const sets = [...state.sets.values()];
  if (!state.shown || !head) return ['unknown', 'Not looked yet', [state.down ? `The server does not answer: ${state.down.why}` : 'Waiting for the first look.']];
  if (head.webhook_only) return ['unknown', 'This server knows no StatefulSets', ['It runs with --webhook-only: every pod gets the configuration’s defaults.']];
  if (!head.leader) return ['unknown', 'What runs is not known here', ['This server runs without a refresher (--no-refresher): it admits pods and moves no window. What is planned is shown below.']];
  if (!head.leader.self) {
    const { holder } = head.leader;
    if (!holder) return ['unknown', 'No replica leads now', ['A new leader takes over within 15 s of the old one’s end. Until then pods keep their windows; what is planned is shown below.']];
    return ['unknown', 'This replica does not lead, so it does not know what runs', [`${holder} leads, asks the pods and moves windows. Its page is behind `, el('code', {}, `kubectl -n ${head.namespace ?? 'timeshard-system'} port-forward pod/${holder} 8080`), 'What is planned is shown below; admission works on every replica alike.']];
  }
  if (!head.synced) return ['unknown', 'Not looked yet', ['The labelled namespaces are not all listed yet.']];
  if (sets.length === 0) {
    return ['unknown', 'No StatefulSets yet', head.namespaces.length ? [`No StatefulSet in ${listed(head.namespaces, 5)} runs thanos store.`]
      : ['No namespace is labelled:', el('code', {}, 'kubectl label namespace NAME thanos-timeshard.io/injection=enabled')]];
  }
  const of = (wantedLevel) => sets.filter((set) => level(set) === wantedLevel);
  const [gap, unserved, unknown, thin, none] = ['gap', 'unserved', 'unknown', 'thin', 'none'].map(of);
  const pods = sets.reduce((all, set) => all + set.pods.length, 0);
  const scope = `${count(sets.length, 'StatefulSet')}, ${count(pods, 'pod')}`;
  if (gap.length) {
    const [set] = gap, ranges = gaps(set);
    const others = ranges.length + gap.length - 2;
    const when = since(set);
    const parts = [`${ranges.length > 1 ? `${ranges.length} gaps in it. ` : ''}Queries that reach there come back incomplete. `];
    if (when) parts.push('It has been so for ', growing(when), '. ');
    if (gap.length > 1) parts.push(`${count(gap.length, 'StatefulSet')} of ${sets.length} have gaps.`);
    return ['gap', `GAP: ${ranges[0]} of ${set.namespace}/${set.name} is held by no confirmed pod${others > 0 && gap.length > 1 ? `, and ${count(gap.length - 1, 'StatefulSet')} more` : ''}`, parts];
  }
  if (unserved.length) {
    const [{ namespace, name, blocks }] = unserved;
    const [newest] = blocks.unserved;
    const total = unserved.reduce((all, set) => all + set.blocks.unserved_total, 0);
    const parts = ['Queries over that time lack its samples and say success. '];
    if (newest?.since_unix_seconds > 0) parts.push('It has been so for ', growing(newest.since_unix_seconds), '. ');
    if (newest?.missing_on.length) parts.push(`Not loaded on ${listed(newest.missing_on, 3)}. `);
    parts.push(el('code', {}, `timeshard status ${namespace}/${name}`));
    const which = newest ? `${range(newest)} of ${namespace}/${name}` : `${namespace}/${name}`;
    return ['unserved', `${count(total, 'block')} served by no pod: ${which}${total > 1 && newest ? ` and ${total - 1} more` : ''}`, parts];
  }
  if (unknown.length) {
    const asked = unknown.reduce((all, set) => all + set.not_asked, 0);
    return ['unknown', unknown.length === sets.length ? 'Not looked yet' : `Not looked yet at ${unknown.length} of ${count(sets.length, 'StatefulSet')}`,
      [asked ? `${count(asked, 'sidecar')} not asked yet, so what is served is not known.` : 'The leader has just begun to look.']];
  }
  const covered = sets.filter((set) => level(set) !== 'none');
  if (!covered.length) return ['thin', 'Nothing is served: every StatefulSet is scaled to zero', [scope]];
  const least = Math.min(...covered.map((set) => set.least));
  const spans = [...new Set(covered.map(retention))];
  const rolling = sets.filter((set) => set.state === 'rolling').length;
  const known = Math.min(...covered.flatMap((set) => set.coverage.map((part) => part.confirmed)));
  const more = [`${scope}. ${known < least ? `Every querier knows at least ${count(known, 'pod')} of each instant. ` : ''}${rolling ? `${count(rolling, 'rollout')} under way. ` : ''}${none.length ? `${listed(none.map((set) => set.name), 3)} scaled to zero. ` : ''}${loaded(covered)}`.trim()];
  if (thin.length) return ['thin', `Coverage is whole but thin: a part of ${thin[0].namespace}/${thin[0].name}${thin.length > 1 ? ` and ${thin.length - 1} more` : ''} hangs on one pod`, more];
  return ['whole', `Coverage is whole: every instant of ${spans.length > 1 ? 'each retention' : spans[0] === 'forever' ? 'all time' : spans[0]} is held by at least ${count(least, known < least ? 'ready pod' : 'confirmed pod')}`, more];
}

/** What is known of blocks where none is unserved. */
function loaded(sets) {
  const sum = (value) => sets.reduce((all, { blocks }) => all + (value(blocks) ?? 0), 0);
  const [known, unknown] = [sum((blocks) => blocks.known_pods), sum((blocks) => blocks.unknown_pods)];
  if (!known) return '';
  if (unknown) return `Which blocks are loaded is not known of ${count(unknown, 'pod')}.`;
  return 'Every block within the retention is served.';
}

// ---- the picture of it -----------------------------------------------------------------------------------------------

const SIGNS = { whole: '✓', thin: '!', gap: '✕', unserved: '✕', unknown: '…' };
const TITLES = { gap: '✕ GAP', unserved: '✕ BLOCKS' };
function verdict() {
  const [found, words, more] = judged();
  // What may no longer be so is not shown as good.
  const is = state.down && state.shown && !TITLES[found] ? 'unknown' : found;
  $('verdict').dataset.level = is;
  put($('verdict-sign'), SIGNS[is]);
  // Said once for each change; what only counts seconds is not said.
  put($('say'), state.down && state.shown ? 'The stream broke, what is shown is stale.' : words);
  put($('verdict-text'), state.down && state.shown ? `${words} (as of ${clock(state.down.heard / 1000)})` : words);
  const parts = state.down && state.shown ? [`Stale: the stream broke at ${clock(state.down.since)} (${state.down.why}). `, ...more] : more;
  const plain = parts.map((part) => (part instanceof Node ? part.textContent : part)).join('');
  if ($('verdict-more').textContent !== plain || is === 'unknown') $('verdict-more').replaceChildren(...parts);
  document.title = `${TITLES[is] ?? SIGNS[is]} thanos-timeshard`;
}

function notes() {
  const { head } = state, found = [];
  const say = (kind, words) => found.push(el('li', { 'data-kind': kind }, words));
  if (head.leader?.error) say('warn', `The Lease timeshard-refresher: ${head.leader.error}`);
  if (head.config_error) say('bad', `The configuration’s last edit is refused, the last good one is in force: ${head.config_error}`);
  if (head.watch_error) say('warn', `A watch on the cluster is broken, what was last known is in force: ${head.watch_error}`);
  if (head.certificate_error) say('bad', `The certificate cannot be reloaded, the last good one is in use: ${head.certificate_error}`);
  const expires = head.certificate_not_after_unix_seconds;
  if (expires && expires - now() < 7 * 86400) say('bad', `The webhook’s certificate ends in ${lasted(expires - now())}.`);
  $('notes').hidden = found.length === 0;
  $('notes-list').replaceChildren(...found);
  const urgent = [...state.sets.values()].flatMap(attention).sort((a, b) => (a.kind === b.kind ? 0 : a.kind === 'bad' ? -1 : 1));
  const items = urgent.slice(0, 8).map(({ kind, words, key }) => {
    const link = el('a', { href: `#${anchor(key)}` }, 'show');
    link.addEventListener('click', () => reveal(key));
    return el('li', { 'data-kind': kind }, `${words} `, link);
  });
  if (urgent.length > 8) items.push(el('li', {}, `and ${urgent.length - 8} more`));
  $('attention').hidden = items.length === 0;
  if (!$('attention').contains(document.activeElement)) $('attention-list').replaceChildren(...items);
}
const anchor = (key) => `set-${key.replace(/[^a-z0-9-]/gi, '_')}`;
function reveal(key) {
  if (!cards.has(key)) { $('filter').value = key; filtered(); }
  const card = cards.get(key);
  if (card) { card.root.open = true; card.summary.focus(); }
}

function fits(set, key) {
  const words = `${key} ${set.state} ${level(set)}`.toLowerCase();
  const rest = state.filter.filter((token) => !words.includes(token));
  const pods = rest.length ? set.pods.filter((pod) => rest.every((token) => matches(pod, token))) : null;
  return [!rest.length || pods.length > 0, pods];
}
const matches = (pod, token) => `${pod.name} ${WORDS[pod.state] ?? pod.state} ${pod.phase} ${pod.why ?? ''}`.toLowerCase().includes(token);

function render() {
  live();
  put($('version'), state.head.version);
  verdict();
  notes();
  $('tools').hidden = state.sets.size === 0;
  const found = [];
  for (const [key, set] of state.sets) {
    const [is, pods] = fits(set, key);
    if (is) found.push({ key, set, pods, rank: RANK[level(set)] - (attention(set).length ? 0.5 : 0) });
  }
  found.sort((a, b) => a.rank - b.rank || a.key.localeCompare(b.key));
  const shown = found.slice(0, MOST_CARDS);
  const keys = new Set(shown.map(({ key }) => key));
  for (const [key, card] of cards) if (!keys.has(key)) { card.root.remove(); cards.delete(key); }
  shown.forEach(({ key, set, pods }, i) => {
    let card = cards.get(key);
    if (!card) {
      card = make(key, shown.length <= 3 || (i < 3 && RANK[level(set)] < 3));
      cards.set(key, card);
      changed.add(key);
    }
    const narrowed = pods ? pods.map((pod) => pod.name).join() : '';
    if (changed.has(key) || card.narrowed !== narrowed) {
      Object.assign(card, { set, pods, narrowed });
      fill(card);
    }
    // A card that has the focus stays where it is.
    const there = $('cards').children[i];
    if (there !== card.root && !card.root.contains(document.activeElement)) $('cards').insertBefore(card.root, there ?? null);
  });
  changed.clear();
  put($('found'), state.filter.length ? `${found.length} of ${count(state.sets.size, 'StatefulSet')}` : '');
  put($('more'), found.length > shown.length ? `${found.length - shown.length} more StatefulSets are not drawn; Find narrows them down.` : '');
}

function make(key, open) {
  const summary = el('summary', {}), body = el('div', { class: 'body' });
  const root = el('details', { class: 'card', id: anchor(key) }, summary, body);
  const card = { key, root, summary, body, all: false, inner: new Map() };
  root.open = open;
  root.addEventListener('toggle', () => { if (root.open) inside(card); else body.replaceChildren(); });
  return card;
}

function fill(card) {
  const { set, summary } = card;
  const is = level(set);
  card.root.dataset.level = is;
  const [word, kind] = !state.head.leader?.self ? ['plan only', ''] : set.not_asked > 0 ? STATES.unknown : STATES[set.state] ?? [set.state, 'warn'];
  const badges = [el('span', { class: 'badge', 'data-kind': kind }, word)];
  const cover = { whole: [`held by ${set.least}+`, 'ok'], thin: ['thin', 'warn'], gap: ['GAP', 'bad'], unserved: [count(set.blocks.unserved_total, 'unserved block'), 'bad'], none: ['no pods', 'warn'] }[is];
  if (cover) badges.unshift(el('span', { class: 'badge', 'data-kind': cover[1] }, cover[0]));
  summary.replaceChildren(
    el('h2', {}, el('span', { class: 'quiet' }, `${set.namespace} / `), set.name), el('span', { class: 'badges' }, ...badges),
    el('p', { class: 'message' }, set.state === 'unknown' ? `${count(set.replicas, 'replica')} in ${count(set.shards.length, 'shard')}, as planned` : sentence(set.message)), strip(set, state.kind, now()));
  if (card.root.open) inside(card);
}
/** A capital first, unless it begins with a name. */
const sentence = (words) => (/^[a-z]+[ ,:]/.test(words) ? words[0].toUpperCase() + words.slice(1) : words);

/** The inside of a card that is open; what has the focus has it afterwards too. */
function inside(card) {
  const { set, body } = card;
  if (!set) return;
  const focus = body.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const parts = [facts(set)];
  for (const warning of set.warnings) parts.push(el('p', { class: 'note' }, sentence(warning)));
  const picture = el('div', { class: 'picture' });
  parts.push(picture, blocks(set), progress(set), pods(card), table(card));
  body.replaceChildren(...parts.filter(Boolean));
  paint(card, picture);
  if (focus) body.querySelector(`[data-key="${focus}"]`)?.focus();
}
function paint(card, picture = card.body.querySelector('.picture')) {
  if (!picture) return;
  const { set } = card, width = Math.floor(picture.clientWidth);
  if (width > 0) picture.replaceChildren(timeline(set, width, state.kind, now(), described(set), card.root.id));
}
function described(set) {
  const parts = set.shards.slice(0, 50).map((shard, i) => `shard ${i}: ${text(shard.window)}, ${count(shard.replicas, 'pod')}`);
  const is = level(set);
  const cover = { unserved: `${count(set.blocks.unserved_total, 'block')} served by no pod. `, gap: `Gaps: ${listed(gaps(set), 5)}. `, unknown: 'What is served is not known. ', none: 'Nothing is served. ' }[is] ?? `Every instant is served by at least ${count(set.least, 'pod')}. `;
  return `${cover}${parts.join('; ')}. The tables below say the same.`;
}

function facts(set) {
  if (set.state === 'unknown') return el('dl', { class: 'facts' }, fact('Replicas', set.replicas), fact('Shards', set.shards.length), fact('ConfigMap', set.configmap));
  const of = (is) => set.pods.filter(is).length;
  const some = (name, number, kind) => (number ? [fact(name, number, kind)] : []);
  return el('dl', { class: 'facts' },
    fact('Confirmed', `${of((pod) => pod.state === 'confirmed')} of ${set.replicas}`), fact('Shards', set.shards.length), fact('Retention', retention(set)),
    fact('Fewest ready pods', set.not_asked ? 'not known yet' : set.least, set.least === 0 && !set.not_asked ? 'bad' : ''),
    ...(set.gap_seconds && !set.not_asked ? [fact('Missing', length(set.gap_seconds), 'bad')] : []),
    fact('Drift', of(drifts), of(drifts) && set.state !== 'rolling' ? 'warn' : ''), fact('Not injected', of((pod) => pod.state === 'not_injected'), of((pod) => pod.state === 'not_injected') ? 'bad' : ''),
    ...blockFacts(set), ...some('Unreachable', of((pod) => pod.state === 'unreachable'), 'bad'), ...some('Unverified', of((pod) => pod.unverified), 'warn'),
    ...some('Other agent version', of((pod) => pod.agent), ''), fact('ConfigMap', set.configmap));
}
function blockFacts({ blocks, not_asked: notAsked }) {
  if (notAsked) return [];
  const found = [];
  if (blocks.known_pods) found.push(fact('Blocks served by no pod', blocks.unserved_total, blocks.unserved_total ? 'bad' : ''));
  if (blocks.missing_total) found.push(fact('Blocks missing on a pod', blocks.missing_total, 'warn'));
  if (blocks.outside_windows !== null) {
    found.push(fact('Blocks outside the windows', blocks.bucket_total === null ? blocks.outside_windows : `${blocks.outside_windows} of ${blocks.bucket_total}`));
  }
  if (blocks.unknown_pods) found.push(fact('Pods with unknown blocks', blocks.unknown_pods));
  return found;
}
const fact = (name, value, kind = '') => el('div', {}, el('dt', {}, name), el('dd', { 'data-kind': kind }, `${value}`));

/** Blocks that are not loaded: range, since when, and where. */
function blocks(set) {
  if (set.not_asked) return null;
  const columns = [];
  for (const [title, list, total] of [
    ['Blocks that no confirmed pod has loaded', set.blocks.unserved, set.blocks.unserved_total],
    ['Blocks that some pod has not loaded, served by another', set.blocks.missing, set.blocks.missing_total],
  ]) {
    if (!total) continue;
    const items = list.slice(0, MOST_BLOCKS).map((block) => el('li', {}, el('code', {}, block.ulid), ` ${range(block)}`,
      ...(block.since_unix_seconds > 0 ? [', for ', growing(block.since_unix_seconds)] : []),
      block.missing_on.length ? el('span', { class: 'quiet' }, `, not on ${listed(block.missing_on, 4)}`) : null));
    if (total > items.length) items.push(el('li', { class: 'quiet' }, `and ${total - items.length} more: timeshard status -o json`));
    columns.push(el('div', {}, el('h3', {}, title), el('ul', { class: 'blocks' }, ...items)));
  }
  return columns.length ? el('div', { class: 'columns' }, ...columns) : null;
}

/** The rollout step by step, beside what happened last. */
function progress(set) {
  const columns = [];
  if (set.rollout || set.steps.length) {
    const done = set.rollout?.steps_done ?? 0;
    const moving = set.pods.filter((pod) => !['confirmed', 'not_injected', 'absent'].includes(pod.state));
    const steps = [];
    if (done > (moving.length ? 1 : 0)) {
      const over = moving.length ? done - 1 : done;
      steps.push(step('done', '✓', `${count(over, 'step')} done`));
    }
    if (moving.length) {
      const words = moving.slice(0, 6).map((pod) => `${pod.name} ${pod.phase && pod.phase !== 'serving' ? pod.phase : WORDS[pod.state] ?? pod.state}`);
      steps.push(step('now', `${Math.max(done, 1)}`, listed([...words, ...moving.slice(6)], 6)));
    }
    set.steps.slice(0, 6).forEach((one, i) => {
      const names = one.moves.slice(0, 6).map((move) => move.pod);
      const more = one.moves.length - names.length + one.more;
      const to = [...new Set(one.moves.map((move) => text(move.to)))];
      steps.push(step('next', `${done + 1 + i}`, `${names.join(', ')}${more > 0 ? ` and ${more} more` : ''}`, to.length <= 2 ? `to ${to.join(', ')}` : `to ${to.length} windows`));
    });
    const unseen = Math.max(set.steps_left, set.steps.length) - Math.min(set.steps.length, 6);
    if (unseen > 0) steps.push(step('next', '…', `${count(unseen, 'step')} more${set.steps.length ? '' : ' at most'}`));
    const all = done + Math.max(set.steps_left, set.steps.length);
    const over = moving.length && done ? done - 1 : done;
    const title = `Rollout: ${over} of ${count(all, 'step')} done`;
    const left = set.steps_left ? `, at least ${lasted(set.eta_seconds)} to go` : '';
    columns.push(el('div', {}, el('h3', {}, title + left), el('progress', { max: Math.max(all, 1), value: over, 'aria-label': title }), el('ol', { class: 'steps' }, ...steps)));
  }
  if (set.changes.length) {
    const most = set.rollout ? 10 : 6;
    const items = set.changes.slice(0, most).map((change) => el('li', { 'data-kind': change.kind }, el('time', { datetime: change.at, title: change.at }, when(change.at)), el('span', {}, sentence(change.text))));
    columns.push(el('div', {}, el('h3', {}, 'Last changes, as this leader saw them'), el('ul', { class: 'changes' }, ...items)));
  }
  return columns.length ? el('div', { class: 'columns' }, ...columns) : null;
}
function step(is, sign, words, more) {
  const read = { done: 'done: ', now: 'now: ', next: 'then: ' }[is];
  return el('li', { 'data-is': is }, el('span', { class: 'n', 'aria-hidden': 'true' }, sign), el('span', {}, el('span', { class: 'hidden' }, read), words, more ? el('span', { class: 'quiet' }, ` ${more}`) : null));
}
function when(at) {
  const time = Date.parse(at) / 1000;
  return now() - time > 86400 ? at.slice(0, 10) : clock(time);
}

/** The pods as a table; of many, those that are not as they should be. */
function pods(card) {
  const { set } = card;
  if (!set.pods.length) return null;
  const many = set.pods.length > MOST_ROWS / 2;
  const worth = card.pods ?? (many && !card.all ? set.pods.filter((pod) => pod.state !== 'confirmed' || !same(pod.desired, pod.published)) : set.pods);
  const shown = worth.slice(0, card.all ? Math.max(MOST_ROWS, card.rows ?? 0) : MOST_ROWS);
  const planned = shown.some((pod) => !same(pod.desired, pod.published));
  const why = shown.some((pod) => pod.why);
  const columns = ['Pod', 'Shard', 'State', 'Published', 'Served', ...(planned ? ['Planned'] : []), 'For', 'Restarts', ...(why ? ['Why'] : [])];
  const lines = shown.map((pod) => row(columns, isLost(pod) ? 'bad' : pod.state === 'confirmed' ? '' : 'busy', {
    Pod: pod.name, Shard: `${pod.shard}${pod.surplus ? ' (extra)' : ''}`, State: `${WORDS[pod.state] ?? pod.state}${pod.phase && pod.phase !== 'serving' ? ` (${pod.phase})` : ''}`,
    Published: text(pod.published), Served: same(pod.applied, pod.published) ? 'the same' : `${text(pod.applied)}${pod.unverified ? ' (unverified)' : ''}`,
    Planned: same(pod.desired, pod.published) ? 'the same' : text(pod.desired), For: pod.since ? growing(pod.since) : '–', Restarts: `${pod.restarts}`, Why: pod.why ?? '',
  }));
  const rest = set.pods.length - shown.length;
  const caption = rest === 0 ? count(set.pods.length, 'pod') : card.pods ? `${shown.length} of ${count(set.pods.length, 'pod')}` : card.all ? `the first ${shown.length} of ${count(set.pods.length, 'pod')}`
    : shown.length ? `${count(shown.length, 'pod')} of ${set.pods.length} that ${shown.length === 1 ? 'is' : 'are'} not as planned` : `all ${set.pods.length} pods are confirmed`;
  const parts = [el('h3', {}, sentence(caption))];
  if (shown.length) parts.push(tabular(columns, lines, `Pods of ${set.name}`, 'hidden'));
  if (rest > 0 && !card.pods) {
    const more = el('button', { type: 'button', 'data-key': 'more' }, card.all ? `Show ${Math.min(rest, MOST_ROWS)} more` : `Show pods one by one`);
    more.addEventListener('click', () => { card.rows = card.all ? shown.length + MOST_ROWS : MOST_ROWS; card.all = true; inside(card); });
    parts.push(more);
  }
  return el('div', {}, ...parts);
}

/** The picture's last row as a table. */
function table(card) {
  const { set } = card;
  const columns = ['From', 'To', 'Dates', 'Ready pods', 'Confirmed'];
  const parts = set.coverage.length ? set.coverage : null;
  const lines = parts ? parts.slice(0, MOST_ROWS * 2).map((part) => row(columns, part.serving ? '' : 'bad', {
    From: aged(part.oldest_age_seconds), To: aged(part.newest_age_seconds), Dates: `${dated(part.oldest_age_seconds, now())} .. ${dated(part.newest_age_seconds, now())}`,
    'Ready pods': part.serving ? `${part.serving}` : 'GAP: none', Confirmed: `${part.confirmed}`,
  })) : set.shards.slice(0, MOST_ROWS * 2).map((shard, i) => {
    const [old, young] = ages(shard.window, now());
    return row(columns, '', { From: aged(old), To: aged(young), Dates: `${dated(old, now())} .. ${dated(young, now())}`, 'Ready pods': 'not known', Confirmed: `planned: ${shard.replicas} (shard ${i})` });
  });
  const inner = el('details', { class: 'tables' }, el('summary', { 'data-key': 'table' }, parts ? 'Coverage as a table' : 'Plan as a table'), tabular(columns, lines, parts ? 'Who holds which part, oldest first' : 'Shards as planned, newest first'));
  inner.open = card.inner.get('table') ?? false;
  inner.addEventListener('toggle', () => card.inner.set('table', inner.open));
  return inner;
}
/** Roles are written out: on a phone rows become blocks, and a table must stay one. */
function tabular(columns, lines, caption, kind = 'quiet') {
  const head = el('tr', { role: 'row' }, ...columns.map((column) => el('th', { scope: 'col', role: 'columnheader' }, column)));
  return el('table', { role: 'table' }, el('caption', { class: kind }, caption), el('thead', { role: 'rowgroup' }, head), el('tbody', { role: 'rowgroup' }, ...lines));
}
const WINDOWS = ['Published', 'Served', 'Planned', 'Dates'];
function row(columns, kind, cells) {
  return el('tr', { role: 'row', 'data-kind': kind }, ...columns.map((column, i) =>
    i === 0 ? el('th', { scope: 'row', role: 'rowheader' }, cells[column])
      : el('td', { role: 'cell', 'data-label': column, class: column === 'State' ? 'state' : WINDOWS.includes(column) ? 'window' : null }, ...(cells[column] === '' ? [] : [cells[column]]))));
}

// ---- what a person does ----------------------------------------------------------------------------------------------

function filtered() {
  state.filter = $('filter').value.toLowerCase().split(/\s+/).filter(Boolean);
  if (state.shown) render();
}
function tick() {
  live();
  for (const node of document.querySelectorAll('[data-since]')) put(node, lasted(now() - Number(node.dataset.since)));
}
let typing;
$('filter').addEventListener('input', () => { clearTimeout(typing); typing = setTimeout(filtered, 120); });
$('tools').addEventListener('submit', (event) => event.preventDefault());
$('tools').addEventListener('change', (event) => {
  if (event.target.name !== 'scale') return;
  state.kind = event.target.value;
  for (const card of cards.values()) { card.summary.querySelector('.strip')?.replaceWith(strip(card.set, state.kind, now())); if (card.root.open) paint(card); }
});
let resized;
// Also when a scroll bar comes or goes, which is no resize of the window.
new ResizeObserver(() => { clearTimeout(resized); resized = setTimeout(() => { for (const card of cards.values()) if (card.root.open) paint(card); }, 100); }).observe($('cards'));
setInterval(tick, 1000);
follow();
