// Ramp: 10 → 100 → 500 → 1000 → 500 → 0 clients. Each turn is one single event, one batch of ten and, one time in ten, a read.
import { attribution } from './shared/events.js';
import { getMetrics, postBatch, postEvent, setUp, tearDown } from './shared/server.js';
import { clients, options as optionsOf, setting, SCALE, stage, summarise, thresholds } from './shared/scenario.js';

const BATCH = setting('BATCH', 10);
// The full shape is to bring a million events a second, a smaller one what it is told to.
const RATE = setting('MIN_EVENTS_PER_SECOND', SCALE < 1 ? 0 : 1000000);

export const options = optionsOf(
    [stage(120, 100), stage(300, 500), stage(600, 1000), stage(300, 500), stage(120, 0)],
    thresholds({
        errors: 0.001,
        time: {
            http_req_duration: [`p(95)<${setting('P95_MS', 100)}`, `p(99)<${setting('P99_MS', 200)}`],
            events_acked: RATE > 0 ? ['count>0', `rate>=${RATE}`] : ['count>0'],
        },
    }),
    clients(10),
);

export { setUp as setup, tearDown as teardown };

export default function turn() {
    postEvent(attribution());
    postBatch(Array.from({ length: BATCH }, attribution));
    if (Math.random() < 0.1) {
        getMetrics();
    }
}

export function handleSummary(data) {
    return summarise('ramp', data);
}
