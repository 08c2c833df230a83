// What the scenarios have in common: scaling their shape, their thresholds, and the summary they leave behind.
import { ACK, BASE_URL } from './server.js';
import { RUN } from './events.js';

/** Clients and durations of the full shape are multiplied by this. */
export const SCALE = positive('SCALE', 1);
/** Durations alone, where they are to scale otherwise than clients. */
export const TIME_SCALE = positive('TIME_SCALE', SCALE);
/** Off: thresholds on time (latency, rate, steadiness) do not decide; those on errors and answers always do. */
export const LATENCY = (__ENV.LATENCY || 'on') !== 'off';

function positive(name, otherwise) {
    const value = Number(__ENV[name] || otherwise);
    if (!(value > 0)) {
        throw new Error(`${name} must be a number above 0, not ${__ENV[name]}`);
    }
    return value;
}

/** A number that a variable may replace. */
export function setting(name, otherwise) {
    const value = Number(__ENV[name] === undefined ? otherwise : __ENV[name]);
    if (Number.isNaN(value)) {
        throw new Error(`${name} must be a number, not ${__ENV[name]}`);
    }
    return value;
}

/** Clients at this scale: one at least. */
export function clients(full) {
    return Math.max(1, Math.round(full * SCALE));
}

/** Milliseconds at this scale: half a second at least. */
export function milliseconds(fullSeconds) {
    return Math.max(500, Math.round(fullSeconds * 1000 * TIME_SCALE));
}

/** The same as k6 wants it. */
export function duration(fullSeconds) {
    return `${milliseconds(fullSeconds)}ms`;
}

/** A stage that moves to `target` clients over `fullSeconds`. */
export function stage(fullSeconds, target) {
    return { duration: duration(fullSeconds), target: target === 0 ? 0 : clients(target) };
}

/** A stage that is at `target` clients at once and stays. */
export function jump(fullSeconds, target) {
    return [{ duration: '0s', target: clients(target) }, stage(fullSeconds, target)];
}

/**
 * Thresholds of a scenario: what every scenario demands, the share of failed requests it allows, and what it demands of time,
 * which LATENCY=off takes away. k6's rates are fractions.
 */
export function thresholds({ errors, time = {}, more = {} }) {
    return Object.assign(
        {
            checks: ['rate==1'],
            http_req_failed: [`rate<${setting('MAX_ERRORS', errors)}`],
            unanswered: ['count<=0'],
            acked_events_lost: ['count<=0'],
            events_acked: ['count>0'],
        },
        more,
        LATENCY ? time : {},
    );
}

/** Options of a scenario with one population of clients. */
export function options(stages, limits, startVUs = 1) {
    return {
        scenarios: {
            clients: { executor: 'ramping-vus', startVUs, stages, gracefulRampDown: '10s', gracefulStop: '10s' },
        },
        thresholds: limits,
        summaryTrendStats: ['avg', 'min', 'med', 'p(90)', 'p(95)', 'p(99)', 'p(99.9)', 'max'],
        setupTimeout: '30s',
        teardownTimeout: '30s',
    };
}

function resultsOf(metrics) {
    const results = [];
    Object.keys(metrics).sort().forEach((name) => {
        const limits = metrics[name].thresholds || {};
        Object.keys(limits).forEach((limit) => {
            results.push({ metric: name, threshold: limit, passed: limits[limit].ok, value: valueFor(metrics[name], limit) });
        });
    });
    return results;
}

function valueFor(metric, limit) {
    return metric.values[limit.split(/[<>=!]/)[0].trim()];
}

function valuesOf(metrics) {
    const values = {};
    Object.keys(metrics).forEach((name) => {
        values[name] = metrics[name].values;
    });
    return values;
}

/** The checks that failed, by name, with how often. */
function failedChecks(group) {
    const failed = {};
    ((group || {}).checks || []).forEach((check) => {
        if (check.fails > 0) {
            failed[check.name] = check.fails;
        }
    });
    return failed;
}

function rounded(value) {
    return value === undefined || value === null ? '-' : String(Math.round(value * 1000) / 1000);
}

/** Writes SUMMARY (JSON) and prints the same in short. `extra`: what the scenario found out besides, by name. */
export function summarise(name, data, extra = {}) {
    const { metrics } = data;
    const value = (metric, field) => ((metrics[metric] || {}).values || {})[field];
    const seconds = data.state.testRunDurationMs / 1000;
    const results = resultsOf(metrics);
    const requests = value('http_reqs', 'count') || 0;
    const acked = value('events_acked', 'count') || 0;
    const summary = {
        scenario: name,
        passed: results.every((result) => result.passed),
        run: RUN,
        scale: SCALE,
        time_scale: TIME_SCALE,
        time_thresholds: LATENCY,
        base_url: BASE_URL,
        ack: ACK || 'server default',
        seconds,
        requests,
        // http_req_failed is a rate of failures: its `passes` are the requests that failed.
        requests_failed: value('http_req_failed', 'passes') || 0,
        requests_per_second: requests / seconds,
        events_acked: acked,
        events_per_second: acked / seconds,
        rejected_share: value('rejections', 'rate') || 0,
        checks_failed: failedChecks(data.root_group),
        latency_ms: (metrics.http_req_duration || {}).values,
        found: extra,
        thresholds: results,
        metrics: valuesOf(metrics),
    };
    const file = __ENV.SUMMARY || `${name}.summary.json`;
    return { [file]: `${JSON.stringify(summary, null, 2)}\n`, stdout: textOf(summary) };
}

function textOf(summary) {
    const latency = summary.latency_ms || {};
    const lines = [
        '',
        `${summary.scenario}: ${summary.passed ? 'passed' : 'FAILED'}`
            + ` (scale ${summary.scale}, ${rounded(summary.seconds)} s, ack ${summary.ack})`,
        `  requests   ${summary.requests}, ${rounded(summary.requests_per_second)}/s, ${summary.requests_failed} failed,`
            + ` ${rounded(summary.rejected_share * 100)} % of the posts rejected`,
        `  events     ${summary.events_acked} acknowledged, ${rounded(summary.events_per_second)}/s`,
        `  latency    med ${rounded(latency.med)}, p95 ${rounded(latency['p(95)'])}, p99 ${rounded(latency['p(99)'])},`
            + ` max ${rounded(latency.max)} ms (closed loop, from the send)`,
    ];
    Object.keys(summary.found).forEach((key) => lines.push(`  ${key}: ${JSON.stringify(summary.found[key])}`));
    Object.keys(summary.checks_failed).forEach((name) => {
        lines.push(`  WRONG  ${name}: ${summary.checks_failed[name]} times`);
    });
    summary.thresholds.forEach((result) => {
        lines.push(`  ${result.passed ? 'ok    ' : 'FAILED'} ${result.metric} ${result.threshold} (${rounded(result.value)})`);
    });
    return `${lines.join('\n')}\n`;
}
