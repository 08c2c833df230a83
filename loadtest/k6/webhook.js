// Webhook: 200 → 500 → 1000 clients over five minutes, each delivering one nested event of about a kilobyte at a time.
import { webhook } from './shared/events.js';
import { postEvent, setUp, tearDown } from './shared/server.js';
import { clients, options as optionsOf, setting, stage, summarise, thresholds } from './shared/scenario.js';

export const options = optionsOf(
    [stage(60, 200), stage(90, 500), stage(90, 1000), stage(60, 1000)],
    thresholds({ errors: 0.01, time: { http_req_duration: [`p(95)<${setting('P95_MS', 500)}`] } }),
    clients(50),
);

export { setUp as setup, tearDown as teardown };

export default function turn() {
    postEvent(webhook());
}

export function handleSummary(data) {
    return summarise('webhook', data);
}
