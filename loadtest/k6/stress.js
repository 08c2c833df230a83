// Stress: 5 k → 10 k → 15 k → 20 k clients over eight minutes. It looks for the knee, and demands that past it the server refuses
// in the promised way (503 with Retry-After) instead of failing, crashing or losing what it acknowledged.
import exec from 'k6/execution';
import { attribution } from './shared/events.js';
import { postLines, setUp, tearDown } from './shared/server.js';
import { clients, jump, milliseconds, options as optionsOf, setting, summarise, thresholds } from './shared/scenario.js';

const STEPS = [5000, 10000, 15000, 20000];
const STEP_SECONDS = 120;
const BATCH = setting('BATCH', 10);
// A step that acknowledges less than this much more than the best one before is past the knee.
const GAIN = 1.05;

function ofEachStep(limits) {
    const all = {};
    STEPS.forEach((step) => Object.assign(all, limits(step)));
    return all;
}

export const options = optionsOf(
    STEPS.flatMap((step) => jump(STEP_SECONDS, step)),
    thresholds({
        errors: 0.001,
        more: ofEachStep((step) => ({
            [`events_acked{step:${step}}`]: ['count>0'],
            [`rejections{step:${step}}`]: ['rate<1'],
        })),
        // Late is allowed here, but not as late as a client that has given up.
        time: ofEachStep((step) => ({ [`http_req_duration{step:${step}}`]: [`p(95)<${setting('P95_MS', 10000)}`] })),
    }),
    clients(STEPS[0]),
);

export { setUp as setup, tearDown as teardown };

export default function turn() {
    const elapsed = Date.now() - exec.scenario.startTime;
    const at = Math.min(STEPS.length - 1, Math.floor(elapsed / milliseconds(STEP_SECONDS)));
    postLines(Array.from({ length: BATCH }, attribution), { tags: { step: String(STEPS[at]) }, mayRefuse: true });
}

export function handleSummary(data) {
    const valueOf = (metric, step, field) => ((data.metrics[`${metric}{step:${step}}`] || {}).values || {})[field];
    const seconds = milliseconds(STEP_SECONDS) / 1000;
    const steps = STEPS.map((step) => ({
        clients: clients(step),
        events_per_second: Math.round((valueOf('events_acked', step, 'count') || 0) / seconds),
        rejected_share: valueOf('rejections', step, 'rate'),
        p95_ms: valueOf('http_req_duration', step, 'p(95)'),
    }));
    let knee = steps[0];
    steps.forEach((step) => {
        knee = step.events_per_second > knee.events_per_second * GAIN ? step : knee;
    });
    return summarise('stress', data, { steps, knee_at_clients: knee.clients });
}
