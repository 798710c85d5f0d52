// What is wrong with a StatefulSet or the server: a sentence, the command that shows more, and the runbook.
// Pure functions of the reports, apart from the links that they make.

import { aged, el, isLost } from './timeline.js';

/** Documentation of what the page shows. The page loads nothing from there; these are links for people. */
const DOCS = 'https://github.com/thanos-timeshard/thanos-timeshard/blob/main/docs/';

export const count = (number, what) => `${number} ${what}${number === 1 ? '' : 's'}`;
/** Joins the first names; `total` if `all` is not complete. */
export function listed(all, max, total = all.length) {
  const shown = all.slice(0, max);
  const more = total - shown.length;
  return shown.join(', ') + (more > 0 ? ` and ${more} more` : '');
}

/** The UTC time of day and the date of an instant in seconds. Every time on the page is UTC and says so. */
const iso = (at) => new Date(at * 1000).toISOString();
export const clock = (at) => `${iso(at).slice(11, 19)} UTC`;
export const moment = (at) => `${iso(at).slice(0, 10)} ${iso(at).slice(11, 16)} UTC`;
/** A block's time, to the minute. */
const minute = (at) => at.replace(/^(\d{4}-\d\d-\d\d)T(\d\d:\d\d)[:.\d]*Z$/, '$1 $2');
export const range = (block) => `${minute(block.from)} .. ${minute(block.to)} UTC`;

const wanted = (set) => Math.min(...set.shards.map((shard) => shard.replicas));
/** The level of a StatefulSet's coverage. */
export function level(set) {
  if (set.state === 'unknown' || set.not_asked > 0) return 'unknown';
  if (set.replicas === 0) return 'none';
  if (set.gap_seconds > 0) return 'gap';
  if (set.blocks.unserved_total > 0) return 'unserved';
  if (set.least < 2 && wanted(set) > 1 && set.state !== 'rolling') return 'thin';
  return 'complete';
}
export const gaps = (set) => set.coverage.filter((part) => part.serving === 0).map((part) => `${aged(part.oldest_age_seconds)} .. ${aged(part.newest_age_seconds)}`);

/** A command to paste; none if a name in it is not a Kubernetes name, so that a shell reads only names. */
export function command(parts, ...names) {
  return names.every((name) => /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/.test(name)) ? String.raw(parts, ...names) : null;
}
const page = (file, label) => el('a', { href: `${DOCS}${file}`, target: '_blank', rel: 'noopener noreferrer' }, label);
const runbook = (alert) => page(`runbooks.md#${alert.toLowerCase()}`, `runbook ${alert}`);

/** The nodes of a finding after its sentence: command and runbook. */
export const remedy = ({ run, alert }) => [...(run ? [' ', el('code', {}, run)] : []), ...(alert ? [' ', runbook(alert)] : [])];

/** Problems of a StatefulSet, worst first: kind, sentence, key of its card, command, alert with a runbook. */
export function attention(set) {
  const { namespace, name, blocks } = set;
  const key = `${namespace}/${name}`, found = [];
  const status = command`timeshard status ${namespace}/${name}`;
  const events = command`kubectl -n ${namespace} describe statefulset ${name}`;
  const add = (kind, message, run, alert) => found.push({ kind, message, key, run, alert });
  const lost = set.pods.some(isLost);
  if (level(set) === 'gap' && !lost) add('bad', `${key}: no ready pod serves ${listed(gaps(set), 3)}`, status, 'TimeshardCoverageGap');
  if (!set.not_asked && blocks.unserved_total) {
    const named = blocks.unserved.map((block) => `${block.ulid} (${range(block)})`);
    add('bad', `${key}: no confirmed pod has loaded ${listed(named, 2, blocks.unserved_total)}`, status, 'TimeshardBlocksUnserved');
  }
  if (!set.not_asked && blocks.missing_total) {
    add('warn', `${key}: ${count(blocks.missing_total, 'block')} ${blocks.missing_total === 1 ? 'is' : 'are'} missing on some pods but served by others`, status, 'TimeshardBlocksMissing');
  }
  if (level(set) === 'thin') add('warn', `${key}: a single pod serves part of the retention; if it fails, there is a gap`, status, 'TimeshardSingleReplica');
  if (level(set) === 'none') add('warn', `${key}: it has no pods, so nothing is served`, command`kubectl -n ${namespace} get statefulset ${name}`);
  if (['blocked', 'refused'].includes(set.state)) add('bad', `${key}: ${set.state}: ${set.message}`, events, 'TimeshardRolloutStuck');
  // A lost pod that it waits for is listed below.
  if (set.state === 'waiting' && !lost) add('warn', `${key}: waiting: ${set.message}`, status, 'TimeshardRolloutStuck');
  if (set.state === 'paused') add('warn', `${key}: paused: ${set.message}`, events);
  const sidecar = (pod) => command`kubectl -n ${namespace} logs ${pod} -c config-sidecar`;
  for (const [is, problem, run, alert] of [
    [(pod) => pod.state === 'not_injected', 'admitted without injection and not managed by timeshard; see timeshard check, then delete the pod to have it admitted again', () => 'timeshard check', 'TimeshardPodWithoutInjection'],
    [(pod) => pod.state === 'unreachable', 'unreachable on port 10908 (NetworkPolicy? service mesh?); the rollout waits', sidecar, 'TimeshardRolloutStuck'],
    [(pod) => pod.state === 'broken', 'not serving the published window', sidecar, 'TimeshardDrift'],
  ]) {
    const pods = set.pods.filter(is).map((pod) => pod.name);
    if (pods.length) add('bad', `${namespace}: ${listed(pods, 3)} ${pods.length === 1 ? 'is' : 'are'} ${problem}`, run(pods[0]), alert);
  }
  if (set.problem) add('warn', `${key}: ${set.problem}`, events, 'TimeshardAnnotationsRefused');
  return found;
}

