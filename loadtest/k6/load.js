// Load: 1000 → 5000 → 10 000 → 0 clients with mixed requests: 30 % health, 20 % ready, 20 % events, 20 % echo of 23 KB, 10 % metrics.
import { attribution, large } from './shared/events.js';
import { getHealth, getMetrics, getReady, postEcho, postEvent, setUp, tearDown } from './shared/server.js';
import { clients, options as optionsOf, setting, stage, summarise, thresholds } from './shared/scenario.js';

const toEcho = large(23000);

export const options = optionsOf(
    [stage(60, 1000), stage(120, 5000), stage(300, 10000), stage(60, 0)],
    thresholds({ errors: 0.001, time: { http_req_duration: [`p(95)<${setting('P95_MS', 200)}`] } }),
    clients(10),
);

export { setUp as setup, tearDown as teardown };

export default function turn() {
    const dice = Math.random();
    if (dice < 0.3) {
        getHealth();
    } else if (dice < 0.5) {
        getReady();
    } else if (dice < 0.7) {
        postEvent(attribution());
    } else if (dice < 0.9) {
        postEcho(toEcho());
    } else {
        getMetrics();
    }
}

export function handleSummary(data) {
    return summarise('load', data);
}