/** Problems of the server itself; `expires` is the rest of the certificate's life in seconds, as text, if it is short. */
export function troubles(head, expires) {
  const found = [], own = head.namespace ?? 'timeshard-system';
  const add = (kind, message, run, alert) => found.push({ kind, message, run, alert });
  if (head.leader?.error) add('warn', `The Lease timeshard-refresher: ${head.leader.error}`, command`kubectl -n ${own} get lease timeshard-refresher -o yaml`, 'TimeshardNoLeader');
  if (head.config_error) add('bad', `The last edit of the configuration was rejected; the last valid one stays in force: ${head.config_error}`, command`kubectl -n ${own} get configmap timeshard-config -o yaml`, 'TimeshardConfigNotLoaded');
  if (head.watch_error) add('warn', `A watch on the cluster fails; the last known state stays in force: ${head.watch_error}`, 'timeshard check');
  if (head.certificate_error) add('bad', `The certificate cannot be reloaded; the last valid one stays in use: ${head.certificate_error}`, 'timeshard check', 'TimeshardCertificateReloadFailing');
  if (expires) add('bad', `The webhook’s certificate expires in ${expires}.`, 'timeshard check', 'TimeshardCertificateExpiresSoon');
  const lacking = Object.entries(head.namespaces_without_rights ?? {}).map(([namespace, why]) => `${namespace} (${why})`);
  if (lacking.length) add('warn', `The server has no rights in ${listed(lacking, 2)}, so gateways there are left unchanged.`, 'timeshard check');
  const refused = head.not_taken_in ?? [];
  if (refused.length) add('warn', listed(refused, 2));
  return found;
}

/** Who made the reports that another replica shows, as a sentence; null on the leader. */
export function relay(head) {
  const { relayed } = head;
  if (!relayed?.from || head.leader?.self) return null;
  const late = relayed.error ? ` The last answer is of ${relayed.as_of_unix_seconds ? clock(relayed.as_of_unix_seconds) : 'before'}, since then: ${relayed.error}.` : '';
  return { kind: relayed.error ? 'warn' : '', message: `This replica does not lead: it shows the reports of the leader, ${relayed.from}.${late}` };
}
/** Whether the page has reports of a leader, be it this replica or another. */
export const informed = (head) => !!head.leader?.self || !!head.relayed?.from;

/** Blocks of a shard: of the pods that serve its planned window, the most expected and the most missing; null if none reports them. */
export function shardBlocks(set, index) {
  const { window } = set.shards[index];
  const is = (pod) => pod.shard === index && pod.blocks !== undefined && pod.applied?.min_time === window.min_time && pod.applied?.max_time === window.max_time;
  const pods = set.pods.filter(is);
  if (!pods.length) return null;
  const most = (value) => pods.reduce((all, pod) => Math.max(all, value(pod)), 0);
  return { expected: most((pod) => pod.blocks), missing: most((pod) => pod.missing ?? 0), pods: pods.length };
}

/** The numbers of a rollout: they are shown in several places, and must agree. */
export function steps(set) {
  const done = set.rollout?.steps_done ?? 0;
  const moving = set.pods.filter((pod) => !['confirmed', 'not_injected', 'absent'].includes(pod.state));
  const left = Math.max(set.steps_left, set.steps.length);
  const expected = set.rollout?.steps_expected ?? 0;
  // A published step counts as done once all of its pods are confirmed.
  const over = moving.length && done ? done - 1 : done;
  return { published: done, over, all: done + left, left, expected, moving };
}
